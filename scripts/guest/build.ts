import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { unpackDebs } from '../lib/debs.ts';
import { ensureCommands } from '../lib/packages.ts';
import { Suite } from '../lib/suite.ts';
import { type Deb, downloadDebs, pruneDebs, resolveDebs, resolvePackages, sha256OfFile } from './apt.ts';
import { defaultKernelPackage, isKernelPackage } from './contents.ts';
import { packInitramfs } from './pack.ts';
import { buildPrograms, compilerVersion, ensureCompiler, programNames, programSources } from './programs.ts';
import { layOutTree, walk } from './tree.ts';

const root = join(import.meta.dirname, '..', '..');
const aptLists = '/var/lib/apt/lists';

/** Where the image is: `vmlinuz`, `initrd.img`, `programs/` and `manifest.json`. A link to the newest build. */
export const guestDirectory = join(root, 'build', 'guest');
const imagesDirectory = join(root, 'build', 'guest-images');
const debsDirectory = join(root, 'build', 'guest-debs');
/** Images with other kernels, each in a directory of its own. */
const otherGuestsDirectory = join(root, 'build', 'guests');

/** What an image was made from and what came out. */
export interface Manifest {
  /** SHA-256 over scripts/guest and the sources of the programs: what is put in, and how. */
  readonly recipe: string;
  /** What the programs were compiled with. */
  readonly compiler: string;
  readonly packages: readonly string[];
  readonly debs: readonly Deb[];
  readonly kernelVersion: string;
  /** File name to SHA-256 and size. */
  readonly files: Readonly<Record<string, { readonly sha256: string; readonly bytes: number }>>;
  /** When apt's package lists last changed, milliseconds since the epoch: unchanged lists need no question to apt. */
  readonly listsChangedMs: number;
}

export interface GuestImage {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly manifest: Manifest;
}

/**
 * The reference guest, built if it is missing or if its packages or recipe have changed since. Progress goes to stderr.
 * @throws Error when packages cannot be found, downloaded or unpacked
 */
export async function ensureGuest(options: { readonly force?: boolean } = {}): Promise<GuestImage> {
  const recipe = await recipeHash();
  const present = await readManifest(guestDirectory);
  if (present !== undefined && options.force !== true && (await isCurrent(present, recipe))) {
    return imageAt(guestDirectory, present);
  }
  await ensureCommands(['cpio', 'tar']);
  await ensureCompiler();
  const packages = await resolvePackages(defaultKernelPackage);
  const debs = await resolveDebs(packages);
  await downloadDebs(debs, debsDirectory);
  await mkdir(imagesDirectory, { recursive: true });
  const directory = await mkdtemp(join(imagesDirectory, 'image-'));
  try {
    console.error(`building the guest from ${debs.length} packages ...`);
    const built = await buildImage(debs, debsDirectory, directory);
    const compiler = (await compilerVersion()) ?? '';
    const manifest: Manifest = { recipe, compiler, packages, debs, ...built, listsChangedMs: listsChangedMs() };
    const manifestPath = join(directory, 'manifest.json');
    await writeFile(manifestPath, `${JSON.stringify(manifest, undefined, 2)}\n`);
    // Another user's daemon may boot what this one built, whatever the umask is.
    await chmod(manifestPath, 0o644);
    await chmod(imagesDirectory, 0o755);
    await publish(directory);
    await pruneDebs(debs, debsDirectory);
    return imageAt(guestDirectory, manifest);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/** Another kernel than the one that the machine's suite has for clouds. */
export interface KernelChoice {
  /** A meta package, or the package of a kernel proper. Default: the cloud kernel. */
  readonly packageName?: string;
  /** The Debian suite whose kernel is taken; the rest of the guest stays the machine's. Default: the machine's. */
  readonly suite?: string;
}

/**
 * Builds the guest with another kernel into a directory of its own; the reference guest stays as it is.
 * @throws Error when the suite or the package cannot be had, or the kernel lacks a module that guests need
 */
export async function buildGuestWith(
  choice: KernelChoice,
): Promise<{ readonly directory: string; readonly manifest: Manifest }> {
  const { packageName = defaultKernelPackage, suite: suiteName } = choice;
  await ensureCommands(['cpio', 'tar']);
  await ensureCompiler();
  const suite = suiteName === undefined ? undefined : await Suite.open(suiteName);
  const kernelDebs = (await suite?.download(packageName, isKernelPackage)) ?? [];
  const packages = await resolvePackages(suite === undefined ? packageName : undefined);
  const debs = await resolveDebs(packages);
  await downloadDebs(debs, debsDirectory);
  await mkdir(otherGuestsDirectory, { recursive: true });
  const name = suiteName === undefined ? packageName : `${suiteName}-${packageName}`;
  const work = await mkdtemp(join(otherGuestsDirectory, 'image-'));
  try {
    const built = await buildImage(debs, debsDirectory, work, kernelDebs);
    const kernels = kernelDebs.map(async (path) => ({ file: basename(path), sha256: await sha256OfFile(path) }));
    const manifest: Manifest = {
      ...{ recipe: await recipeHash(), compiler: (await compilerVersion()) ?? '', packages, ...built },
      ...{ debs: [...debs, ...(await Promise.all(kernels))], listsChangedMs: listsChangedMs() },
    };
    await writeFile(join(work, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`, { mode: 0o644 });
    const directory = join(otherGuestsDirectory, name);
    await rm(directory, { recursive: true, force: true });
    await rename(work, directory);
    return { directory, manifest };
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    throw error;
  }
}

/**
 * Builds the image's files into `directory` from package files that are there already. The same inputs and the same
 * compiler give the same bytes.
 * @param kernelDebs paths of further package files: of a kernel that is none of `debs`
 */
export async function buildImage(
  debs: readonly Deb[],
  debsPath: string,
  directory: string,
  kernelDebs: readonly string[] = [],
): Promise<Pick<Manifest, 'kernelVersion' | 'files'>> {
  const work = await mkdtemp(join(tmpdir(), 'qshim-guest-'));
  try {
    const stage = join(work, 'stage');
    const tree = join(work, 'tree');
    const programs = join(directory, 'programs');
    await buildPrograms(programs);
    await chmod(programs, 0o755);
    const debPaths = [...debs.map((deb) => join(debsPath, deb.file)), ...kernelDebs];
    await unpackDebs(debPaths, stage, ['./usr/share']);
    const kernelVersion = await layOutTree({ stage, programs, rootfs: join(import.meta.dirname, 'rootfs') }, tree);
    await copyFile(kernelIn(stage, kernelVersion), join(directory, 'vmlinuz'));
    await packInitramfs(tree, join(directory, 'initrd.img'));
    const files: Record<string, { sha256: string; bytes: number }> = {};
    for (const name of ['vmlinuz', 'initrd.img', ...programNames.map((program) => join('programs', program))]) {
      const path = join(directory, name);
      await chmod(path, name.startsWith('programs') ? 0o755 : 0o644);
      files[name] = { sha256: await sha256OfFile(path), bytes: statSync(path).size };
    }
    await chmod(directory, 0o755);
    return { kernelVersion, files };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Where a kernel's package has it: in /boot, or beside its modules. */
function kernelIn(stage: string, version: string): string {
  const places = [join(stage, 'boot', `vmlinuz-${version}`), join(stage, 'usr/lib/modules', version, 'vmlinuz')];
  const found = places.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`the packages of the kernel ${version} hold no vmlinuz`);
  return found;
}

/** Where the package files of the present image are kept. */
export function debsOfGuest(): string {
  return debsDirectory;
}

function imageAt(directory: string, manifest: Manifest): GuestImage {
  return { kernelPath: join(directory, 'vmlinuz'), initrdPath: join(directory, 'initrd.img'), manifest };
}

/**
 * True when the image's files are whole, its recipe is today's, and compiler and apt's packages are the same: as far as
 * there are any on this machine.
 */
async function isCurrent(manifest: Manifest, recipe: string): Promise<boolean> {
  if (manifest.recipe !== recipe) return false;
  for (const [name, { bytes }] of Object.entries(manifest.files)) {
    const stats = statSync(join(guestDirectory, name), { throwIfNoEntry: false });
    if (stats?.size !== bytes) return false;
  }
  const compiler = await compilerVersion();
  if (compiler !== undefined && compiler !== manifest.compiler) return false;
  if (manifest.listsChangedMs === listsChangedMs()) return true;
  let offered: Deb[];
  try {
    offered = await resolveDebs(manifest.packages);
  } catch {
    console.error('apt has no package lists here: keeping the guest image as it is');
    return true;
  }
  return JSON.stringify(offered) === JSON.stringify(manifest.debs);
}

async function readManifest(directory: string): Promise<Manifest | undefined> {
  try {
    return JSON.parse(await readFile(join(directory, 'manifest.json'), 'utf8')) as Manifest;
  } catch {
    return undefined;
  }
}

function listsChangedMs(): number {
  return statSync(aptLists, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

async function recipeHash(): Promise<string> {
  const hash = createHash('sha256');
  for (const directory of [import.meta.dirname, programSources]) {
    for (const path of await walk(directory)) {
      const full = join(directory, path);
      const stats = await lstat(full);
      // Scripts of the daemon are no part of the guest.
      if (!stats.isFile() || (directory === programSources && path.endsWith('.sh'))) continue;
      hash.update(`${path}\0${(stats.mode & 0o100) !== 0 ? 'x' : '-'}\0${stats.size}\0`).update(await readFile(full));
    }
  }
  return hash.digest('hex');
}

/**
 * Makes `build/guest` point at the new image in one step: a VM that starts meanwhile gets the kernel and initramfs of
 * one build. The image before it stays, for VMs that are just starting; older ones go.
 */
async function publish(directory: string): Promise<void> {
  const before = existsSync(guestDirectory) ? await readlink(guestDirectory).catch(() => undefined) : undefined;
  if (existsSync(guestDirectory) && before === undefined) await rm(guestDirectory, { recursive: true });
  const link = `${directory}.link`;
  await symlink(join(basename(imagesDirectory), basename(directory)), link);
  await rename(link, guestDirectory);
  const keep = new Set([basename(directory), basename(before ?? '')]);
  for (const name of await readdir(dirname(directory))) {
    const old = join(dirname(directory), name);
    const isUnfinished = !existsSync(join(old, 'manifest.json'));
    if (!keep.has(name) && !isUnfinished) await rm(old, { recursive: true, force: true });
  }
}
