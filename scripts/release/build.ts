import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { z } from 'zod';
import { checkLicences, licenceDocument } from './licences.ts';
import { productionLock, runtimeTree } from './lockfile.ts';
import { softwareBill } from './sbom.ts';

/**
 *     git archive HEAD ─▶ a folder without what is for development ─▶ npm pack ─▶ NAME.tgz ─┐
 *           └─ package-lock.json ─▶ runtimeTree ─▶ licences of node_modules ─▶ NAME.licences.txt ─▶ SHA256SUMS
 *                                        └────────▶ NAME.cdx.json ──────────────────────────┘
 */

const manifestSchema = z.looseObject({ license: z.string(), files: z.array(z.string()) });

/** The one lock file that npm packs, and that `npm ci` takes in the unpacked package. */
const LOCK = 'npm-shrinkwrap.json';

export interface Release {
  readonly directory: string;
  readonly commit: string;
  /** Names in `directory`, SHA256SUMS last. */
  readonly files: readonly string[];
}

/**
 * Builds the files of a release from the commit that is checked out; what is not committed is not in it. The same
 * commit, npm and Node.js give the same bytes.
 *
 * @param root the project's directory, after `npm ci`
 * @param directory where the files go; what is there goes away
 * @throws Error when a licence is not allowed or not known, or git or npm fails; then `directory` is empty
 */
export async function buildRelease(root: string, directory: string): Promise<Release> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const stage = await mkdtemp(join(tmpdir(), 'qshim-release-'));
  try {
    const { stdout: commit } = await execa('git', ['rev-parse', 'HEAD'], { cwd: root });
    await checkOut(root, stage);
    const lock = await readFile(join(stage, 'package-lock.json'), 'utf8');
    const tree = runtimeTree(lock);
    const licensed = await checkLicences(root, tree.packages);
    const licence = await withoutDevelopment(stage, lock);
    const base = `${tree.name}-${tree.version}`;
    const tarball = await pack(stage, directory);
    if (tarball !== `${base}.tgz`) throw new Error(`npm pack made ${tarball}, not ${base}.tgz`);
    const sha256 = await sha256Of(join(directory, tarball));
    await writeFile(join(directory, `${base}.cdx.json`), softwareBill(tree, { commit, licence, sha256 }));
    await writeFile(join(directory, `${base}.licences.txt`), licenceDocument(tree.name, tree.version, licensed));
    const files = [tarball, `${base}.cdx.json`, `${base}.licences.txt`];
    const sums = await Promise.all(files.map(async (file) => `${await sha256Of(join(directory, file))}  ${file}\n`));
    await writeFile(join(directory, 'SHA256SUMS'), sums.join(''));
    return { directory, commit, files: [...files, 'SHA256SUMS'] };
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    throw error;
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

/** The files of HEAD, with modes that do not depend on who builds: npm takes them over. */
async function checkOut(root: string, stage: string): Promise<void> {
  const archive = join(stage, 'head.tar');
  await execa('git', ['-c', 'tar.umask=0022', 'archive', '--format=tar', '-o', archive, 'HEAD'], { cwd: root });
  await execa('tar', ['-xpf', archive, '-C', stage]);
  await rm(archive);
}

/**
 * Takes out what the package cannot use: scripts, and development's packages. Adds the lock file, so that
 * `npm ci --omit=dev` in the unpacked package installs what the bill says.
 *
 * @returns the project's own licence
 */
async function withoutDevelopment(stage: string, lock: string): Promise<string> {
  const path = join(stage, 'package.json');
  const manifest = manifestSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  const { devDependencies: _1, scripts: _2, overrides: _3, allowScripts: _4, ...kept } = manifest;
  const packed = { ...kept, files: [...kept.files, LOCK] };
  await writeFile(path, `${JSON.stringify(packed, undefined, 2)}\n`);
  await writeFile(join(stage, LOCK), productionLock(lock));
  // Whatever the umask: npm packs the mode.
  await chmod(join(stage, LOCK), 0o644);
  await rm(join(stage, 'package-lock.json'));
  return manifest.license;
}

/** npm gives every member the same time and owner. @returns the tarball's name in `directory` */
async function pack(stage: string, directory: string): Promise<string> {
  const { stdout } = await execa(
    'npm',
    ['pack', '--ignore-scripts', '--loglevel=error', '--pack-destination', directory],
    {
      cwd: stage,
      stdin: 'ignore',
    },
  );
  return stdout.trim();
}

async function sha256Of(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}
