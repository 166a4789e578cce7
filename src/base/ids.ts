import { invalidArgument } from './errors.ts';

export const ID_LENGTH_MAX = 64;
export const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/**
 * Checks an id that the caller chose (sandbox or volume). Ids become part of paths and of QEMU object ids, so the
 * alphabet is the one both take: letters, digits, `.`, `_`, `-`, beginning with a letter or digit, 1 to 64 bytes.
 * @throws ShimError INVALID_ARGUMENT / INVALID_ID
 */
export function checkId(field: string, id: string): string {
  if (id === '') throw invalidArgument(field, id, 'must not be empty', 'INVALID_ID');
  if (id.length > ID_LENGTH_MAX) {
    throw invalidArgument(
      field,
      id,
      `is ${id.length} characters long, at most ${ID_LENGTH_MAX} are allowed`,
      'INVALID_ID',
    );
  }
  if (!ID_PATTERN.test(id)) {
    throw invalidArgument(
      field,
      id,
      'must begin with a letter or digit and hold only letters, digits, ".", "_" and "-"',
      'INVALID_ID',
    );
  }
  return id;
}
