import { realpath } from 'node:fs/promises';
import { normalize } from 'node:path';
import { leadsElsewhere } from './leads.ts';
import { mountPointOf } from './mounts.ts';

/**
 * The first of some directories below which a file lies, with its own links resolved; undefined: below none. A
 * directory on a file system that has nothing to do with the file is not touched: that one may hang.
 * @param resolved path of the file, with every symbolic link resolved
 * @param named the path as somebody wrote it, whose file system has answered
 * @param roots absolute, as they are written: each may be a symbolic link
 */
export async function rootAbove(
  resolved: string,
  named: string,
  roots: readonly string[],
): Promise<string | undefined> {
  // Nothing leads on from a root that is the beginning of a resolved path.
  const written = roots.find((root) => isBelow(resolved, root));
  if (written !== undefined) return written;
  const near = new Set(['/', mountPointOf(named), mountPointOf(resolved)]);
  for (const root of roots) {
    if (!near.has(mountPointOf(root))) continue;
    const elsewhere = await leadsElsewhere(root);
    const isNear = elsewhere === undefined || near.has(mountPointOf(elsewhere));
    const real = isNear ? await realpath(root).catch(() => undefined) : normalize(elsewhere);
    if (real !== undefined && isBelow(resolved, real)) return real;
  }
  return undefined;
}

function isBelow(path: string, root: string): boolean {
  return path === root || path.startsWith(root.endsWith('/') ? root : `${root}/`);
}
