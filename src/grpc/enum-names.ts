import { invalidArgument } from '../base/errors.ts';

/**
 * What an enum's name stands for. A number that this version does not know arrives as a number.
 * @throws ShimError INVALID_ARGUMENT for what the table does not have
 */
export function known<T>(field: string, table: Readonly<Record<string, T>>, value: string | number): T {
  if (typeof value === 'string' && Object.hasOwn(table, value)) return table[value] as T;
  throw invalidArgument(field, value, 'is not a value that this version knows');
}

/** The enum's name for a value: the same table, read the other way round. @throws Error when the table lacks it */
export function nameOf<K extends string, V>(table: Readonly<Record<K, V>>, value: V): K {
  for (const name of Object.keys(table) as K[]) if (table[name] === value) return name;
  throw new Error(`no enum name for ${String(value)}`);
}
