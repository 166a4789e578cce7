import { randomUUID, timingSafeEqual } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { invalidArgument, isShimError, messageOf, ShimError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Config } from '../../config.ts';
import type { KeyUse } from '../../keys/bindings.ts';
import type { KeyMaterial } from '../../keys/material.ts';
import type { KeyReference } from '../../keys/reference.ts';
import type { KeySource } from '../../keys/sources.ts';
import { withBareQemu } from '../../qemu/bare-qemu.ts';
import { requireCommand } from '../../qemu/trial.ts';
import type { QmpClient } from '../../qmp/client.ts';
import { isQmpError } from '../../qmp/errors.ts';
import type { ArgumentsOf } from '../../qmp/protocol.ts';
import type { BackingClaims } from '../claims.ts';
import type { VolumeHost } from '../host.ts';
import { secretNames } from '../host-luks.ts';
import { runKeyJob } from '../job.ts';
import { look, type LookLimits } from '../looks.ts';
import { hostLuksView, luksRefusal } from '../luks-image.ts';
import { checkReference } from '../model/encryption.ts';
import type { Luks1Header } from '../model/luks1.ts';
import { namesFor } from '../model/names.ts';
import { fdsetObject } from '../model/objects.ts';
import { withSecret } from '../secret.ts';
import { changed } from '../source/open-file.ts';
import { sourceOfPath } from '../source/of-path.ts';
import { moduleOf } from '../source/registry.ts';
import { inspectSource, openForQemu, type VolumeSpec } from '../spec.ts';
import type { Volume } from '../volume.ts';
import { operate } from './slot.ts';

/**
 * Key slots of `host_luks` images: of a volume that is attached, in its own QEMU, or of an image that nothing uses, in
 * a QEMU without a machine. Either way QEMU does the work (x-blockdev-amend), and the image's header tells what came of
 * it.
 */

/** An image that nothing uses, and what is needed to work on it. */
export interface ImageHost {
  readonly config: Config;
  readonly claims: BackingClaims;
  readonly keys: KeySource;
  readonly log: Logger;
}

export type KeySlotsTarget =
  | { readonly kind: 'attached'; readonly host: VolumeHost; readonly volume: Volume }
  | { readonly kind: 'image'; readonly host: ImageHost; readonly path: string };

export interface KeySlots {
  readonly uuid: string;
  readonly used: readonly boolean[];
}

export type KeySlotChange =
  | { readonly kind: 'add'; readonly key: KeyReference; readonly newKey: KeyReference; readonly iterationMs: number }
  | { readonly kind: 'change'; readonly key: KeyReference; readonly newKey: KeyReference; readonly iterationMs: number }
  | { readonly kind: 'remove'; readonly key: KeyReference }
  /** The slot goes, whatever its key; `key` opens the image, and stays. */
  | { readonly kind: 'remove-slot'; readonly key: KeyReference; readonly slot: number };

const AMEND = 'x-blockdev-amend';
const ITERATION_MS_DEFAULT = 2000;
const ITERATION_MS_MAX = 60_000;
/** QEMU tries a key on every slot in use, and answers nothing meanwhile. */
const AMEND_TIMEOUT_MS = 600_000;

/** Where the work is done: a QEMU that has the image open, and what things are called there. */
interface Editor {
  readonly qmp: QmpClient;
  readonly node: string;
  readonly job: string;
  /** Prefix of the ids of secrets; those that an interrupted change leaves are removed at the next connection. */
  readonly prefix: string;
  readonly path: string;
  /** The header as it is now. */
  readonly header: () => Promise<Luks1Header>;
  readonly signal: AbortSignal;
}

/** A file whose header is read: by its path, if it is still that file. */
interface HeaderAt {
  readonly path: string;
  readonly identity: string;
}

function readHeader({ path, identity }: HeaderAt, limits: LookLimits): Promise<Luks1Header> {
  return look('readLuks1', path, limits, path, identity);
}

/** @throws ShimError FAILED_PRECONDITION / NOT_HOST_LUKS, LUKS_NO_HEADER and the like */
export async function listKeySlots(target: KeySlotsTarget): Promise<KeySlots> {
  const { config } = target.host;
  if (target.kind === 'attached') return slotsOf(await readHeader(attachedImage(target.host, target.volume), config));
  const { resolved, identity } = await inspectSource(await imageSpec(target.path, config), config);
  return slotsOf(await readHeader({ path: moduleOf(resolved).describe(resolved), identity }, config));
}

/**
 * Adds, changes or removes a key. The new one is in before the old one goes, so that a change that fails half-way
 * leaves two keys, never none.
 * @throws ShimError FAILED_PRECONDITION: LUKS_WRONG_KEY, LAST_KEY, NO_FREE_KEY_SLOT, KEY_SLOT_NOT_IN_USE,
 *   SAME_KEY, KEY_SLOT_FAILED, NOT_HOST_LUKS, BACKING_IN_USE, OPERATION_IN_PROGRESS; and what fetching keys throws
 */
export async function changeKeySlots(target: KeySlotsTarget, change: KeySlotChange): Promise<KeySlots> {
  checkChange(change);
  return target.kind === 'attached'
    ? await changeAttached(target.host, target.volume, change)
    : await changeImage(target.host, target.path, change);
}

function checkChange(change: KeySlotChange): void {
  checkReference('key', change.key);
  if ('newKey' in change) {
    checkReference('new_key', change.newKey);
    if (change.iterationMs > ITERATION_MS_MAX) {
      throw invalidArgument('iteration_ms', change.iterationMs, `at most ${ITERATION_MS_MAX}`);
    }
  }
}

/** The image of an attached volume. */
function attachedImage({ id: sandboxId }: Pick<VolumeHost, 'id'>, volume: Volume): HeaderAt {
  const { id: volumeId, spec, state, identity } = volume;
  const metadata = { sandboxId, volumeId };
  if (spec.encryption?.kind !== 'host-luks') {
    throw new ShimError('FAILED_PRECONDITION', `volume ${volumeId} is no host_luks volume`, {
      reason: 'NOT_HOST_LUKS',
      metadata,
    });
  }
  if (state.state !== 'attached') {
    throw new ShimError('FAILED_PRECONDITION', `volume ${volumeId} is ${state.state}, not attached`, {
      reason: 'VOLUME_NOT_ATTACHED',
      metadata,
    });
  }
  return { path: identity.resolvedPath, identity: identity.backingIdentity };
}

async function changeAttached(host: VolumeHost, volume: Volume, change: KeySlotChange): Promise<KeySlots> {
  attachedImage(host, volume);
  const { uuid } = await readHeader(attachedImage(host, volume), host.config);
  using keys = await fetchKeys(host.keys, change, { labels: host.labels, uuid }, host.gone);
  const work = async (): Promise<KeySlots> => {
    const { qmp_reply_timeout_ms: waitMs } = host.config;
    const { binary, config, log } = host;
    await requireCommand({ qmp: await host.link.within(waitMs, host.gone), binary, config, log }, AMEND);
    using _held = await volume.mutex.acquireForCaller();
    const image = attachedImage(host, volume);
    const { path } = image;
    const header = (): Promise<Luks1Header> => readHeader(image, config);
    const { root, job } = volume.names;
    // Under the mutex, so not for ever: the end of the VM needs it too.
    const qmp = await host.link.within(waitMs, host.gone);
    const editor = { qmp, node: root, job, prefix: `${root}-amend`, path, header, signal: host.gone };
    try {
      return slotsOf(await carryOut(editor, host.config.secret_dir, change, keys));
    } finally {
      // Half of a change is seen too.
      await lookAtHeader(host, volume);
    }
  };
  const again = (): Promise<void> => lookAtKeySlots(host, volume);
  return await operate(host, volume, { kind: 'change-keys', change: change.kind }, { work, again });
}

/** Takes note of what the header says now. One that cannot be read says nothing. */
async function lookAtHeader(host: VolumeHost, volume: Volume): Promise<void> {
  try {
    const { resolvedPath: path, backingIdentity: identity } = volume.identity;
    const header = await readHeader({ path, identity }, host.config);
    const encryption = hostLuksView(header, volume.encryption?.created ?? false);
    host.volumes.apply(volume, { kind: 'encrypted', encryption });
  } catch (error) {
    host.log.warn({ volumeId: volume.id, problem: messageOf(error) }, 'header of the image not read');
  }
}

/** How often a job that an earlier daemon began is asked for. */
const JOB_POLL_MS = 500;

/**
 * For a change whose outcome was not seen, or that an earlier daemon began: its keys are not known any more, so what
 * became of it is looked at.
 */
export async function lookAtKeySlots(host: VolumeHost, volume: Volume): Promise<void> {
  using _held = await volume.mutex.acquire();
  attachedImage(host, volume);
  for (;;) {
    const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
    const job = (await qmp.run('query-jobs')).find(({ id }) => id === volume.names.job);
    if (job === undefined) break;
    if (job.status === 'concluded') await qmp.run('job-dismiss', { id: job.id });
    else await pause(JOB_POLL_MS, undefined, { signal: host.gone });
  }
  await lookAtHeader(host, volume);
}

async function changeImage(host: ImageHost, image: string, change: KeySlotChange): Promise<KeySlots> {
  const { config, claims, keys: source, log } = host;
  const spec = await imageSpec(image, config);
  const found = await inspectSource(spec, config);
  const module = moduleOf(found.resolved);
  const path = module.describe(found.resolved);
  // An owner of its own: a second change of the same image is another holder, and is refused.
  const owner = `a change of the keys of ${path} (${randomUUID()})`;
  claims.claim({ described: path, identity: found.identity }, owner, true);
  using _claim = { [Symbol.dispose]: () => claims.release(found.identity, owner) };
  const signal = AbortSignal.timeout(AMEND_TIMEOUT_MS);
  const { uuid } = await readHeader({ path, identity: found.identity }, config);
  using keys = await fetchKeys(source, change, { labels: undefined, uuid }, signal);
  return await withBareQemu(config, log, async ({ qmp, qemu }) => {
    // It would take nobody's VM along, but it might leave the image half changed.
    await requireCommand({ qmp, binary: `/proc/${qemu.pid}/exe`, config, log }, AMEND);
    const names = namesFor('image', 0);
    const { keySecret, masterSecret } = secretNames(names);
    const header = (): Promise<Luks1Header> => readHeader({ path, identity: found.identity }, config);
    const editor = { qmp, node: names.root, job: names.job, prefix: 'amend', path, header, signal };
    {
      using open = await openForQemu(spec, config, found.resolved, false);
      if (open.found.identity !== found.identity) throw changed('path', path);
      await qmp.addDescriptor(fdsetObject(names.fdset, path).add.arguments, open.send);
    }
    await qmp.run('blockdev-add', module.protocol(found.resolved, names, spec, 'threads', undefined));
    await withSecret(qmp, config.secret_dir, { keySecret, masterSecret }, keys.key, async () => {
      const luks = { driver: 'luks', 'node-name': names.root, file: names.protocol } as const;
      await qmp
        .run('blockdev-add', { ...luks, 'key-secret': keySecret }, { timeoutMs: AMEND_TIMEOUT_MS })
        .catch((error: unknown) => {
          throw amendFailure(editor.path, error);
        });
    });
    return slotsOf(await carryOut(editor, config.secret_dir, change, keys));
  });
}

interface Keys extends Disposable {
  readonly key: KeyMaterial;
  readonly newKey: KeyMaterial | undefined;
}

async function fetchKeys(
  source: KeySource,
  change: KeySlotChange,
  image: Pick<KeyUse, 'labels' | 'uuid'>,
  signal: AbortSignal,
): Promise<Keys> {
  const use: KeyUse = { ...image, kind: 'host_luks', creates: false };
  using stack = new DisposableStack();
  const key = stack.use(await source.fetch(change.key, use, { signal }));
  const newKey = 'newKey' in change ? stack.use(await source.fetch(change.newKey, use, { signal })) : undefined;
  // The old key would open the slot of the new one too: QEMU takes away every slot that it opens, or none.
  if (change.kind === 'change' && newKey !== undefined && isSame(key, newKey)) {
    throw new ShimError('FAILED_PRECONDITION', 'new_key is the key that it is to take the place of', {
      reason: 'SAME_KEY',
    });
  }
  const owned = stack.move();
  return { key, newKey, [Symbol.dispose]: () => owned.dispose() };
}

function isSame(one: KeyMaterial, two: KeyMaterial): boolean {
  return one.length === two.length && one.use((bytes) => two.use((others) => timingSafeEqual(bytes, others)));
}

/** Checks what can be told beforehand, lets QEMU do it, and reads the header to see what came of it. */
async function carryOut(editor: Editor, secretDir: string, change: KeySlotChange, keys: Keys): Promise<Luks1Header> {
  const before = await editor.header();
  refuseBeforehand(editor.path, before, change);
  try {
    return await carryOutChecked(editor, secretDir, change, keys, before);
  } catch (error) {
    throw await inSight(editor, before, error);
  }
}

async function carryOutChecked(
  editor: Editor,
  secretDir: string,
  change: KeySlotChange,
  { key, newKey }: Keys,
  before: Luks1Header,
): Promise<Luks1Header> {
  const secret = (name: string): Parameters<typeof withSecret>[2] => ({
    keySecret: `${editor.prefix}-${name}-key`,
    masterSecret: `${editor.prefix}-${name}-master`,
  });
  const old = secret('old');
  const withOld = async (options: Amendment): Promise<void> =>
    await withSecret(editor.qmp, secretDir, old, key, () => amend(editor, options));
  if ('newKey' in change) {
    if (newKey === undefined) throw new Error('a key is added without having been fetched');
    const fresh = secret('new');
    const iterationMs = change.iterationMs === 0 ? ITERATION_MS_DEFAULT : change.iterationMs;
    await withSecret(editor.qmp, secretDir, fresh, newKey, () =>
      withOld({
        driver: 'luks',
        state: 'active',
        'new-secret': fresh.keySecret,
        secret: old.keySecret,
        'iter-time': iterationMs,
      }),
    );
  }
  const added = await editor.header();
  if ('newKey' in change && inUse(added) <= inUse(before)) throw nothingChanged(editor.path);
  if (change.kind === 'add') return added;
  await (change.kind === 'remove-slot'
    ? amend(editor, { driver: 'luks', state: 'inactive', keyslot: change.slot })
    : withOld({ driver: 'luks', state: 'inactive', 'old-secret': old.keySecret }));
  const after = await editor.header();
  if (inUse(after) >= inUse(added) || inUse(after) === 0) throw nothingChanged(editor.path);
  return after;
}

type Amendment = ArgumentsOf<'x-blockdev-amend'>['options'];

async function amend(editor: Editor, options: Amendment): Promise<void> {
  const { qmp, node, job, path, signal } = editor;
  // One that an interrupted change left would be in the way of its name.
  await qmp.run('job-dismiss', { id: job }).catch((error: unknown) => {
    if (!isQmpError(error)) throw error;
  });
  const start = (): Promise<unknown> =>
    qmp.run(AMEND, { 'job-id': job, 'node-name': node, options }, { timeoutMs: AMEND_TIMEOUT_MS });
  await runKeyJob(qmp, job, start, { signal, progress: () => undefined }).catch((error: unknown) => {
    throw amendFailure(path, error);
  });
}

function refuseBeforehand(path: string, header: Luks1Header, change: KeySlotChange): void {
  if (change.kind === 'remove-slot' && header.slots[change.slot] !== true) {
    throw luksRefusal(path, 'KEY_SLOT_NOT_IN_USE', `has no key in slot ${change.slot}`);
  }
  if ('newKey' in change && !header.slots.includes(false)) {
    throw luksRefusal(path, 'NO_FREE_KEY_SLOT', `has all ${header.slots.length} key slots in use`);
  }
  if (!('newKey' in change) && inUse(header) === 1) {
    throw luksRefusal(path, 'LAST_KEY', 'has one key left; without it nobody could open it');
  }
}

/** QEMU tells the two apart by its texts alone. Only the reason hangs on them, never what is done. */
function amendFailure(path: string, error: unknown): unknown {
  const said = messageOf(error);
  if (/Invalid password|No keyslots match/.test(said)) {
    return luksRefusal(path, 'LUKS_WRONG_KEY', 'opens with none of its key slots by this key', error);
  }
  if (/All the active keyslots match|only active keyslot|last active keyslot/.test(said)) {
    return luksRefusal(path, 'LAST_KEY', 'has no other key; without it nobody could open it', error);
  }
  if (!isQmpError(error) && !isShimError(error, 'FAILED_PRECONDITION')) return error;
  return luksRefusal(path, 'KEY_SLOT_FAILED', `has not got its key slots changed: ${said}`, error);
}

/**
 * A refusal says that nothing has changed. Where the header shows otherwise, the error says what it shows; an error of
 * another kind (a connection that broke) claims nothing, and stays.
 */
async function inSight({ path, header }: Editor, before: Luks1Header, error: unknown): Promise<unknown> {
  if (!isShimError(error, 'FAILED_PRECONDITION')) return error;
  const now = await header().catch(() => undefined);
  if (now !== undefined && isDeepStrictEqual(now.slots, before.slots)) return error;
  const shown =
    now === undefined
      ? 'its header cannot be read'
      : `key slots ${numbersInUse(before)} were in use, and ${numbersInUse(now)} are now`;
  return luksRefusal(path, 'KEY_SLOT_FAILED', `may be changed in part (${shown}): ${messageOf(error)}`, error);
}

function nothingChanged(path: string): ShimError {
  return luksRefusal(path, 'KEY_SLOT_FAILED', 'does not show in its header what QEMU says it has done');
}

const numbersInUse = ({ slots }: Luks1Header): string => slots.flatMap((used, slot) => (used ? [slot] : [])).join(', ');

const inUse = (header: Luks1Header): number => header.slots.filter(Boolean).length;

function slotsOf(header: Luks1Header): KeySlots {
  return { uuid: header.uuid, used: header.slots };
}

/** What an image is looked at as. allowed_roots hold for a device too, and for what a symbolic link leads to. */
async function imageSpec(path: string, config: Config): Promise<VolumeSpec> {
  return {
    source: sourceOfPath(path, await look('isBlockDevice', path, config, path)),
    readOnly: false,
    cache: 'writeback',
    aio: 'threads',
    discard: 'ignore',
    detectZeroes: 'off',
    serial: '',
    queues: 1,
    logicalBlockSize: 512,
    physicalBlockSize: 512,
    mount: undefined,
    writeErrors: 'report',
    readErrors: 'report',
    encryption: {
      kind: 'host-luks',
      key: undefined,
      format: 'never',
      sizeBytes: 0,
      cipher: 'aes-256',
      hash: 'sha256',
      iterationMs: ITERATION_MS_DEFAULT,
      uuid: '',
    },
  };
}
