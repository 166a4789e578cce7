import { existsSync } from 'node:fs';
import {
  chmod,
  copyFile,
  cp,
  lstat,
  lutimes,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { execa } from 'execa';
import { bootModules, contents, demandModules, directories, links, modulesOfSomeKernels } from './contents.ts';
import { isCompressed, unpackModule, withoutCompression } from './modules.ts';

const libraryDirectory = '/usr/lib/x86_64-linux-gnu';
const loaderName = 'ld-linux-x86-64.so.2';

/** Directories from which the guest is put together: unpacked packages, compiled programs, and files as they are. */
export interface TreeSources {
  readonly stage: string;
  readonly programs: string;
  readonly rootfs: string;
}

/**
 * Lays out the guest's root file system in `tree`. Returns the kernel's version. The same inputs give the same tree:
 * names, modes, contents and times.
 */
export async function layOutTree({ stage, programs, rootfs }: TreeSources, tree: string): Promise<string> {
  for (const directory of directories) await mkdir(join(tree, directory), { recursive: true });
  for (const [path, target] of links) await place(tree, path, (to) => symlink(target, to));
  for (const { files } of contents) for (const path of files) await copyEntry(join(stage, path), tree, path);
  await copyLibraries(stage, tree);
  const version = await copyModules(stage, tree);
  await cp(rootfs, tree, { recursive: true });
  await copyFile(join(programs, 'qshim-uevents'), join(tree, 'usr/sbin/qshim-uevents'));
  await linkApplets(stage, tree);
  await normalise(tree);
  return version;
}

async function place(tree: string, path: string, make: (to: string) => Promise<void>): Promise<void> {
  const to = join(tree, path);
  await mkdir(dirname(to), { recursive: true });
  await make(to);
}

async function copyEntry(from: string, tree: string, path: string): Promise<void> {
  const isLink = (await lstat(from)).isSymbolicLink();
  const target = isLink ? await readlink(from) : '';
  await place(tree, path, (to) => (isLink ? symlink(target, to) : copyFile(from, to)));
}

/** Copies the shared libraries of every program in the tree, found by the packages' own dynamic loader. */
async function copyLibraries(stage: string, tree: string): Promise<void> {
  const loader = join(stage, libraryDirectory, loaderName);
  const libraries = new Map<string, string>();
  for (const path of await walk(tree)) {
    if (!(await lstat(join(tree, path))).isFile()) continue;
    const search = ['--library-path', join(stage, libraryDirectory)];
    // 0: a dynamic program; 2: a dynamic library; anything else: a static program, a script, data.
    const kind = await execa(loader, [...search, '--verify', join(tree, path)], { reject: false });
    if (kind.exitCode !== 0 && kind.exitCode !== 2) continue;
    const listed = await execa(loader, [...search, '--list', join(tree, path)], { reject: false });
    if (listed.exitCode !== 0) throw new Error(`the libraries of ${path} cannot be listed: ${listed.stderr}`);
    for (const [, found] of listed.stdout.matchAll(/=> (\S+) \(0x/g)) {
      if (found === undefined) continue;
      if (!found.startsWith(stage)) throw new Error(`${path} needs ${basename(found)}, which no package here holds`);
      libraries.set(basename(found), found);
    }
  }
  libraries.delete(loaderName);
  for (const [name, from] of libraries) {
    const to = join(libraryDirectory, name);
    const real = await realpath(from);
    if (!existsSync(join(tree, to))) await place(tree, to, (path) => copyFile(real, path));
  }
  await copyFile(await realpath(loader), join(tree, 'usr/lib64', loaderName));
}

/** Copies the kernel modules with what they depend on, indexes them, and writes the loading order for boot. */
async function copyModules(stage: string, tree: string): Promise<string> {
  const [version, ...others] = await readdir(join(stage, 'usr/lib/modules'));
  if (version === undefined || others.length > 0) throw new Error('expected the modules of exactly one kernel');
  const base = join('/usr/lib/modules', version);
  await runDepmod(stage, stage, version);
  const needs = parseModulesDep(await readFile(join(stage, base, 'modules.dep'), 'utf8'));
  const builtin = await readFile(join(stage, base, 'modules.builtin'), 'utf8');
  const builtinNames = new Set(builtin.split('\n').map(moduleName));
  const wanted = new Set<string>();
  const select = (names: readonly string[], mustBeThere: boolean): void => {
    for (const name of names) {
      const paths = needs.get(name);
      if (paths === undefined && mustBeThere && !builtinNames.has(name)) {
        throw new Error(`the kernel ${version} has no module ${name}, and has it not built in`);
      }
      for (const path of paths ?? []) wanted.add(path);
    }
  };
  select(bootModules, true);
  const boot = [...wanted]
    .map(withoutCompression)
    .map((path) => `${moduleName(path)} /lib/modules/${version}/${path}\n`);
  select(demandModules, true);
  select(modulesOfSomeKernels, false);
  for (const path of wanted) {
    const from = join(stage, base, path);
    if (!isCompressed(path)) await copyEntry(from, tree, join(base, path));
    else await place(tree, join(base, withoutCompression(path)), (to) => unpackModule(from, to));
  }
  for (const name of ['modules.order', 'modules.builtin', 'modules.builtin.modinfo']) {
    await copyEntry(join(stage, base, name), tree, join(base, name));
  }
  await runDepmod(stage, tree, version);
  await place(tree, '/etc/qshim/modules', (to) => writeFile(to, boot.join('')));
  return version;
}

/** Runs the packages' own depmod, so that nothing has to be installed. */
async function runDepmod(stage: string, base: string, version: string): Promise<void> {
  const libraries = join(stage, libraryDirectory);
  const loader = join(libraries, loaderName);
  const kmod = join(stage, 'usr/bin/kmod');
  await execa(loader, ['--library-path', libraries, '--argv0', 'depmod', kmod, '-b', base, version]);
}

/** Module name to the paths that load it, dependencies first. modules.dep lists them nearest first. */
export function parseModulesDep(text: string): Map<string, string[]> {
  const needs = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [path, rest] = line.split(':');
    if (path === undefined || rest === undefined) continue;
    const dependencies = rest.split(' ').filter((word) => word !== '');
    needs.set(moduleName(path), [...dependencies.reverse(), path]);
  }
  return needs;
}

function moduleName(path: string): string {
  return basename(withoutCompression(path), '.ko').replaceAll('-', '_');
}

/** Links each busybox applet to its usual place, unless a real program of that name is in any of the places. */
async function linkApplets(stage: string, tree: string): Promise<void> {
  const { stdout } = await execa(join(stage, 'usr/bin/busybox'), ['--list-full']);
  const places = ['/usr/bin', '/usr/sbin'];
  const taken = new Set((await Promise.all(places.map((place) => readdir(join(tree, place))))).flat());
  for (const applet of stdout.split('\n')) {
    const path = applet.startsWith('usr/') ? `/${applet}` : `/usr/${applet}`;
    if (!places.includes(dirname(path)) || taken.has(basename(path))) continue;
    await symlink(relative(dirname(path), '/usr/bin/busybox'), join(tree, path));
  }
}

/** Gives every entry the modes and times that do not depend on who builds, where, and when. */
async function normalise(tree: string): Promise<void> {
  for (const path of await walk(tree)) {
    const full = join(tree, path);
    const stats = await lstat(full);
    if (!stats.isSymbolicLink()) await chmod(full, stats.isDirectory() || (stats.mode & 0o111) !== 0 ? 0o755 : 0o644);
    await lutimes(full, 0, 0);
  }
}

/** Every entry below `tree`, parents before children, in byte order, relative to it. */
export async function walk(tree: string): Promise<string[]> {
  const entries = await readdir(tree, { recursive: true, withFileTypes: true });
  return entries.map((entry) => relative(tree, join(entry.parentPath, entry.name))).sort((a, b) => (a < b ? -1 : 1));
}
