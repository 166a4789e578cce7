import { invalidArgument } from './errors.ts';

/**
 * What can be a mount in a guest. The spec of a volume is held against these rules before anything is touched, and the
 * scripts of the guest are given nothing else.
 */

const MOUNT_POINT_BYTES_MAX = 4000;
const OPTION = /^[A-Za-z0-9_.:/@%+-][A-Za-z0-9_.:/@%+=-]{0,127}$/;

/**
 * A path in the guest: absolute, without `.`, `..`, doubled or trailing slashes, without control characters, at most
 * 4000 bytes, and not the root.
 * @throws ShimError INVALID_ARGUMENT / INVALID_MOUNT_POINT
 */
export function checkMountPoint(field: string, path: string): void {
  const problem = problemOfMountPoint(path);
  if (problem !== undefined) throw invalidArgument(field, path, problem, 'INVALID_MOUNT_POINT');
}

function problemOfMountPoint(path: string): string | undefined {
  if (path === '') return 'must not be empty';
  if (path === '/') return 'is the root of the guest';
  if (!path.startsWith('/')) return 'must be an absolute path in the guest';
  if (/\p{Cc}/u.test(path)) return 'must not contain control characters';
  if (Buffer.byteLength(path) > MOUNT_POINT_BYTES_MAX) return `is longer than ${MOUNT_POINT_BYTES_MAX} bytes`;
  const parts = path.split('/').slice(1);
  if (parts.at(-1) === '') return 'must not end with a slash';
  // The guest finds the mount again in mountinfo, where each path is written in one way.
  if (parts.includes('')) return 'must not contain doubled slashes';
  if (parts.includes('.') || parts.includes('..')) return 'must not contain "." or ".." elements';
  return undefined;
}

/**
 * One option of mount(8), 1 to 128 bytes. Not `ro` and `rw`: whether a volume is read-only, its spec says.
 * @throws ShimError INVALID_ARGUMENT / INVALID_MOUNT_OPTION
 */
export function checkMountOption(field: string, option: string): void {
  if (option === 'ro' || option === 'rw') {
    throw invalidArgument(field, option, 'is what read_only of the volume says', 'INVALID_MOUNT_OPTION');
  }
  if (!OPTION.test(option)) {
    const problem = 'is not a mount option (letters, digits and _.:/@%+=- only, at most 128 bytes)';
    throw invalidArgument(field, option, problem, 'INVALID_MOUNT_OPTION');
  }
}
