import type { z } from 'zod';
import { isJsonObject } from '../base/versions.ts';

/**
 * Values of a journal that this version does not know: a kind of source, an operation, a state. What a later version
 * means by one cannot be read past, as a member can; but the version that wrote it can read it. A member that is
 * missing or of another type is no such value: that journal is damaged.
 */

type Issue = z.core.$ZodIssue;

/**
 * Where a journal has its first value that this version does not know, such as `volumes.0.spec.source`; undefined when
 * it was refused for something else.
 */
export function unknownValue(journal: unknown, { issues }: z.ZodError): string | undefined {
  return issues.find((issue) => isUnknownValue(journal, issue))?.path.join('.');
}

/** @param value that the issue's path begins at */
function isUnknownValue(value: unknown, issue: Issue): boolean {
  const found = issue.path.reduce(memberOf, value);
  if (issue.code === 'invalid_value') return typeof found === 'string';
  if (issue.code !== 'invalid_union') return false;
  if (issue.discriminator !== undefined) return typeof found === 'string';
  // If there is a branch that all of its values fit, it is of that kind, and lacks something.
  return issue.errors.length > 0 && issue.errors.every((branch) => branch.some((one) => isUnknownValue(found, one)));
}

function memberOf(value: unknown, name: PropertyKey): unknown {
  if (Array.isArray(value)) return typeof name === 'number' ? value[name] : undefined;
  return isJsonObject(value) ? value[String(name)] : undefined;
}
