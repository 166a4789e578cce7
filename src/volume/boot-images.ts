import type { Stats } from 'node:fs';
import { access, constants, realpath, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ShimError, errnoOf, invalidArgument, messageOf, shimError } from '../base/errors.ts';
import type { Config } from '../config.ts';
import { rootAbove } from '../files/roots.ts';
import type { BackingClaims } from './claims.ts';
import { fileIdentity } from './source/open-file.ts';

/**
 * The kernel and the ramdisk that guests boot. What lies in them runs in every guest that has them, and is read into
 * its memory: so they come from places of their own, nobody but root and the daemon's user may write to them, and no
 * volume may.
 */

/** Paths of what a VM boots: as somebody named them, or as QEMU opens them. */
export interface BootImages {
  readonly kernel: string;
  readonly initrd: string;
}

export type BootOptions = Pick<Config, 'kernel' | 'initrd' | 'boot_roots'>;

/** Permission bits of chmod(2): the group or others may write; others may. */
const WRITABLE = 0o022;
const WORLD_WRITABLE = 0o002;
/** In a directory that is sticky nobody removes or replaces what others own. */
const STICKY = 0o1000;
const ROOT_UID = 0;

/**
 * An image, with every symbolic link resolved. It touches what a caller names, and runs in helpers (jobs.ts). An image
 * that the configuration names is the operator's word, and may lie anywhere; another must lie in boot_roots, and be
 * nobody's to change but root's and the daemon's.
 * @throws ShimError INVALID_ARGUMENT / WRONG_FILE_TYPE; FAILED_PRECONDITION / BOOT_IMAGE_NOT_FOUND; PERMISSION_DENIED /
 *   SOURCE_NOT_ACCESSIBLE, OUTSIDE_BOOT_ROOTS, BOOT_IMAGE_WRITABLE
 */
export async function findBootImage(option: keyof BootImages, named: string, config: BootOptions): Promise<string> {
  const field = `spec.${option}`;
  const trusted = named === config[option];
  const path = await realpath(named).catch((error: unknown) => {
    throw unreadable(option, named, trusted, error);
  });
  const root = await rootAbove(path, named, config.boot_roots);
  // Before anything is told of what lies there.
  if (!trusted && root === undefined) throw outsideRoots(field, named, path, config.boot_roots);
  await access(path, constants.R_OK).catch((error: unknown) => {
    throw unreadable(option, named, trusted, error);
  });
  const found = await stat(path);
  // QEMU would wait at a FIFO for ever.
  if (!found.isFile()) throw invalidArgument(field, named, 'is not a regular file', 'WRONG_FILE_TYPE');
  if ((found.mode & WORLD_WRITABLE) !== 0) throw writable(field, named, path, found);
  if (!trusted && root !== undefined) await assertNobodyElses(field, named, path, root);
  return path;
}

/** Neither the file nor a directory on its way below the root is others' to change. */
async function assertNobodyElses(field: string, named: string, path: string, root: string): Promise<void> {
  for (let at = path; ; at = dirname(at)) {
    const found = await stat(at);
    const shared = (found.mode & WRITABLE) !== 0 && !(found.isDirectory() && (found.mode & STICKY) !== 0);
    if (shared || !isOurs(found)) throw writable(field, named, at, found);
    if (at === root || at === dirname(at)) return;
  }
}

function isOurs({ uid }: Stats): boolean {
  return uid === ROOT_UID || uid === process.geteuid?.();
}

/** What keeps images from being changed while it is held. */
export type HoldBootImages = (images: BootImages, owner: string) => Promise<Disposable>;

/**
 * Claims images for a VM that boots them, to read: QEMU reads them at its start and at each reset of the guest, so they
 * are held for as long as it runs.
 * @param images resolved
 * @param owner as BackingClaims.claim takes it
 * @throws ShimError FAILED_PRECONDITION / BACKING_IN_USE when somebody has one attached for writing;
 *   BOOT_IMAGE_NOT_FOUND
 */
export async function holdBootImages(claims: BackingClaims, images: BootImages, owner: string): Promise<Disposable> {
  const found = await Promise.all(
    (['kernel', 'initrd'] as const).map(async (option) => {
      const described = images[option];
      const seen = await stat(described).catch((error: unknown) => {
        throw unreadable(option, described, false, error);
      });
      return { described, identity: fileIdentity(seen) };
    }),
  );
  using undo = new DisposableStack();
  for (const image of found) {
    claims.claim(image, owner, false);
    undo.defer(() => claims.release(image.identity, owner));
  }
  return undo.move();
}

/**
 * Why a file may not be written to: it is one that guests boot, now or at their next start.
 * @param path resolved
 * @param identity as claims know it
 */
export async function refusalOfWriting(
  path: string,
  identity: string,
  config: BootOptions,
): Promise<ShimError | undefined> {
  const root = await anyRootAbove(path, config.boot_roots);
  const why = root === undefined ? await optionThatNames(identity, config) : `lies in ${root}, which boot_roots names`;
  if (why === undefined) return undefined;
  return new ShimError('PERMISSION_DENIED', `${path} ${why}: no volume may write to what guests boot`, {
    reason: 'BOOT_IMAGE_READ_ONLY',
    metadata: { path },
  });
}

/** Here none may be passed over: each is resolved, wherever it lies. They are the operator's. */
async function anyRootAbove(path: string, roots: readonly string[]): Promise<string | undefined> {
  const real = await Promise.all(roots.map((root) => realpath(root).catch(() => root)));
  return await rootAbove(path, path, real);
}

async function optionThatNames(identity: string, config: BootOptions): Promise<string | undefined> {
  for (const option of ['kernel', 'initrd'] as const) {
    const found = await stat(config[option]).catch(() => undefined);
    if (found !== undefined && fileIdentity(found) === identity) return `is what the option ${option} names`;
  }
  return undefined;
}

function unreadable(option: 'kernel' | 'initrd', named: string, trusted: boolean, error: unknown): ShimError {
  const field = `spec.${option}`;
  const denied = errnoOf(error) === 'EACCES';
  const builds = denied ? '' : 'npm run guest builds the reference guest, ';
  const hint = trusted ? ` (${builds}the option ${option} names another)` : '';
  return shimError(
    denied ? 'SOURCE_NOT_ACCESSIBLE' : 'BOOT_IMAGE_NOT_FOUND',
    `${field} = ${JSON.stringify(named)} cannot be read: ${messageOf(error)}${hint}`,
    { metadata: { field, value: named }, cause: error },
  );
}

function outsideRoots(field: string, named: string, path: string, roots: readonly string[]): ShimError {
  const resolved = path === named ? '' : ` (which is ${path})`;
  return new ShimError(
    'PERMISSION_DENIED',
    `${field} = ${JSON.stringify(named)}${resolved} lies outside boot_roots (${roots.join(', ')})`,
    { reason: 'OUTSIDE_BOOT_ROOTS', metadata: { field, value: named, resolved: path } },
  );
}

function writable(field: string, named: string, at: string, { mode, uid }: Stats): ShimError {
  const where = at === named ? 'it' : at;
  const rights = `mode ${(mode & 0o7777).toString(8)}, user ${uid}`;
  return new ShimError(
    'PERMISSION_DENIED',
    `${field} = ${JSON.stringify(named)} may not be booted: others than root and the daemon may write to ${where} (${rights})`,
    { reason: 'BOOT_IMAGE_WRITABLE', metadata: { field, value: named, path: at } },
  );
}
