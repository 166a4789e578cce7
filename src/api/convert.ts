import { invalidArgument } from '../base/errors.ts';
import type { CellFacts } from '../confine/facts.ts';
import { capacityLimit, interruptMode } from '../volume/model/placement.ts';
import type { AioMode, CacheMode, DetectZeroes, DiscardMode, IoErrorPolicy, MountSpec } from '../volume/model/disk.ts';
import { NO_DRAW, type RequestedDraw } from '../volume/model/draw.ts';
import { UNLIMITED, type IoLimits } from '../volume/model/limits.ts';
import type { VolumeHealth } from '../volume/model/facts.ts';
import { moduleByMessageName, moduleOf, type SourceSpec } from '../volume/source/registry.ts';
import type { RequestedSpec, VolumeSpec } from '../volume/spec.ts';
import type { Cause, VolumeState } from '../volume/model/state.ts';
import type { Timing } from '../base/stopwatch.ts';
import type { ShimEvent } from '../store/event.ts';
import type { SandboxSnapshot } from '../sandbox/sandbox.ts';
import type { RequestedSandboxSpec, SandboxSpec, TemplateUse } from '../sandbox/spec.ts';
import type { OperationView } from '../volume/model/operation.ts';
import type { VolumeSnapshot } from '../volume/volume.ts';
import { leaseMessage } from './convert-lease.ts';
import { encryptionFrom, encryptionMessage, encryptionStatusMessage, FORMATS } from './convert-encryption.ts';
import { timestamp } from './timestamp.ts';
import { known, nameOf } from '../grpc/enum-names.ts';
import type { Cause as CauseMessage } from '../grpc/generated/qshim/v1/Cause.ts';
import type { Confinement as ConfinementMessage } from '../grpc/generated/qshim/v1/Confinement.ts';
import type { Event as EventMessage } from '../grpc/generated/qshim/v1/Event.ts';
import type { MigrateVolumeRequest__Output } from '../grpc/generated/qshim/v1/MigrateVolumeRequest.ts';
import type { IoLimits as IoLimitsMessage, IoLimits__Output } from '../grpc/generated/qshim/v1/IoLimits.ts';
import type { Mount as MountMessage, Mount__Output } from '../grpc/generated/qshim/v1/Mount.ts';
import type { Operation as OperationMessage } from '../grpc/generated/qshim/v1/Operation.ts';
import type { Sandbox as SandboxMessage } from '../grpc/generated/qshim/v1/Sandbox.ts';
import type { SandboxSpec as SandboxSpecMessage, SandboxSpec__Output } from '../grpc/generated/qshim/v1/SandboxSpec.ts';
import type { Volume as VolumeMessage } from '../grpc/generated/qshim/v1/Volume.ts';
import type { VolumeHealth as VolumeHealthMessage } from '../grpc/generated/qshim/v1/VolumeHealth.ts';
import type { VolumeSpec as VolumeSpecMessage, VolumeSpec__Output } from '../grpc/generated/qshim/v1/VolumeSpec.ts';

/** Proto messages to domain values and back. An enum number that this version does not know arrives as a number. */

const ACCELERATORS = { ACCELERATOR_AUTO: 'auto', ACCELERATOR_KVM: 'kvm', ACCELERATOR_TCG: 'tcg' } as const;
const READY_WHENS = { READY_WHEN_AGENT: 'agent', READY_WHEN_STARTED: 'started' } as const;
const TEMPLATE_USES = {
  TEMPLATE_UNSPECIFIED: undefined,
  TEMPLATE_AUTO: 'auto',
  TEMPLATE_OFF: 'off',
  TEMPLATE_REQUIRED: 'required',
} as const satisfies Record<string, TemplateUse | undefined>;
const START_KINDS = { cold: 'START_KIND_COLD_BOOT', clone: 'START_KIND_CLONE', pool: 'START_KIND_POOL' } as const;
const CONFINEMENT_LEVELS = {
  CONFINEMENT_LEVEL_OFF: 'off',
  CONFINEMENT_LEVEL_DEGRADED: 'degraded',
  CONFINEMENT_LEVEL_FULL: 'full',
} as const;
const CACHE_MODES = {
  CACHE_MODE_UNSPECIFIED: undefined,
  CACHE_MODE_NONE: 'none',
  CACHE_MODE_WRITEBACK: 'writeback',
  CACHE_MODE_WRITETHROUGH: 'writethrough',
  CACHE_MODE_DIRECTSYNC: 'directsync',
  CACHE_MODE_UNSAFE: 'unsafe',
} as const satisfies Record<string, CacheMode | undefined>;
const AIO_MODES = {
  AIO_MODE_AUTO: 'auto',
  AIO_MODE_THREADS: 'threads',
  AIO_MODE_NATIVE: 'native',
  AIO_MODE_IO_URING: 'io_uring',
} as const satisfies Record<string, AioMode | 'auto'>;
const DISCARD_MODES = {
  DISCARD_MODE_UNSPECIFIED: undefined,
  DISCARD_MODE_IGNORE: 'ignore',
  DISCARD_MODE_UNMAP: 'unmap',
} as const satisfies Record<string, DiscardMode | undefined>;
const DETECT_ZEROES = {
  DETECT_ZEROES_UNSPECIFIED: undefined,
  DETECT_ZEROES_OFF: 'off',
  DETECT_ZEROES_ON: 'on',
  DETECT_ZEROES_UNMAP: 'unmap',
} as const satisfies Record<string, DetectZeroes | undefined>;

const FSCKS = { FSCK_REPAIR: 'repair', FSCK_FULL: 'full' } as const;

const ERROR_POLICIES = {
  IO_ERROR_POLICY_UNSPECIFIED: undefined,
  IO_ERROR_POLICY_REPORT: 'report',
  IO_ERROR_POLICY_IGNORE: 'ignore',
  IO_ERROR_POLICY_STOP: 'stop',
  IO_ERROR_POLICY_STOP_ON_ENOSPC: 'enospc',
} as const satisfies Record<string, IoErrorPolicy | undefined>;

const VOLUME_STATES = {
  VOLUME_STATE_PENDING: 'pending',
  VOLUME_STATE_ATTACHED: 'attached',
  VOLUME_STATE_DETACHING: 'detaching',
  VOLUME_STATE_REMOVED: 'removed',
} as const;

export function volumeStateMessage(state: VolumeState['state']): keyof typeof VOLUME_STATES {
  return nameOf(VOLUME_STATES, state);
}

/** A state to look for. @throws ShimError INVALID_ARGUMENT for unknown enum values, and the one that says nothing */
export function volumeStateFrom(name: string | number): VolumeState['state'] {
  return known('states', VOLUME_STATES, name);
}

/** @throws ShimError INVALID_ARGUMENT for unknown enum values */
export function sandboxSpecFrom(message: SandboxSpec__Output | null): RequestedSandboxSpec {
  return {
    vcpus: message?.vcpus ?? 0,
    memoryMib: message?.memoryMib ?? 0,
    kernel: message?.kernel ?? '',
    initrd: message?.initrd ?? '',
    kernelParameters: message?.kernelParameters ?? '',
    accelerator: known('spec.accelerator', ACCELERATORS, message?.accelerator ?? 'ACCELERATOR_AUTO'),
    volumeCapacity: message?.volumeCapacity ?? 0,
    labels: { ...message?.labels },
    readyWhen: known('spec.ready_when', READY_WHENS, message?.readyWhen ?? 'READY_WHEN_AGENT'),
    template: known('spec.template', TEMPLATE_USES, message?.template ?? 'TEMPLATE_UNSPECIFIED'),
    iothreads: message?.iothreads ?? 0,
  };
}

/** @throws ShimError INVALID_ARGUMENT for a missing spec and unknown enum values */
export function volumeSpecFrom(message: VolumeSpec__Output | null): RequestedSpec {
  if (message === null) throw invalidArgument('spec', '', 'is missing');
  return {
    source: sourceFrom(message),
    readOnly: message.readOnly,
    cache: known('spec.cache', CACHE_MODES, message.cache),
    aio: known('spec.aio', AIO_MODES, message.aio),
    discard: known('spec.discard', DISCARD_MODES, message.discard),
    detectZeroes: known('spec.detect_zeroes', DETECT_ZEROES, message.detectZeroes),
    serial: message.serial,
    queues: message.queues,
    logicalBlockSize: message.logicalBlockSize,
    physicalBlockSize: message.physicalBlockSize,
    mount: message.mount === null ? undefined : mountFrom(message.mount),
    writeErrors: known('spec.write_errors', ERROR_POLICIES, message.writeErrors),
    readErrors: known('spec.read_errors', ERROR_POLICIES, message.readErrors),
    encryption: encryptionFrom(message.encryption),
    ...limitsFrom(message.limits),
  };
}

/** Limits of its own, and the budget that it draws on: one message of the API, and two things here. */
export function limitsFrom(message: IoLimits__Output | null): {
  readonly limits: Partial<IoLimits>;
  readonly draw: RequestedDraw;
} {
  const { budget = '', share = 0, ...limits } = message ?? {};
  return { limits, draw: { budget, share } };
}

function limitsMessage({ limits, draw }: Pick<VolumeSnapshot, 'limits' | 'draw'> | VolumeSpec): IoLimitsMessage | null {
  return limits === undefined && draw === undefined ? null : { ...(limits ?? UNLIMITED), ...(draw ?? NO_DRAW) };
}

function mountFrom(message: Mount__Output): MountSpec {
  const { fsType } = message;
  if (fsType !== 'ext4' && fsType !== 'xfs') {
    throw invalidArgument('spec.mount.fs_type', fsType, 'must be "ext4" or "xfs"');
  }
  return {
    fsType,
    mountPoint: message.mountPoint,
    options: message.options,
    format: known('spec.mount.format', FORMATS, message.format),
    ...(message.partition === 0 ? {} : { partition: message.partition }),
    ...(message.fsck === 'FSCK_NEVER' ? {} : { fsck: known('spec.mount.fsck', FSCKS, message.fsck) }),
  };
}

export function sandboxMessage(sandbox: SandboxSnapshot): SandboxMessage {
  return {
    sandboxId: sandbox.id,
    spec: sandboxSpecMessage(sandbox.spec),
    state: (
      {
        creating: 'SANDBOX_STATE_CREATING',
        running: 'SANDBOX_STATE_RUNNING',
        stopping: 'SANDBOX_STATE_STOPPING',
        stopped: 'SANDBOX_STATE_STOPPED',
      } as const
    )[sandbox.state],
    cause: causeMessage(sandbox.cause),
    createdAt: timestamp(sandbox.createdAtMs),
    accelerator: nameOf(ACCELERATORS, sandbox.accelerator),
    acceleratorReason: sandbox.acceleratorReason,
    qemuVersion: sandbox.qemuVersion,
    qemuPid: sandbox.qemuPid,
    volumeCapacity: sandbox.spec.volumeCapacity,
    volumesInUse: sandbox.volumesInUse,
    timings: timingMessages(sandbox.timings),
    agentReady: sandbox.agentReady,
    runState: sandbox.runState,
    qemuUnresponsive: sandbox.unresponsive,
    guestOverBudget: sandbox.overBudget,
    stateDir: sandbox.directory,
    confinement: confinementMessage(sandbox.confinement),
    bootImages: sandbox.images ?? null,
    start: { ...sandbox.start, kind: START_KINDS[sandbox.start.kind] },
    capacity: {
      volumes: sandbox.spec.volumeCapacity,
      inUse: sandbox.volumesInUse,
      limit: capacityLimit(sandbox.spec),
      interruptVectors: sandbox.vectors.all,
      interruptVectorsInUse: sandbox.vectors.inUse,
    },
  };
}

function confinementMessage({ level, uid, missing }: CellFacts): ConfinementMessage {
  return {
    level: nameOf(CONFINEMENT_LEVELS, level),
    uid,
    missing: missing.map(({ part, why }) => ({ part, reason: why })),
  };
}

function sandboxSpecMessage(spec: SandboxSpec): SandboxSpecMessage {
  return {
    vcpus: spec.vcpus,
    memoryMib: spec.memoryMib,
    kernel: spec.kernel,
    initrd: spec.initrd,
    kernelParameters: spec.kernelParameters,
    accelerator: nameOf(ACCELERATORS, spec.accelerator),
    volumeCapacity: spec.volumeCapacity,
    labels: { ...spec.labels },
    readyWhen: nameOf(READY_WHENS, spec.readyWhen),
    template: nameOf(TEMPLATE_USES, spec.template),
    iothreads: spec.iothreads,
  };
}

export function volumeMessage(volume: VolumeSnapshot): VolumeMessage {
  const { times } = volume;
  // What the guest had of it is over; another disk may have its name and address by now.
  const guest = volume.state.state === 'removed' ? undefined : volume.guest;
  return {
    sandboxId: volume.sandboxId,
    volumeId: volume.volumeId,
    generation: volume.generation,
    spec: volumeSpecMessage(volume.spec),
    state: volumeStateMessage(volume.state.state),
    cause: causeMessage(volume.cause),
    serial: volume.spec.serial,
    pciPath: volume.pciPath,
    guestPciAddress: guest?.pciAddress ?? '',
    guestDevice: guest?.device ?? '',
    sizeBytes: volume.sizeBytes,
    aio: nameOf(AIO_MODES, volume.aio ?? 'auto'),
    evidence: [...(guest?.evidence ?? [])],
    timings: timingMessages(volume.timings),
    pendingAt: timestamp(times.pending),
    attachedAt: timestamp(times.attached),
    detachingAt: timestamp(times.detaching),
    removedAt: timestamp(times.removed),
    formatted: volume.guest?.formatted ?? false,
    health: healthMessage(volume.health),
    encryption: encryptionStatusMessage(volume.encryption),
    interrupts: INTERRUPT_MESSAGES[interruptMode(volume.placement, volume.spec.queues)],
    iothreads: [...volume.placement.iothreads],
    job: volume.job === undefined ? null : { ...volume.job },
    resolvedSource: volume.resolvedPath,
    operation: presentOperation(volume),
    lease: leaseMessage(volume.lease),
    limits: limitsMessage(volume),
  };
}

function presentOperation(volume: VolumeSnapshot): OperationMessage | null {
  const last = volume.operations.at(-1);
  return last === undefined || last.ended !== undefined ? null : operationMessage(volume, last);
}

export function operationMessage(volume: VolumeSnapshot, operation: OperationView): OperationMessage {
  const { id, kind, startedMs, progress, cancelAsked, cancellable, ended } = operation;
  const { sandboxId, volumeId, generation } = volume;
  return {
    ...{ operationId: id, sandboxId, volumeId, generation, kind, state: operationState(operation) },
    phase: progress?.phase ?? '',
    current: progress?.current ?? 0,
    total: progress?.total ?? 0,
    cancellable,
    cancelAsked,
    problem: ended?.problem === undefined ? null : { ...ended.problem, metadata: { ...ended.problem.metadata } },
    startedAt: timestamp(startedMs),
    endedAt: timestamp(ended?.endedMs),
  };
}

function operationState({ ended }: OperationView): NonNullable<OperationMessage['state']> {
  if (ended === undefined) return 'OPERATION_STATE_RUNNING';
  if (ended.cancelled) return 'OPERATION_STATE_CANCELLED';
  return ended.problem === undefined ? 'OPERATION_STATE_SUCCEEDED' : 'OPERATION_STATE_FAILED';
}

const INTERRUPT_MESSAGES = {
  'per-queue': 'INTERRUPT_MODE_PER_QUEUE',
  shared: 'INTERRUPT_MODE_SHARED',
  line: 'INTERRUPT_MODE_LINE',
} as const;

export function healthMessage(health: VolumeHealth): VolumeHealthMessage {
  const { last } = health;
  return {
    failing: health.failing,
    errors: health.errors,
    lastOperation: last?.operation ?? '',
    lastMessage: last?.message ?? '',
    lastAction: last?.action ?? '',
    lastNoSpace: last?.noSpace ?? false,
    lastAt: timestamp(last?.timeMs),
  };
}

function volumeSpecMessage(spec: VolumeSpec): VolumeSpecMessage {
  return {
    ...sourceMessage(spec.source),
    readOnly: spec.readOnly,
    cache: nameOf(CACHE_MODES, spec.cache),
    aio: nameOf(AIO_MODES, spec.aio),
    discard: nameOf(DISCARD_MODES, spec.discard),
    detectZeroes: nameOf(DETECT_ZEROES, spec.detectZeroes),
    serial: spec.serial,
    queues: spec.queues,
    logicalBlockSize: spec.logicalBlockSize,
    physicalBlockSize: spec.physicalBlockSize,
    mount: mountMessage(spec.mount),
    writeErrors: nameOf(ERROR_POLICIES, spec.writeErrors),
    readErrors: nameOf(ERROR_POLICIES, spec.readErrors),
    encryption: encryptionMessage(spec.encryption),
    limits: limitsMessage(spec),
  };
}

function sourceMessage(source: SourceSpec): Pick<VolumeSpecMessage, NonNullable<VolumeSpecMessage['source']>> {
  const module = moduleOf(source);
  return { [module.messageName]: module.toMessage(source) };
}

function sourceFrom(message: VolumeSpec__Output): SourceSpec | undefined {
  const { source: which } = message;
  return which === undefined ? undefined : sourceNamed(which, message[which]);
}

/** The target of a move. */
export function targetFrom(message: MigrateVolumeRequest__Output): SourceSpec | undefined {
  const { target: which } = message;
  return which === undefined ? undefined : sourceNamed(which, message[which]);
}

function sourceNamed(which: string, message: object | null | undefined): SourceSpec | undefined {
  return moduleByMessageName(which)?.fromMessage(message ?? {});
}

function mountMessage(mount: MountSpec | undefined): MountMessage | null {
  if (mount === undefined) return null;
  return {
    fsType: mount.fsType,
    mountPoint: mount.mountPoint,
    options: [...mount.options],
    format: nameOf(FORMATS, mount.format),
    partition: mount.partition ?? 0,
    fsck: mount.fsck === undefined ? 'FSCK_NEVER' : nameOf(FSCKS, mount.fsck),
  };
}

export function eventMessage(event: ShimEvent): EventMessage {
  return {
    epoch: event.epoch,
    sequence: event.sequence,
    time: timestamp(event.timeMs),
    sandboxId: event.sandboxId,
    volumeId: event.volumeId ?? '',
    generation: event.generation,
    type: event.type,
    cause: causeMessage(event.cause),
    timings: timingMessages(event.timings),
  };
}

function causeMessage(cause: Cause | undefined): CauseMessage | null {
  return cause === undefined ? null : { ...cause };
}

function timingMessages(timings: readonly Timing[]): Timing[] {
  return timings.map((timing) => ({ ...timing }));
}
