import { Backoff } from '../../base/backoff.ts';
import { sleep } from '../../base/deadline.ts';
import { ShimError, messageOf } from '../../base/errors.ts';
import type { KeyMaterial } from '../../keys/material.ts';
import type { QmpClient } from '../../qmp/client.ts';
import { isQmpError } from '../../qmp/errors.ts';
import { addWithFiles } from '../credentials.ts';
import type { VolumeHost } from '../host.ts';
import { runKeyJob } from '../job.ts';
import { look, openSource, type OpenSource } from '../looks.ts';
import type { Medium } from '../medium.ts';
import type { AioMode } from '../model/disk.ts';
import { isMirror, type QemuObject } from '../model/objects.ts';
import { aioModes } from '../plan.ts';
import { SecretHandover } from '../secret.ts';
import { changed } from '../source/open-file.ts';
import { moduleOf } from '../source/registry.ts';
import { intendedUse } from '../spec.ts';
import { specOn, type Volume } from '../volume.ts';

/**
 * Other media of a volume in QEMU: what an attach makes of a source, without a device (volume/plan.ts), under names of
 * their own.
 *
 *     store.putMedium: claim, record ─▶ addMedium ─▶ mirror/job.ts
 *     removeMedium: commands, look, until QEMU has nothing of it ─▶ relay, made file ─▶ store.dropMedium: claim free
 */

/** QEMU works on the key for each slot in use, and answers nothing meanwhile. */
const LUKS_OPEN_TIMEOUT_MS = 600_000;
const REMOVE_PAUSE_MS = 50;
const REMOVE_PAUSE_MAX_MS = 2000;

/**
 * Opens a medium in QEMU. What was added when one of its objects is refused stays: removeMedium takes it away.
 * @param key of an encrypted one
 * @param options.blank an encrypted image is to be made of it
 * @param options.mustBeZero it was seen to be empty, and has to be so still
 * @throws ShimError FAILED_PRECONDITION: SOURCE_NOT_USABLE, SOURCE_CHANGED, BACKING_IN_USE; what inspections throw
 */
export async function addMedium(
  host: VolumeHost,
  volume: Volume,
  number: number,
  key: KeyMaterial | undefined,
  options: { readonly blank: boolean; readonly mustBeZero: boolean },
): Promise<void> {
  const medium = mediumOf(volume, number);
  using open = await openAgain(host, volume, medium, options.mustBeZero);
  const relay = volume.relayOf(medium);
  const server = moduleOf(medium.source).server?.(resolvedSource(volume, number));
  if (relay !== undefined && server !== undefined) await host.relays.start(relay, server);
  using _held = await whileAttached(host, volume);
  const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
  await using secrets = new SecretHandover(qmp, host.config.secret_dir, key);
  const adding = { host, qmp, volume, medium, secrets, open, added: new Set<string>() };
  const modes = aioModes(specOn(volume.spec, medium), open?.found.endsInSector ?? true);
  for (const [index, aio] of modes.entries()) {
    const objects = volume.objectsOn(medium, aio, options.blank);
    try {
      await addInOrder(adding, objects);
    } catch (error) {
      const opened = objects.some(({ type, id }) => type === 'node' && adding.added.has(id));
      if (!isQmpError(error)) throw error;
      if (opened || index === modes.length - 1) throw notUsable(volume, medium, aio, error);
      continue;
    }
    host.volumes.putMedium(volume, { ...medium, aio });
    return;
  }
}

/**
 * Waits until the volume is not being removed, and takes its mutex: nothing is added to QEMU that a removal has looked
 * for already.
 * @throws ShimError ABORTED / VOLUME_REMOVED; the reason of `host.gone`
 */
export async function whileAttached(host: VolumeHost, volume: Volume): Promise<Disposable> {
  for (;;) {
    const held = await volume.mutex.acquire();
    if (!host.gone.aborted && volume.state.state === 'attached') return held;
    held[Symbol.dispose]();
    host.gone.throwIfAborted();
    if (volume.isRemoved()) {
      throw new ShimError('ABORTED', `volume ${volume.id} was removed meanwhile`, {
        reason: 'VOLUME_REMOVED',
        metadata: { sandboxId: host.id, volumeId: volume.id },
      });
    }
    await (volume.removal?.catch(() => undefined) ?? sleep(REMOVE_PAUSE_MS, host.gone));
  }
}

function mediumOf(volume: Volume, number: number): Medium {
  const medium = volume.otherMedium(number);
  if (medium === undefined) throw new Error(`volume ${volume.id} has no medium ${number}`);
  return medium;
}

function resolvedSource(volume: Volume, number: number): Medium['source'] {
  const { source, resolvedPath } = mediumOf(volume, number);
  return moduleOf(source).resolved(source, resolvedPath);
}

/** What is looked at now is what QEMU gets, and it has to be what the volume has its claim on. */
async function openAgain(
  { config }: VolumeHost,
  volume: Volume,
  medium: Medium,
  mustBeZero: boolean,
): Promise<OpenSource | undefined> {
  const resolved = resolvedSource(volume, medium.number);
  if (!moduleOf(resolved).byDescriptor) return undefined;
  const use = { ...intendedUse(specOn(volume.spec, medium)), hostLuks: undefined, createsIfEmpty: mustBeZero };
  const open = await openSource(resolved, use, config);
  const { identity, emptiness } = open.found;
  if (identity === medium.backingIdentity && (!mustBeZero || emptiness === 'zero')) return open;
  open[Symbol.dispose]();
  throw changed('target', medium.resolvedPath);
}

interface Adding {
  readonly host: VolumeHost;
  readonly qmp: QmpClient;
  readonly volume: Volume;
  readonly medium: Medium;
  readonly secrets: SecretHandover;
  readonly open: OpenSource | undefined;
  readonly added: Set<string>;
}

async function addInOrder(adding: Adding, objects: readonly QemuObject[]): Promise<void> {
  for (const object of objects) {
    if (adding.added.has(object.id)) continue;
    await addOne(adding, object);
    adding.added.add(object.id);
    if (objects.some(({ until }) => until === object.id)) await adding.secrets.release();
  }
}

async function addOne({ host, qmp, volume, secrets, open }: Adding, object: QemuObject): Promise<void> {
  switch (object.type) {
    case 'fdset':
      if (open === undefined) throw new Error('a descriptor is to be given to QEMU, and nothing is open');
      await qmp.addDescriptor(object.add.arguments, open.send);
      return;
    case 'node': {
      const luks = object.add.arguments.driver === 'luks';
      await qmp.run(object.add.command, object.add.arguments, luks ? { timeoutMs: LUKS_OPEN_TIMEOUT_MS } : {});
      return;
    }
    case 'object':
      if (object.add.arguments['qom-type'] === 'secret') await secrets.add(object.add.arguments);
      else if (object.files !== undefined) await addWithFiles(qmp, host.config.secret_dir, object);
      else await qmp.run(object.add.command, object.add.arguments);
      return;
    case 'job': {
      if (isMirror(object)) throw new Error('a mirror is begun once the medium is there');
      const { 'job-id': job, options } = object.add.arguments;
      const create = { ...object.add.arguments, options: { ...options, size: volume.sizeBytes } };
      await runKeyJob(qmp, job, () => qmp.run(object.add.command, create, { timeoutMs: LUKS_OPEN_TIMEOUT_MS }), {
        signal: host.gone,
        progress: () => undefined,
      });
      return;
    }
    case 'device':
    case 'chardev':
      throw new Error(`another medium has no ${object.type}`);
  }
}

function notUsable(volume: Volume, { resolvedPath: path }: Medium, aio: AioMode | undefined, error: Error): ShimError {
  // QEMU has no error class for it; only the reason hangs on this text.
  const locked = /\bFailed to get .* lock\b/.test(error.message);
  return new ShimError('FAILED_PRECONDITION', `QEMU could not open ${path}: ${error.message}`, {
    reason: locked ? 'BACKING_IN_USE' : 'SOURCE_NOT_USABLE',
    metadata: { volumeId: volume.id, path, aio: aio ?? '', ...(locked ? { holder: 'another process' } : {}) },
    cause: error,
  });
}

/**
 * Takes a medium that the device is not on out of QEMU, until QEMU lists nothing of it; then its relay, and the file
 * that was made for it; then its claim is free. For one that is not there at all it only looks.
 * @param options.unmake what was made is to go too
 * @throws ShimError ABORTED / VOLUME_REMOVED; the reason of `host.gone`; QMP_LOST
 */
export async function removeMedium(
  host: VolumeHost,
  volume: Volume,
  number: number,
  options: { readonly unmake: boolean },
): Promise<void> {
  const backoff = new Backoff(REMOVE_PAUSE_MS, REMOVE_PAUSE_MAX_MS);
  for (;;) {
    const medium = volume.otherMedium(number);
    if (medium === undefined) return;
    const held = await removeOnce(host, volume, medium, options.unmake);
    if (held === undefined) return;
    host.log.info({ volumeId: volume.id, medium: number, held }, 'qemu still has a medium that a volume has left');
    await backoff.pause(host.gone);
  }
}

/** @returns what QEMU still has of it, in its words; undefined: nothing, and the claim is free */
async function removeOnce(
  host: VolumeHost,
  volume: Volume,
  medium: Medium,
  unmake: boolean,
): Promise<string | undefined> {
  using _held = await whileAttached(host, volume);
  const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
  const objects = volume.objectsOn(medium);
  let said = '';
  for (const { remove } of objects.toReversed()) {
    await qmp.run(remove.command, remove.arguments).catch((error: unknown) => {
      if (!isQmpError(error)) throw error;
      said ||= error.message;
    });
  }
  const left = await host.inventory.namesOn(objects.map(({ type }) => type));
  const there = objects.flatMap(({ gone }) => gone).filter((name) => left.has(name));
  if (there.length > 0) return `${there.join(', ')}: ${said}`;
  const relay = volume.relayOf(medium);
  if (relay !== undefined) await host.relays.end(relay);
  if (unmake) await unmakeMedium(host, volume, medium);
  host.volumes.dropMedium(volume, medium.number);
  host.commitSoon();
  return undefined;
}

/** Removes the file that was made for a medium, if it is that file. Never throws: what is left is named in the log. */
export async function unmakeMedium(
  { config, log }: Pick<VolumeHost, 'config' | 'log'>,
  volume: Pick<Volume, 'id'>,
  { madeAtMs, resolvedPath: path, backingIdentity }: Medium,
): Promise<void> {
  if (madeAtMs === undefined) return;
  const of = { volumeId: volume.id, path };
  try {
    const problem = await look('unmakeFile', path, config, path, { identity: backingIdentity, madeAtMs });
    if (problem === undefined) log.info(of, 'file that was made for a move is gone again');
    else log.warn({ ...of, problem }, 'file of a move left as it is');
  } catch (error) {
    log.warn({ ...of, problem: messageOf(error) }, 'file of a move left as it is');
  }
}
