import { readlink, realpath, stat } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { run } from '../base/run.ts';
import { findProgram } from '../qemu/file-identity.ts';

/** What of the host's file system a confined QEMU sees, all of it read-only. */
export interface QemuLayout {
  /** QEMU's binary, symbolic links resolved. */
  readonly program: string;
  /** Directories: those of its libraries and modules, and of its firmware. */
  readonly directories: readonly string[];
  /** Single files: the binary, the dynamic loader, setpriv. */
  readonly files: readonly { readonly path: string; readonly source: string }[];
  /** Links at the top of the host's root, such as /lib. */
  readonly links: readonly { readonly path: string; readonly target: string }[];
}

/** Of util-linux. */
export const SETPRIV = '/usr/bin/setpriv';

const HELP_TIMEOUT_MS = 10_000;
/** Where QEMU looks for its modules, from the directory of its binary (configure's --libdir). */
const MODULE_DIRECTORIES = ['../lib/qemu', '../lib64/qemu', '../lib/x86_64-linux-gnu/qemu'] as const;
const TOP_LINKS = ['/lib', '/lib64', '/bin', '/sbin'] as const;

/**
 * Finds out what a QEMU needs: its libraries by ldd(1), its firmware by `-L help`.
 * @param more further files that it is to have, such as a library that is preloaded
 * @throws Error when it cannot be found out: the binary is a script, or ldd does not run
 */
export async function qemuLayout(binary: string, more: readonly string[]): Promise<QemuLayout> {
  const program = await realpath(await findProgram(binary));
  const options = { timeout: HELP_TIMEOUT_MS, stdin: 'ignore', env: { LC_ALL: 'C' } } as const;
  const libraries = await Promise.all([program, SETPRIV].map((file) => run('ldd', [file], options)));
  const { stdout: firmware } = await run(program, ['-L', 'help'], options);
  const needed = libraries.map(({ stdout }) => parseLdd(stdout));
  const links = await topLinks();
  const directories = new Set<string>();
  const named = [
    ...needed.flatMap(({ directories: found }) => found),
    ...firmware.split('\n').filter((line) => line.startsWith('/')),
    ...MODULE_DIRECTORIES.map((path) => join(dirname(program), path)),
  ];
  for (const path of named) {
    const place = atTop(normalize(path), links);
    if (await isDirectory(place)) directories.add(place);
  }
  const loaders = [...new Set(needed.flatMap(({ loader }) => (loader === undefined ? [] : [loader])))];
  const kept = withoutCovered([...directories]);
  const places = [program, SETPRIV, ...loaders, ...more].map((path) => atTop(path, links));
  const files = await singleFiles(places, kept);
  return { program, directories: kept, files, links: links.filter(({ path }) => used(path, named, loaders)) };
}

/**
 * Which of the files do not come with a directory. A link inside of one does, and bwrap of Debian 13 binds nothing to a
 * link: what it leads to is bound at its own place.
 * @throws the system error when a file is not there
 */
export async function singleFiles(
  paths: readonly string[],
  directories: readonly string[],
): Promise<QemuLayout['files']> {
  const files: QemuLayout['files'][number][] = [];
  for (const path of paths) {
    const source = await realpath(path);
    if (!isBelow(path, directories)) files.push({ path, source });
    else if (!isBelow(source, directories)) files.push({ path: source, source });
  }
  return files;
}

/** What ldd(1) prints of one file: the directories of its libraries, as they are named, and its loader. */
export function parseLdd(text: string): {
  readonly directories: readonly string[];
  readonly loader: string | undefined;
} {
  const directories = [...text.matchAll(/=> (\/\S+)\/[^/\s]+ \(0x/g)].map(([, directory = '']) => directory);
  const loader = /^\s*(\/\S+) \(0x/m.exec(text)?.[1];
  if (loader === undefined) throw new Error(`ldd names no dynamic loader: ${text.trim().slice(0, 200)}`);
  return { directories: [...new Set(directories)], loader };
}

/** Without those that lie below another one. */
export function withoutCovered(directories: readonly string[]): readonly string[] {
  return directories.filter((path) => !isBelow(path, directories)).sort();
}

/** Whether a path lies below one of the directories. */
export function isBelow(path: string, directories: readonly string[]): boolean {
  return directories.some((directory) => path.startsWith(`${directory}/`));
}

async function topLinks(): Promise<QemuLayout['links']> {
  const links: { path: string; target: string }[] = [];
  for (const path of TOP_LINKS) {
    const target = await readlink(path).catch(() => undefined);
    if (target !== undefined) links.push({ path, target });
  }
  return links;
}

/** A path with a link at the top of the root followed: /lib/x -> /usr/lib/x. */
function atTop(path: string, links: QemuLayout['links']): string {
  const link = links.find((one) => path.startsWith(`${one.path}/`));
  return link === undefined ? path : join('/', link.target, path.slice(link.path.length));
}

function used(link: string, ...paths: readonly (readonly string[])[]): boolean {
  return paths.some((some) => some.some((path) => path.startsWith(`${link}/`)));
}

async function isDirectory(path: string): Promise<boolean> {
  return await stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}

/** The library that is preloaded, symbolic links resolved: what they lead through is not in QEMU's root. */
export async function preloadOf(allocator: string): Promise<string | undefined> {
  return allocator.startsWith('/') ? await realpath(allocator) : undefined;
}

/** Whether everybody may read a file: a QEMU of another user can open it by its path then. */
export async function everybodyReads(path: string): Promise<boolean> {
  const { mode } = await stat(path);
  return (mode & 0o004) !== 0;
}
