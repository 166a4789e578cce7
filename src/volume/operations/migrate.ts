import { ShimError, invalidArgument, messageOf } from '../../base/errors.ts';
import type { ReasonWith } from '../../base/reasons.ts';
import type { Config } from '../../config.ts';
import { isQmpError } from '../../qmp/errors.ts';
import type { JobInfo } from '../../qmp/protocol.ts';
import type { VolumeHost } from '../host.ts';
import { look } from '../looks.ts';
import type { Medium } from '../medium.ts';
import {
  beginMirror,
  cancelMirrors,
  completeMirror,
  deviceOn,
  dismissMirror,
  followMirror,
  mirrorJob,
} from '../mirror/job.ts';
import { addMedium, removeMedium, whileAttached } from '../mirror/media.ts';
import type { Migration, OperationView } from '../model/operation.ts';
import type { Inspection } from '../source/module.ts';
import { moduleOf, type SourceSpec } from '../source/registry.ts';
import { inspectSource, type VolumeSpec } from '../spec.ts';
import { OperationCancelled, specOn, type Volume } from '../volume.ts';
import { startOperation, type OperationRun } from './slot.ts';

/**
 * Copies a volume to another medium while its guest uses it, puts the device there, and lets go of the one before:
 *
 *     checks, claim ─▶ preparing ─▶ copying ─▶ in step ─▶ switching ─▶ closing ─▶ done: the claim on the source is free
 *                          │           │          │           │
 *                          └───────────┴──────────┴───────────┴─▶ an error, a cancel (not any more once switching):
 *                                                               the target is taken out of QEMU, its claim is free
 *
 * The step is in the journal before QEMU is told of it. A daemon that comes back looks at what the device is on, and
 * at the job: it goes on, or takes the target away.
 */

const FIELD = 'target';

/** What is asked for. */
export interface MigrateRequest {
  readonly operationId: string;
  readonly target: SourceSpec | undefined;
  readonly createIfMissing: boolean;
  /** What lies on the target may go. */
  readonly overwrite: boolean;
  readonly pivot: 'automatic' | 'asked';
  /** 0: no limit. */
  readonly speedBytesPerS: number;
}

/** The daemon's configuration as far as the caller may use it. */
type CallerConfig = Config;

/**
 * Begins to move an attached volume. It is answered once the operation is in the journal.
 * @param config with the directories that the caller is limited to
 * @throws ShimError INVALID_ARGUMENT; FAILED_PRECONDITION: VOLUME_NOT_ATTACHED, VOLUME_READ_ONLY, BACKING_IN_USE,
 *   TARGET_NOT_EMPTY, TARGET_SIZE_DIFFERS, OPERATION_IN_PROGRESS; UNIMPLEMENTED / MOVE_UNSUPPORTED,
 *   SOURCE_KIND_UNSUPPORTED; what the target's module throws when it looks at it
 */
export async function migrateVolume(
  host: VolumeHost,
  volume: Volume,
  request: MigrateRequest,
  config: CallerConfig,
): Promise<OperationView> {
  const target = completeTarget(volume, request);
  const known = repeatOf(volume, request, target);
  if (known !== undefined) return await start(host, volume, request, known);
  refuse(volume, target);
  const medium = await prepared(host, volume, { ...request, target }, config);
  const operation = migration(volume, request, target, medium.number);
  // Between the claim and the slot nothing is awaited: a refusal gives the claim back at once.
  host.volumes.putMedium(volume, medium);
  let view: OperationView;
  try {
    view = await start(host, volume, request, operation);
  } catch (error) {
    if (volume.operation !== operation) host.volumes.dropMedium(volume, medium.number);
    throw error;
  }
  // It was answered as another call's, which has a medium of its own.
  if (mediumOfStep(volume) !== medium.number) host.volumes.dropMedium(volume, medium.number);
  return view;
}

function start(
  host: VolumeHost,
  volume: Volume,
  request: MigrateRequest,
  operation: Migration,
): Promise<OperationView> {
  const work = {
    work: (run: OperationRun) => move(host, volume, run),
    again: (run: OperationRun) => moveAgain(host, volume, run),
  };
  return startOperation(host, volume, operation, work, request.operationId);
}

function migration(volume: Volume, request: MigrateRequest, target: SourceSpec, medium: number): Migration {
  const { pivot, speedBytesPerS, createIfMissing, overwrite } = request;
  return {
    kind: 'migrate',
    from: volume.identity.resolvedPath,
    to: moduleOf(target).describe(target),
    request: JSON.stringify({ target, createIfMissing, overwrite }),
    pivot,
    speedBytesPerS,
    step: { at: 'preparing', medium },
  };
}

/** The operation under way, or an ended one's like, where the caller's id has been used already. */
function repeatOf(volume: Volume, request: MigrateRequest, target: SourceSpec): Migration | undefined {
  const { operationId } = request;
  if (operationId === '' || !volume.snapshot().operations.some(({ id }) => id === operationId)) return undefined;
  const now = volume.operation;
  const from = now?.kind === 'migrate' ? now.from : '';
  return { ...migration(volume, request, target, 0), from };
}

function mediumOfStep({ operation }: Volume): number | undefined {
  return operation?.kind === 'migrate' ? operation.step.medium : undefined;
}

function completeTarget({ spec }: Volume, { target }: MigrateRequest): SourceSpec {
  if (target === undefined) throw invalidArgument(FIELD, '', 'a target is needed');
  const module = moduleOf(target);
  const complete = module.complete(target);
  if (spec.aio !== 'auto' && !module.aioModes(spec, true).includes(spec.aio)) {
    throw invalidArgument(FIELD, module.describe(complete), `${module.apiName} has no aio mode ${spec.aio}`);
  }
  return complete;
}

function refuse(volume: Volume, target: SourceSpec): void {
  const { spec, state } = volume;
  if (state.state !== 'attached') throw precondition(volume, 'VOLUME_NOT_ATTACHED', `is ${state.state}, not attached`);
  if (spec.readOnly) throw precondition(volume, 'VOLUME_READ_ONLY', 'is read-only, and a copy of it would be written');
  if (spec.encryption?.kind !== 'host-luks') return;
  const { apiName } = moduleOf(target);
  throw new ShimError('UNIMPLEMENTED', `volume ${volume.id} is encrypted by QEMU, and cannot be moved to ${apiName}`, {
    reason: 'MOVE_UNSUPPORTED',
    metadata: { volumeId: volume.id, value: apiName },
  });
}

function precondition({ id }: Volume, reason: ReasonWith<'FAILED_PRECONDITION'>, problem: string): ShimError {
  return new ShimError('FAILED_PRECONDITION', `volume ${id} ${problem}`, { reason, metadata: { volumeId: id } });
}

/** Looks at the target as an attach looks at its source, and refuses what a copy would spoil. Changes nothing. */
async function prepared(
  host: VolumeHost,
  volume: Volume,
  { target, createIfMissing, overwrite }: MigrateRequest & { readonly target: SourceSpec },
  config: CallerConfig,
): Promise<Medium> {
  const medium = { number: host.volumes.nextMedium(), source: target, aio: undefined };
  const spec = specOn(volume.spec, medium);
  const found = await inspectTarget(spec, config, createIfMissing);
  if (found === undefined) {
    const path = moduleOf(target).filePath(target) ?? '';
    const resolvedPath = await look('placeForFile', path, config, `${FIELD}.path`, path, config);
    return { ...medium, resolvedPath, backingIdentity: '', madeAtMs: Date.now() };
  }
  const resolvedPath = moduleOf(target).describe(found.resolved);
  checkFound(volume, found, resolvedPath, overwrite);
  return { ...medium, resolvedPath, backingIdentity: found.identity };
}

/** @returns undefined for a file that is not there, and may be made */
async function inspectTarget(
  spec: VolumeSpec,
  config: CallerConfig,
  createIfMissing: boolean,
): Promise<Inspection<SourceSpec> | undefined> {
  try {
    // Whether anything lies there is found out as for a file system that is to be made.
    const mount = { fsType: 'ext4', mountPoint: '/', options: [], format: 'if_empty' } as const;
    return await inspectSource({ ...spec, mount, encryption: undefined }, config);
  } catch (error) {
    const missing = error instanceof ShimError && error.reason === 'SOURCE_NOT_FOUND';
    if (missing && createIfMissing && moduleOf(spec.source).make !== undefined) return undefined;
    throw error;
  }
}

function checkFound(volume: Volume, found: Inspection<SourceSpec>, path: string, overwrite: boolean): void {
  const metadata = { volumeId: volume.id, path };
  if (found.sizeBytes !== volume.sizeBytes) {
    const problem = `has ${found.sizeBytes} bytes, and volume ${volume.id} ${volume.sizeBytes}: a copy needs as many`;
    throw new ShimError('FAILED_PRECONDITION', `${path} ${problem}`, { reason: 'TARGET_SIZE_DIFFERS', metadata });
  }
  if (overwrite || found.emptiness === 'zero') return;
  const problem = found.emptiness === 'data' ? 'is not empty' : 'is not known to be empty';
  throw new ShimError('FAILED_PRECONDITION', `${path} ${problem}, and what lies there would be lost`, {
    reason: 'TARGET_NOT_EMPTY',
    metadata,
  });
}

/** What the work of one move has at hand. */
interface Moving {
  readonly host: VolumeHost;
  readonly volume: Volume;
  readonly run: OperationRun;
}

function migrationOf({ operation }: Volume): Migration {
  if (operation?.kind !== 'migrate') throw new Error('the volume is not being moved');
  return operation;
}

async function move(host: VolumeHost, volume: Volume, run: OperationRun): Promise<void> {
  const moving = { host, volume, run };
  try {
    run.signal.throwIfAborted();
    progress(moving, 'preparing');
    await prepare(moving);
    await beginCopy(moving);
  } catch (error) {
    await goBack(moving, error);
    return;
  }
  await goOn(moving);
}

/**
 * Takes up a move from whatever is seen of it: after a reply that was lost, or a daemon that ended.
 * @throws ShimError ABORTED / MOVE_INTERRUPTED when the copy had not begun; FAILED_PRECONDITION / MOVE_FAILED
 */
export async function moveAgain(host: VolumeHost, volume: Volume, run: OperationRun): Promise<void> {
  const moving = { host, volume, run };
  const { step } = migrationOf(volume);
  if (step.at === 'closing') {
    await close(moving);
    return;
  }
  const qmp = await host.link.ready();
  const [on, job] = [await deviceOn(qmp, volume), await mirrorJob(qmp, volume, step.medium)];
  if (on === step.medium || job !== undefined) await goOn(moving);
  else await goBack(moving, interrupted(volume));
}

/** Makes the target's file where there is none, and opens it in QEMU. */
async function prepare({ host, volume }: Moving): Promise<void> {
  const { medium: number } = migrationOf(volume).step;
  const medium = volume.otherMedium(number);
  if (medium === undefined) throw new Error(`volume ${volume.id} has no medium ${number}`);
  const { madeAtMs, resolvedPath: path, source } = medium;
  if (madeAtMs !== undefined) {
    const asked = { field: FIELD, path, sizeBytes: volume.sizeBytes };
    // The path was held against the caller's directories when it was resolved.
    const backingIdentity = await look('makeFile', path, host.config, source, asked, host.config);
    host.volumes.putMedium(volume, { ...medium, backingIdentity });
    await host.commit();
  }
  const { overwrite } = requestOf(volume);
  await addMedium(host, volume, number, undefined, { blank: false, mustBeZero: !overwrite });
}

function requestOf(volume: Volume): { readonly overwrite: boolean } {
  return JSON.parse(migrationOf(volume).request) as { readonly overwrite: boolean };
}

async function beginCopy(moving: Moving): Promise<void> {
  const { host, volume, run } = moving;
  const operation = migrationOf(volume);
  run.signal.throwIfAborted();
  await run.record({ ...operation, step: { ...operation.step, at: 'copying' } });
  using _held = await whileAttached(host, volume);
  const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
  const { speedBytesPerS } = operation;
  await beginMirror(qmp, volume, operation.step.medium, { speedBytesPerS, onSourceError: 'report' });
}

/** From a copy that has begun to the end. */
async function goOn(moving: Moving): Promise<void> {
  const { volume } = moving;
  try {
    await copy(moving);
    await switchOver(moving);
  } catch (error) {
    // Once the device was seen on the target there is no way back.
    if (migrationOf(volume).step.at === 'closing') throw error;
    await goBack(moving, error);
    return;
  }
  await close(moving);
}

/** Until it is in step, and is to be switched. */
async function copy(moving: Moving): Promise<void> {
  const { host, volume, run } = moving;
  const { step } = migrationOf(volume);
  if (step.at === 'switching') return;
  const job = await followMirror(host, volume, step.medium, {
    signal: run.signal,
    progress: (seen) => {
      copied(moving, seen);
    },
    until: ({ status }) => status === 'ready' && mayPivot(volume),
    nudge: () => volume.nudged(),
  });
  if (job?.status === 'ready') return;
  throw job === undefined ? interrupted(volume) : failed(volume, job);
}

function mayPivot(volume: Volume): boolean {
  const { pivot, step } = migrationOf(volume);
  return pivot === 'automatic' || step.pivotAsked === true;
}

async function switchOver(moving: Moving): Promise<void> {
  const { host, volume, run } = moving;
  const operation = migrationOf(volume);
  const { medium } = operation.step;
  if (operation.step.at !== 'switching') {
    run.signal.throwIfAborted();
    // From here on there is no cancel: QEMU may have switched before it was seen to.
    await run.record({ ...operation, step: { ...operation.step, at: 'switching' } });
  }
  progress(moving, 'switching');
  let job: JobInfo | undefined;
  do {
    const done = await complete(moving, medium);
    job = await followMirror(host, volume, medium, {
      signal: host.gone,
      progress: () => undefined,
      // One that was at rest for a moment has not taken it, and is asked again when it is ready.
      until: ({ status }) => !done && status === 'ready',
    });
  } while (job !== undefined && job.status !== 'concluded');
  using _held = await whileAttached(host, volume);
  const on = await deviceOn(await host.link.ready(), volume);
  if (on !== medium) throw job === undefined ? interrupted(volume) : failed(volume, job);
  await switched(moving);
}

async function complete({ host, volume }: Moving, medium: number): Promise<boolean> {
  using _held = await whileAttached(host, volume);
  return await completeMirror(await host.link.ready(), volume, medium);
}

/** The device was seen on the target: that is the volume's medium from now on, whatever can be written down. */
async function switched({ host, volume, run }: Moving): Promise<void> {
  const operation = migrationOf(volume);
  const left = volume.names.medium;
  host.volumes.switchMedium(volume, operation.step.medium);
  await run.record({ ...operation, step: { at: 'closing', medium: left } }).catch((error: unknown) => {
    host.log.warn({ volumeId: volume.id, problem: messageOf(error) }, 'a move is not in the journal yet');
  });
}

async function close(moving: Moving): Promise<void> {
  const { host, volume } = moving;
  progress(moving, 'closing the source');
  await dismissMirror(await host.link.ready(), volume, volume.names.medium);
  await removeMedium(host, volume, migrationOf(volume).step.medium, { unmake: false });
}

/**
 * Takes the target away again; or goes on to the end, where the device was seen on the target all the same.
 * @throws `why`, once the volume is as it was; what hinders it, and then it is taken up again
 */
async function goBack(moving: Moving, why: unknown): Promise<void> {
  const { host, volume, run } = moving;
  host.gone.throwIfAborted();
  if (isLost(why)) throw why;
  const { medium } = migrationOf(volume).step;
  progress(moving, 'going back');
  await cancelMirrors(await host.link.ready(), volume);
  await followMirror(host, volume, medium, { signal: host.gone, progress: () => undefined, until: () => false });
  {
    using _held = await whileAttached(host, volume);
    const on = await deviceOn(await host.link.ready(), volume);
    if (on === medium) await switched(moving);
  }
  if (volume.names.medium === medium) {
    await close(moving);
    return;
  }
  await dismissMirror(await host.link.ready(), volume, medium);
  await removeMedium(host, volume, medium, { unmake: true });
  throw run.signal.aborted ? new OperationCancelled() : asProblem(volume, why);
}

/** The connection, whose end says nothing of what QEMU has done; slot.ts comes back. */
function isLost(error: unknown): boolean {
  return error instanceof ShimError && (error.reason === 'QMP_LOST' || error.reason === 'QMP_REPLY_TIMEOUT');
}

function asProblem(volume: Volume, error: unknown): unknown {
  return isQmpError(error) ? moveFailed(volume, error.message, error) : error;
}

function failed(volume: Volume, { error }: JobInfo): ShimError {
  return moveFailed(volume, error ?? 'QEMU ended the copy, and the device is where it was');
}

function moveFailed(volume: Volume, problem: string, cause?: unknown): ShimError {
  const { to } = migrationOf(volume);
  return new ShimError('FAILED_PRECONDITION', `volume ${volume.id} was not moved to ${to}: ${problem}`, {
    reason: 'MOVE_FAILED',
    metadata: { volumeId: volume.id, path: to },
    cause,
  });
}

function interrupted(volume: Volume): ShimError {
  return new ShimError('ABORTED', `volume ${volume.id} was not moved: it was interrupted before the copy was whole`, {
    reason: 'MOVE_INTERRUPTED',
    metadata: { volumeId: volume.id },
  });
}

function copied(moving: Moving, { status, 'current-progress': current, 'total-progress': total }: JobInfo): void {
  const inStep = status === 'ready' || (status === 'standby' && current === total);
  moving.run.progress({ phase: inStep ? 'in step' : 'copying', current, total });
}

function progress({ run }: Moving, phase: string): void {
  run.progress({ phase, current: 0, total: 0 });
}

/**
 * Has a move that waits in step, or will, switch.
 * @returns the operation
 * @throws ShimError FAILED_PRECONDITION / NOT_MOVING; UNAVAILABLE / JOURNAL_WRITE_FAILED
 */
export async function pivotVolume(host: VolumeHost, volume: Volume): Promise<OperationView> {
  const { operation } = volume;
  if (operation?.kind !== 'migrate') throw precondition(volume, 'NOT_MOVING', 'is not being moved');
  const step = { ...operation.step, pivotAsked: true as const };
  host.volumes.apply(volume, { kind: 'operation-changed', operation: { ...operation, step } });
  await host.commit();
  volume.nudge();
  const view = volume.snapshot().operations.at(-1);
  if (view === undefined) throw new Error('no operation is known');
  return view;
}
