import { ShimError, messageOf } from '../base/errors.ts';
import type { Stopwatch } from '../base/stopwatch.ts';
import type { KeyMaterial } from '../keys/material.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import { addWithFiles } from './credentials.ts';
import type { VolumeHost } from './host.ts';
import { runKeyJob } from './job.ts';
import { look, type OpenSource } from './looks.ts';
import { hostLuksView, luksRefusal } from './luks-image.ts';
import type { AioMode } from './model/disk.ts';
import { isMirror, type CreateJob, type FdsetObject, type QemuObject } from './model/objects.ts';
import { aioModes } from './plan.ts';
import { SecretHandover } from './secret.ts';
import { changed } from './source/open-file.ts';
import { moduleOf } from './source/registry.ts';
import { openForQemu } from './spec.ts';
import type { Volume } from './volume.ts';

/**
 * Adds a volume's objects to QEMU, in the order of its list. Called under the volume's mutex. What was added when one
 * of them is refused stays: removal.ts takes it away.
 */

/** QEMU works on the key for each slot in use, and answers nothing meanwhile. */
const LUKS_OPEN_TIMEOUT_MS = 600_000;

/** What one volume's objects are added with. */
interface Adding {
  readonly host: VolumeHost;
  readonly qmp: QmpClient;
  readonly volume: Volume;
  readonly secrets: SecretHandover;
  /** What the source was seen to be, still open; undefined where QEMU opens it by itself. */
  readonly open: OpenSource | undefined;
  readonly watch: Stopwatch;
  /** Ids of what QEMU has taken. */
  readonly added: Set<string>;
}

/**
 * @throws ShimError FAILED_PRECONDITION: SOURCE_NOT_USABLE, SOURCE_NOT_EMPTY, BACKING_IN_USE, LUKS_WRONG_KEY,
 *   LUKS_CREATE_FAILED; and what inspectSource and SecretHandover throw
 */
export async function addVolume(
  host: VolumeHost,
  qmp: QmpClient,
  volume: Volume,
  key: KeyMaterial | undefined,
  watch: Stopwatch,
): Promise<void> {
  using open = await openAgain(host, volume);
  await startRelay(host, volume, watch);
  await using secrets = new SecretHandover(qmp, host.config.secret_dir, key);
  const adding = { host, qmp, volume, secrets, open, watch, added: new Set<string>() };
  const modes = aioModes(volume.spec, volume.look.endsInSector);
  for (const [index, aio] of modes.entries()) {
    const objects = volume.objects(aio, volume.look.blank);
    try {
      await (mayGoTogether(host, objects, aio) ? addTogether(adding, objects, aio) : addInOrder(adding, objects, aio));
      return;
    } catch (error) {
      // Once a node is there, the source can be opened in this mode; what fails then would fail in any.
      if (hasNode(adding, objects) || !isQmpError(error)) throw error;
      if (index === modes.length - 1) throw refusedNode(volume, aio, error);
      // Which reason an open failed for shows only in text. A wrong guess costs one more try with a simpler mode.
      host.log.debug({ volumeId: volume.id, aio, problem: error.message }, 'aio mode refused, trying the next');
    }
  }
}

async function startRelay({ relays }: VolumeHost, { relay, resolved }: Volume, watch: Stopwatch): Promise<void> {
  const server = moduleOf(resolved).server?.(resolved);
  if (relay === undefined || server === undefined) return;
  await relays.start(relay, server);
  watch.lap('relay');
}

function hasNode({ added }: Adding, objects: readonly QemuObject[]): boolean {
  return objects.some(({ type, id }) => type === 'node' && added.has(id));
}

/**
 * Nodes and front end may be sent all at once, when QEMU is known to open sources so: it works in order, and the front
 * end finds its node, or is refused with it. A refused device_add holds QEMU up (drain_call_rcu), so a first try goes
 * step by step.
 */
function mayGoTogether(host: VolumeHost, objects: readonly QemuObject[], aio: AioMode | undefined): boolean {
  const plain = objects.every(({ type }) => type === 'node' || type === 'device' || type === 'fdset');
  return plain && aio !== undefined && host.volumes.worksWith(aio);
}

async function addTogether(adding: Adding, objects: readonly QemuObject[], aio: AioMode | undefined): Promise<void> {
  const { host, qmp, watch } = adding;
  const results = await Promise.allSettled(
    objects.map(async (object, index) => {
      if (adding.added.has(object.id)) return;
      const { add, phase } = object;
      // Each reply may have to wait for those before it.
      const timeoutMs = (index + 1) * host.config.qmp_reply_timeout_ms;
      if (object.type === 'fdset') await addDescriptor(adding, object);
      else await qmp.run(add.command, add.arguments, { timeoutMs });
      if (phase !== undefined) watch.lap(phase);
    }),
  );
  for (const [index, result] of results.entries()) {
    const object = objects[index];
    if (object === undefined) break;
    if (result.status === 'rejected') throw refusedObject(adding, object, result.reason);
    noteAdded(adding, object, aio);
  }
}

async function addInOrder(adding: Adding, objects: readonly QemuObject[], aio: AioMode | undefined): Promise<void> {
  for (const object of objects) {
    if (adding.added.has(object.id)) continue;
    try {
      await addOne(adding, object);
    } catch (error) {
      throw refusedObject(adding, object, error);
    }
    if (object.phase !== undefined) adding.watch.lap(object.phase);
    noteAdded(adding, object, aio);
    if (objects.some(({ until }) => until === object.id)) await adding.secrets.release();
    if (object.type === 'node' && object.add.arguments.driver === 'luks') await noteImage(adding);
  }
}

async function addOne(adding: Adding, object: QemuObject): Promise<void> {
  const { qmp, secrets } = adding;
  switch (object.type) {
    case 'node': {
      const luks = object.add.arguments.driver === 'luks';
      await qmp.run(object.add.command, object.add.arguments, luks ? { timeoutMs: LUKS_OPEN_TIMEOUT_MS } : {});
      return;
    }
    case 'fdset':
      await addDescriptor(adding, object);
      return;
    case 'device':
      await qmp.run(object.add.command, object.add.arguments);
      return;
    case 'chardev':
      await qmp.run(object.add.command, object.add.arguments);
      return;
    case 'object':
      if (object.add.arguments['qom-type'] === 'secret') await secrets.add(object.add.arguments);
      else if (object.files !== undefined) await addWithFiles(qmp, adding.host.config.secret_dir, object);
      else await qmp.run(object.add.command, object.add.arguments);
      return;
    case 'job':
      if (isMirror(object)) throw new Error('an attach copies nothing');
      await createImage(adding, object);
  }
}

async function addDescriptor({ qmp, open }: Adding, { add }: FdsetObject): Promise<void> {
  if (open === undefined) throw new Error('a descriptor is to be given to QEMU, and nothing is open');
  await qmp.addDescriptor(add.arguments, open.send);
}

function noteAdded({ host, volume, added }: Adding, object: QemuObject, aio: AioMode | undefined): void {
  const first = object.type === 'node' && volume.aio === undefined;
  added.add(object.id);
  if (!first) return;
  host.volumes.apply(volume, { kind: 'opened', aio });
  if (aio !== undefined) host.volumes.noteWorks(aio);
}

/**
 * Opens the source and looks at it once more: this is what QEMU gets, and it has to be what the volume has its claim
 * on. The first look was before that claim: another volume may have come, written and left in between, or somebody may
 * have put another file in its place. What is made because nothing was ever written there rests on this look, now that
 * nobody else may write.
 */
async function openAgain({ config }: VolumeHost, volume: Volume): Promise<OpenSource | undefined> {
  const { look: before, spec, identity, resolved } = volume;
  if (!moduleOf(resolved).byDescriptor) return undefined;
  const wasEmpty = before.blank || before.emptiness === 'zero' || before.emptiness === 'noise';
  const open = await openForQemu(spec, config, resolved, wasEmpty);
  const { blank = false, ...now } = open.found;
  const path = identity.resolvedPath;
  try {
    if (wasEmpty && (blank !== before.blank || now.emptiness !== before.emptiness)) {
      throw luksRefusal(path, 'SOURCE_NOT_EMPTY', 'was empty when it was looked at, and is not seen to be so any more');
    }
    if (now.identity !== identity.backingIdentity) throw changed('spec.source.path', path);
    return open;
  } catch (error) {
    open[Symbol.dispose]();
    throw error;
  }
}

/** Makes an image of a source that was seen to be empty. When it fails, the undo of the attach makes it empty again. */
async function createImage({ host, qmp, volume }: Adding, object: CreateJob): Promise<void> {
  const { resolvedPath, backingIdentity } = volume.identity;
  const { 'job-id': job, options: asked } = object.add.arguments;
  // How much fits was found out when the source was looked at.
  const options = { ...asked, size: volume.sizeBytes };
  const start = (): Promise<unknown> =>
    qmp.run(object.add.command, { 'job-id': job, options }, { timeoutMs: LUKS_OPEN_TIMEOUT_MS });
  const creating = await look('beforeCreation', resolvedPath, host.config, resolvedPath, backingIdentity);
  host.volumes.apply(volume, { kind: 'creating', creating });
  await host.commit();
  try {
    await runKeyJob(qmp, job, start, {
      signal: host.gone,
      progress: (progress) => host.volumes.apply(volume, { kind: 'job', job: progress }),
    });
  } catch (error) {
    host.gone.throwIfAborted();
    if (isLockConflict(error)) {
      // QEMU did not get it, and has written nothing: what lies there is somebody else's.
      host.volumes.apply(volume, { kind: 'creating', creating: undefined });
      throw heldElsewhere(volume, error);
    }
    throw luksRefusal(resolvedPath, 'LUKS_CREATE_FAILED', `cannot be encrypted: ${messageOf(error)}`, error);
  } finally {
    host.volumes.apply(volume, { kind: 'job', job: undefined });
  }
}

/** The image is open, and no guest has it yet. */
async function noteImage({ host, volume }: Adding): Promise<void> {
  const { creating } = volume;
  const { resolvedPath: path, backingIdentity } = volume.identity;
  const header = await look('readLuks1', path, host.config, path, backingIdentity);
  const encryption = hostLuksView(header, volume.look.blank);
  host.volumes.apply(volume, { kind: 'encrypted', encryption });
  if (creating === undefined) return;
  // On disk before a guest can write: what a guest may have written is never taken for half an image.
  host.volumes.apply(volume, { kind: 'creating', creating: undefined });
  await host.commit().catch((error: unknown) => {
    host.volumes.apply(volume, { kind: 'creating', creating });
    throw error;
  });
}

/** What a refusal of QEMU's means. That of the first node is told as it is, since another aio mode may do. */
function refusedObject(adding: Adding, object: QemuObject, error: unknown): unknown {
  const { volume, added } = adding;
  switch (object.type) {
    case 'node':
      if (object.add.arguments.driver === 'luks' && isWrongKey(error)) {
        const path = volume.identity.resolvedPath;
        return luksRefusal(path, 'LUKS_WRONG_KEY', 'opens with none of its key slots by this key', error);
      }
      return added.size === 0 || volume.aio === undefined ? error : refusedNode(volume, volume.aio, error);
    case 'device':
      // A raw file is locked only now, when the front end says what it wants to do with the node.
      return isLockConflict(error) ? heldElsewhere(volume, error) : error;
    case 'object':
    case 'job':
    case 'chardev':
    case 'fdset':
      return error;
  }
}

/** QEMU has no error class for it. Only the reason hangs on this text; a damaged key slot says the same. */
export function isWrongKey(error: unknown): boolean {
  return isQmpError(error) && /\bInvalid password\b|\bNo keyslots match\b/.test(error.message);
}

function refusedNode(volume: Volume, aio: AioMode | undefined, error: unknown): unknown {
  if (!isQmpError(error)) return error;
  if (isLockConflict(error)) return heldElsewhere(volume, error);
  const { resolvedPath: path } = volume.identity;
  const how = aio === undefined ? '' : ` (aio ${aio}${volume.spec.aio === 'auto' ? ', the last that was tried' : ''})`;
  return new ShimError('FAILED_PRECONDITION', `QEMU could not open ${path}${how}: ${error.message}`, {
    reason: 'SOURCE_NOT_USABLE',
    metadata: { volumeId: volume.id, path, aio: aio ?? '' },
    cause: error,
  });
}

/** QEMU has no error class for it. Only which status a failure gets hangs on this text, never what is done about it. */
function isLockConflict(error: unknown): boolean {
  return /\bFailed to get .* lock\b/.test(messageOf(error));
}

/** The refusal for a source that another process has locked. */
function heldElsewhere(volume: Volume, error: unknown): ShimError {
  const { resolvedPath } = volume.identity;
  return new ShimError(
    'FAILED_PRECONDITION',
    `${resolvedPath} is in use by another process, which holds a lock on it: ${messageOf(error)}`,
    { reason: 'BACKING_IN_USE', metadata: { path: resolvedPath, holder: 'another process' }, cause: error },
  );
}
