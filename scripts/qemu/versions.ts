import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { unpackDebs } from '../lib/debs.ts';
import { ensureCommands } from '../lib/packages.ts';
import { Suite, suitesDirectory } from '../lib/suite.ts';

const packageName = 'qemu-system-x86';
const libraries = ['usr/lib/x86_64-linux-gnu', 'usr/lib', 'usr/lib/x86_64-linux-gnu/systemd'];
const modules = 'usr/lib/x86_64-linux-gnu/qemu';
const firmware = ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu'];

/** A QEMU of another Debian suite, beside the machine's own. */
interface OtherQemu {
  readonly suite: string;
  /** Debian's version of the package. */
  readonly version: string;
  /** To be started like any other: a script that names its firmware to it. */
  readonly binary: string;
}

/**
 * Fetches the QEMU of a suite and unpacks it with all its libraries into build/suites/SUITE/qemu, unless it is there.
 * The program's loader and library path are set to what was unpacked with it, so that it needs no chroot.
 * @throws Error when the suite or its packages cannot be had
 */
export async function ensureQemuOf(suiteName: string): Promise<OtherQemu> {
  const suite = await Suite.open(suiteName);
  const version = await suite.versionOf(packageName);
  if (version === undefined) throw new Error(`Debian ${suiteName} has no package ${packageName}`);
  const directory = join(suitesDirectory, suiteName, 'qemu');
  const binary = join(directory, 'qemu-system-x86_64');
  const stamp = join(directory, 'version');
  // The paths in the program are absolute: a checkout that was moved needs it anew.
  const expected = `${version}\n${binary}\n`;
  if (existsSync(stamp) && (await readFile(stamp, 'utf8')) === expected) return { suite: suiteName, version, binary };
  await ensureCommands(['patchelf', 'tar']);
  console.error(`fetching QEMU ${version} ...`);
  const debs = await suite.downloadWithDependencies([packageName]);
  await rm(directory, { recursive: true, force: true });
  const work = await mkdtemp(join(suitesDirectory, suiteName, 'unpack-'));
  try {
    await unpackDebs(debs, work, ['./usr/share/doc', './usr/share/man', './usr/share/locale']);
    const program = join(work, 'usr/bin/qemu-system-x86_64');
    await pointAtItsOwn(program, directory);
    await forgetForeignModules(program);
    await writeFile(join(work, 'qemu-system-x86_64'), launcher(directory), { mode: 0o755 });
    await writeFile(join(work, 'version'), expected);
    await chmod(work, 0o755);
    await rename(work, directory);
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    throw error;
  }
  return { suite: suiteName, version, binary };
}

/** @param directory where what was unpacked will lie */
async function pointAtItsOwn(program: string, directory: string): Promise<void> {
  const loader = join(directory, 'usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2');
  const path = libraries.map((library) => join(directory, library)).join(':');
  // RPATH, not RUNPATH: it holds for libraries of libraries, and for the modules that QEMU opens by name.
  await execa('patchelf', ['--set-interpreter', loader, '--force-rpath', '--set-rpath', path, program]);
}

/**
 * The place in /usr where the program would look for modules as well: those of the machine's own QEMU are there, and at
 * them it ends (`-device help` of 11.1). A path of the same length that nobody has takes its place.
 */
async function forgetForeignModules(program: string): Promise<void> {
  const bytes = await readFile(program);
  const foreign = Buffer.from(`/${modules}\0`);
  const nowhere = Buffer.from(`/${'-'.repeat(foreign.length - 2)}\0`);
  for (let at = bytes.indexOf(foreign); at !== -1; at = bytes.indexOf(foreign, at)) nowhere.copy(bytes, at);
  await writeFile(program, bytes);
}

/** Debian's QEMU looks for firmware in /usr, where another version's may be, and for modules where it is told to. */
function launcher(directory: string): string {
  const quoted = (path: string): string => `'${join(directory, path).replaceAll("'", "'\\''")}'`;
  const places = firmware.map((path) => `-L ${quoted(path)}`).join(' ');
  return [
    '#!/bin/sh',
    `QEMU_MODULE_DIR=${quoted(modules)}`,
    'export QEMU_MODULE_DIR',
    `exec ${quoted('usr/bin/qemu-system-x86_64')} ${places} "$@"`,
    '',
  ].join('\n');
}
