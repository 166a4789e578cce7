import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { execa } from 'execa';
import { packageIsKnown, updatePackageLists } from '../lib/packages.ts';
import { contents, isKernelPackage, unneededLibraries } from './contents.ts';

/** One binary package at the version that apt would install. */
export interface Deb {
  /** apt's file name: NAME_VERSION_ARCH.deb with the colon of an epoch written %3a. */
  readonly file: string;
  readonly sha256: string;
}

const edgePattern = /^ [ |](?:Pre)?Depends: (\S+)$/;

/**
 * The names of all packages whose files may be needed: the listed ones, the kernel proper, and every library package
 * that they depend on. Uses apt's package lists, fetching them first when there are none.
 * @param kernelPackage a meta package or the kernel proper; undefined: the kernel comes from elsewhere
 * @throws Error when a package is unknown to apt (not Debian, or not amd64)
 */
export async function resolvePackages(kernelPackage: string | undefined): Promise<string[]> {
  const [first = ''] = [kernelPackage, ...contents.map((entry) => entry.package)].filter((name) => name !== undefined);
  if (!(await packageIsKnown(first))) await updatePackageLists();
  if (!(await packageIsKnown(first))) {
    throw new Error(`apt knows no package ${first}: the guest is built from Debian's amd64 packages`);
  }
  const roots = [...(kernelPackage === undefined ? [] : [kernelPackage]), ...contents.map((entry) => entry.package)];
  const { stdout } = await execa('apt-cache', ['depends', '--recurse', '--important', ...roots], {
    env: { LC_ALL: 'C' },
  });
  const dependencies = parseDependencies(stdout);
  const found = new Set(roots);
  for (const name of found) {
    for (const dependency of dependencies.get(name) ?? []) if (isWanted(dependency)) found.add(dependency);
  }
  // A meta package holds nothing.
  if (kernelPackage !== undefined && !isKernelPackage(kernelPackage)) found.delete(kernelPackage);
  return [...found].sort();
}

/** The image wants kernels and libraries of what it lists; not the tools that a full system would bring along. */
function isWanted(name: string): boolean {
  if (isKernelPackage(name)) return true;
  return name.startsWith('lib') && !unneededLibraries.some((pattern) => pattern.test(name));
}

function parseDependencies(output: string): Map<string, string[]> {
  const dependencies = new Map<string, string[]>();
  let current: string[] = [];
  for (const line of output.split('\n')) {
    const target = edgePattern.exec(line)?.[1];
    if (target !== undefined) current.push(target);
    else if (/^[a-z0-9]/.test(line)) dependencies.set(line, (current = []));
  }
  return dependencies;
}

/** The file and checksum of each package at apt's candidate version. No network. */
export async function resolveDebs(packages: readonly string[]): Promise<Deb[]> {
  const { stdout } = await execa('apt-get', ['download', '--print-uris', ...packages], { env: { LC_ALL: 'C' } });
  const debs = stdout.split('\n').flatMap((line) => {
    const [, file, sha256] = /^'.*' (\S+) \d+ SHA256:([0-9a-f]{64})$/.exec(line) ?? [];
    return file === undefined || sha256 === undefined ? [] : [{ file, sha256 }];
  });
  if (debs.length !== packages.length) {
    throw new Error(`apt-get download --print-uris named ${debs.length} files for ${packages.length} packages`);
  }
  return debs.sort((a, b) => (a.file < b.file ? -1 : 1));
}

/**
 * Makes sure that `directory` holds every package file, downloading what is missing or damaged, and that each has the
 * checksum that apt's signed lists give.
 * @throws Error when a checksum is wrong after the download
 */
export async function downloadDebs(debs: readonly Deb[], directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const missing: Deb[] = [];
  for (const deb of debs) if (!(await hasChecksum(join(directory, deb.file), deb.sha256))) missing.push(deb);
  if (missing.length === 0) return;
  console.error(`downloading ${missing.length} packages ...`);
  const temporary = await mkdtemp(join(directory, 'download-'));
  try {
    const wanted = missing.map(({ file }) => file.replace(/^([^_]+)_(.*)_[^_]+\.deb$/, '$1=$2').replace('%3a', ':'));
    await execa('apt-get', ['-q', 'download', ...wanted], { cwd: temporary, env: { LC_ALL: 'C' }, stdin: 'ignore' });
    for (const { file, sha256 } of missing) {
      const from = join(temporary, file);
      if (!(await hasChecksum(from, sha256))) throw new Error(`${file} has another checksum than apt's lists say`);
      await rename(from, join(directory, file));
    }
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Removes package files that the present image does not use. */
export async function pruneDebs(debs: readonly Deb[], directory: string): Promise<void> {
  const keep = new Set(debs.map((deb) => deb.file));
  for (const name of await readdir(directory)) {
    if (name.endsWith('.deb') && !keep.has(name)) await rm(join(directory, name), { force: true });
  }
}

async function hasChecksum(path: string, sha256: string): Promise<boolean> {
  if (!existsSync(path)) return false;
  return (await sha256OfFile(path)) === sha256;
}

/** SHA-256 of a file's bytes, in hex. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
