import { lstat, readlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { mountPointOf } from './mounts.ts';

/** As many symbolic links as the kernel follows (path_resolution(7)). */
export const LINKS_MAX = 40;

/** Nothing was done with a path: it leads to another file system. */
export class LeadsElsewhere extends Error {
  /** Where it goes on, as it is written there. */
  readonly path: string;

  constructor(path: string) {
    super(`it leads to ${path}, on another file system`);
    this.path = path;
  }
}

/**
 * Where a path leads out of the file system on which it begins, which is told by its mount point: by a symbolic link or
 * `..`, or because something is mounted on the way. It touches that one file system, and the path that it gives lies on
 * another, untouched. Undefined when the path stays where it begins, or ends on the way.
 * @param path absolute
 */
export async function leadsElsewhere(path: string, mountinfo?: string): Promise<string | undefined> {
  const home = mountPointOf(path, mountinfo);
  // Mount points are told with every link resolved.
  let at = home;
  let rest = partsOf(path.slice(home.length));
  let links = 0;
  for (let part = rest.shift(); part !== undefined; part = rest.shift()) {
    const next = part === '..' ? dirname(at) : join(at, part);
    // Not put in order: a `..` behind a link of the other file system is that one's to resolve.
    if (mountPointOf(next, mountinfo) !== home) return `${next === '/' ? '' : next}/${rest.join('/')}`;
    at = next;
    if (part === '..') continue;
    const target = await targetOf(at);
    if (target === undefined) continue;
    links += 1;
    if (links > LINKS_MAX) return undefined;
    rest = [...partsOf(target), ...rest];
    at = dirname(at);
    if (!target.startsWith('/')) continue;
    const anew = `/${rest.join('/')}`;
    if (mountPointOf(anew, mountinfo) !== home) return anew;
    at = home;
    rest = partsOf(anew.slice(home.length));
  }
  return undefined;
}

/** Undefined for what is no symbolic link, and for what is not there. */
async function targetOf(path: string): Promise<string | undefined> {
  try {
    return (await lstat(path)).isSymbolicLink() ? await readlink(path) : undefined;
  } catch {
    return undefined;
  }
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}
