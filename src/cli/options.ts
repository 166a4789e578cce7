/** Parsers for option values. They check form only; what a value means and whether it is allowed the daemon decides. */
import { resolve } from 'node:path';
import { InvalidArgumentError } from '@commander-js/extra-typings';

const UINT32_MAX = 0xffff_ffff;

/** A parser for whole numbers from `min` to `max`, both included. */
export function wholeNumber(min = 0, max = UINT32_MAX): (text: string) => number {
  return (text) => {
    const number = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!(number >= min && number <= max)) {
      throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`);
    }
    return number;
  };
}

/** Collects a repeated NAME=VALUE option into a record. The value may be empty and may hold further "=". */
export function collectPair(text: string, previous: Readonly<Record<string, string>> = {}): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Give NAME=VALUE.');
  return { ...previous, [text.slice(0, at)]: text.slice(at + 1) };
}

/** Collects a repeated NAME=VALUE option into a list, in the order given. */
export function collectAssignment(text: string, previous: readonly string[] = []): string[] {
  if (text.indexOf('=') < 1) throw new InvalidArgumentError('Give NAME=VALUE.');
  return [...previous, text];
}

/** "a,b" as ["a", "b"]; empty parts are dropped. */
export function commaList(text: string): string[] {
  return text.split(',').filter((part) => part !== '');
}

/** The daemon has its own working directory, so a path leaves here absolute. */
export function absolutePath(cwd: string, path: string): string {
  return resolve(cwd, path);
}

/** The fields that are set. Proto fields that are absent take their defaults; present ones may not be undefined. */
export function present<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  // Entries that are undefined are gone, which is what the return type says and Object.fromEntries cannot.
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/** The words of a choice, with their types. */
export function keysOf<T extends object>(choices: T): (keyof T & string)[] {
  // Object.keys says string[]; these tables are literals with no other keys.
  return Object.keys(choices) as (keyof T & string)[];
}
