import { ShimError, messageOf } from '../base/errors.ts';
import { withoutDefaults } from '../device/defaults.ts';
import { aioCandidates, attachPlan } from '../device/plan.ts';
import type { AioMode } from '../device/spec.ts';
import type { KeyMaterial } from '../keys/material.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import { inspectBacking } from './backing.ts';
import { beginCreation } from './image-undo.ts';
import { runKeyJob } from './job.ts';
import { hostLuksView, luksRefusal, readLuks1 } from './luks-image.ts';
import { withSecret } from './secret.ts';
import type { Stopwatch } from './stopwatch.ts';
import type { Volume } from './volume.ts';
import type { VolumeHost } from './vm.ts';

/** What an attach adds to QEMU: block nodes, and the front end on them. Called under the volume's mutex. */

/** QEMU works on the key for each slot in use, and answers nothing meanwhile. */
const LUKS_OPEN_TIMEOUT_MS = 600_000;

/**
 * Adds the volume: a format node over a protocol node, or, for host_luks, a protocol node, an image if there is none yet, and
 * the luks node that opens it; and the front end.
 * @throws ShimError FAILED_PRECONDITION: SOURCE_NOT_USABLE, SOURCE_NOT_EMPTY, BACKING_IN_USE, LUKS_WRONG_KEY,
 *   LUKS_CREATE_FAILED; and what inspectBacking and withSecret throw
 */
export async function addVolume(
  host: VolumeHost,
  qmp: QmpClient,
  volume: Volume,
  key: KeyMaterial | undefined,
  watch: Stopwatch,
): Promise<void> {
  if (volume.spec.encryption?.kind !== 'host-luks') {
    await withBestAio(host, volume, async (aio) => {
      const node = planStep(volume, 'add-block-node', aio);
      const added = qmp.run(node.command, node.arguments).then(() => watch.lap('block-node'));
      // Both at once, when QEMU is known to open files so: it works in order, and the front end finds the node, or is refused
      // with it. A refused device_add holds QEMU up (drain_call_rcu), so a first try goes alone.
      const together = host.volumes.worksWith(aio);
      const timeoutMs = 2 * host.config.qmp_reply_timeout_ms;
      const device = together ? addFrontEnd(qmp, volume, { timeoutMs }) : added.then(() => addFrontEnd(qmp, volume));
      const [first, second] = await Promise.allSettled([added, device]);
      if (first.status === 'rejected') throw first.reason;
      volume.aio = aio;
      host.volumes.noteWorks(aio);
      if (second.status === 'rejected') throw second.reason;
    });
    watch.lap('device');
    return;
  }
  await addLuksNodes(host, qmp, volume, key, watch);
  await addFrontEnd(qmp, volume);
  watch.lap('device');
}

/** @param options.timeoutMs for the reply; it may have to wait for that of another command */
async function addFrontEnd(
  qmp: QmpClient,
  volume: Volume,
  options: { readonly timeoutMs?: number } = {},
): Promise<void> {
  const step = planStep(volume, 'add-device');
  try {
    await qmp.run(step.command, step.arguments, options);
  } catch (error) {
    // A raw file is locked only now, when the front end says what it wants to do with the node.
    throw isLockConflict(error) ? heldElsewhere(volume, error) : error;
  }
}

async function addLuksNodes(
  host: VolumeHost,
  qmp: QmpClient,
  volume: Volume,
  key: KeyMaterial | undefined,
  watch: Stopwatch,
): Promise<void> {
  if (key === undefined) throw new Error('an encrypted volume is attached without its key');
  await refuseIfWrittenSince(host, volume);
  await withBestAio(host, volume, async (aio) => {
    const step = planStep(volume, 'add-file-node', aio);
    await qmp.run(step.command, step.arguments);
    volume.aio = aio;
  });
  watch.lap('block-node');
  await withSecret(qmp, host.config.secret_dir, volume.names, key, async () => {
    if (volume.blank) {
      await createImage(host, qmp, volume);
      watch.lap('luks-create');
    }
    await openImage(qmp, volume);
    watch.lap('luks-open');
  });
  volume.encryption = hostLuksView(await readLuks1(volume.identity.resolvedPath), volume.blank);
  if (volume.creating !== undefined) {
    // On disk before a guest can write: what a guest may have written is never taken for half an image.
    const { creating } = volume;
    volume.creating = undefined;
    await host.commit().catch((error: unknown) => {
      volume.creating = creating;
      throw error;
    });
  }
}

/**
 * A source was looked at before this volume had the claim on it: another volume may have come, written and left in between.
 * What is made because nothing was ever written there, rests on a second look, now that nobody else may write.
 */
async function refuseIfWrittenSince({ config }: VolumeHost, volume: Volume): Promise<void> {
  const { blank, unwritten, spec, identity } = volume;
  if (!blank && !unwritten) return;
  const path = identity.resolvedPath;
  const now = await inspectBacking({ ...spec, source: { ...spec.source, path } }, config);
  if (now.blank === blank && now.unwritten === unwritten && now.identity === identity.backingIdentity) return;
  throw luksRefusal(path, 'SOURCE_NOT_EMPTY', 'was empty when it was looked at, and has been written to since then');
}

/** Tries the aio modes, best first. @param add leaves `volume.aio` unset when it is the node that QEMU refuses */
async function withBestAio(host: VolumeHost, volume: Volume, add: (aio: AioMode) => Promise<void>): Promise<void> {
  const candidates = aioCandidates(volume.spec);
  for (const [index, aio] of candidates.entries()) {
    try {
      await add(aio);
      return;
    } catch (error) {
      if (volume.aio !== undefined) throw error;
      const last = index === candidates.length - 1;
      if (last || !isQmpError(error)) throw blockNodeFailure(volume, aio, error);
      // Which reason an open failed for shows only in text. A wrong guess costs one more try with a simpler mode.
      host.log.debug({ volumeId: volume.id, aio, problem: error.message }, 'aio mode refused, trying the next');
    }
  }
}

/** Makes an image of a source that was seen to be empty. When it fails, the undo of the attach makes it empty again. */
async function createImage(host: VolumeHost, qmp: QmpClient, volume: Volume): Promise<void> {
  const step = planStep(volume, 'create-image');
  const { sizeBytes, resolvedPath } = volume.identity;
  const options = { ...step.arguments.options, size: sizeBytes };
  const start = (): Promise<unknown> =>
    qmp.run(step.command, { ...step.arguments, options }, { timeoutMs: LUKS_OPEN_TIMEOUT_MS });
  const progress = (job: NonNullable<Volume['job']>): void => {
    host.volumes.setJob(volume, job);
  };
  await beginCreation(volume);
  await host.commit();
  try {
    await runKeyJob(qmp, volume.names.job, start, { signal: host.gone, progress });
  } catch (error) {
    host.gone.throwIfAborted();
    if (isLockConflict(error)) {
      // QEMU did not get it, and has written nothing: what lies there is somebody else's.
      volume.creating = undefined;
      throw heldElsewhere(volume, error);
    }
    throw luksRefusal(resolvedPath, 'LUKS_CREATE_FAILED', `cannot be encrypted: ${messageOf(error)}`, error);
  } finally {
    host.volumes.setJob(volume, undefined);
  }
}

async function openImage(qmp: QmpClient, volume: Volume): Promise<void> {
  const step = planStep(volume, 'add-luks-node');
  try {
    await qmp.run(step.command, step.arguments, { timeoutMs: LUKS_OPEN_TIMEOUT_MS });
  } catch (error) {
    if (isWrongKey(error)) {
      const path = volume.identity.resolvedPath;
      throw luksRefusal(path, 'LUKS_WRONG_KEY', 'opens with none of its key slots by this key', error);
    }
    throw blockNodeFailure(volume, volume.aio ?? 'threads', error);
  }
}

/** QEMU has no error class for it. Only the reason hangs on this text; a damaged key slot says the same. */
export function isWrongKey(error: unknown): boolean {
  return isQmpError(error) && /\bInvalid password\b|\bNo keyslots match\b/.test(error.message);
}

type Step = ReturnType<typeof attachPlan>[number];

/** The step of a volume's attach plan as it is carried out: with the source's resolved path, and nothing that goes without saying. */
export function planStep<K extends Step['kind']>(
  volume: Volume,
  kind: K,
  aio: AioMode = 'threads',
): Extract<Step, { kind: K }> {
  const spec = { ...volume.spec, source: { ...volume.spec.source, path: volume.identity.resolvedPath } };
  const steps = attachPlan(spec, volume.names, volume.identity, aio);
  const found = steps.find((step): step is Extract<Step, { kind: K }> => step.kind === kind);
  if (found === undefined) throw new Error(`the attach plan has no step ${kind}`);
  return withoutDefaults(spec, found);
}

function blockNodeFailure(volume: Volume, aio: AioMode, error: unknown): unknown {
  if (!isQmpError(error)) return error;
  if (isLockConflict(error)) return heldElsewhere(volume, error);
  const chosen = volume.spec.aio !== 'auto';
  return new ShimError(
    'FAILED_PRECONDITION',
    `QEMU could not open ${volume.identity.resolvedPath} (aio ${aio}${chosen ? '' : ', the last that was tried'}): ${error.message}`,
    {
      reason: 'SOURCE_NOT_USABLE',
      metadata: { volumeId: volume.id, path: volume.identity.resolvedPath, aio },
      cause: error,
    },
  );
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
