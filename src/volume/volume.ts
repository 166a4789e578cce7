import { createHash } from 'node:crypto';
import { BoundedMutex } from '../base/mutex.ts';
import { namesFor, type QemuNames } from './model/plan.ts';
import type { EncryptionView } from './model/encryption.ts';
import type { DiskArrival } from '../guest/disk-arrivals.ts';
import type { Placement } from './model/placement.ts';
import { pciPath, type Slot } from './model/slots.ts';
import { SERIAL_BYTES_MAX, type AioMode, type VolumeSpec } from './model/spec.ts';
import type { Cause, GuestView, VolumeState } from './model/state.ts';
import type { Timing } from '../store/events.ts';
import type { ImageCreation } from './image-undo.ts';
import type { JobProgress } from './job.ts';

/** Wall-clock milliseconds of each state's beginning. */
export interface StateTimes {
  readonly pending: number;
  readonly attached: number | undefined;
  readonly detaching: number | undefined;
  readonly removed: number | undefined;
}

/** What never changes in one generation of a volume. */
export interface VolumeIdentity {
  readonly sandboxId: string;
  readonly volumeId: string;
  readonly generation: number;
  readonly spec: VolumeSpec;
  readonly slot: Slot;
  readonly placement: Placement;
  /** BackingClaims identity of the source. */
  readonly backingIdentity: string;
  /** The source with symbolic links resolved. */
  readonly resolvedPath: string;
  readonly sizeBytes: number;
}

/** What QEMU has told of a volume's I/O errors. */
export interface VolumeHealth {
  readonly failing: boolean;
  readonly errors: number;
  readonly last?: {
    readonly operation: string;
    readonly message: string;
    readonly action: string;
    readonly noSpace: boolean;
    readonly timeMs: number;
  };
}

/** A volume as callers and watchers see it: a copy, safe to keep. */
export interface VolumeSnapshot extends VolumeIdentity {
  readonly state: VolumeState;
  readonly pciPath: string;
  readonly guest: GuestView | undefined;
  readonly cause: Cause | undefined;
  readonly aio: AioMode | undefined;
  readonly times: StateTimes;
  readonly timings: readonly Timing[];
  readonly health: VolumeHealth;
  readonly encryption: EncryptionView | undefined;
  readonly job: JobProgress | undefined;
}

/**
 * One generation of a volume.
 * INVARIANT: `state` and `times` change only under `mutex`, and only through VolumeStore.apply.
 */
export class Volume {
  /** Changes in its size only, when the volume is resized (VolumeStore.resized). */
  identity: VolumeIdentity;
  readonly names: QemuNames;
  readonly mutex: BoundedMutex;
  state: VolumeState;
  times: StateTimes;
  /** The aio mode that QEMU accepted. */
  aio: AioMode | undefined;
  timings: readonly Timing[] = [];
  /** The last guest view, kept after removal for those who ask. */
  guest: GuestView | undefined;
  /**
   * True from before the guest is asked to mount it, or to open its encryption, until it is seen to be unmounted and closed
   * (or its boot ended).
   */
  mounted = false;
  /** Its source was seen to be empty, and is to be made an encrypted image first. */
  readonly blank: boolean;
  /** For host_luks: nobody ever wrote through the encryption, though the guest reads noise. */
  readonly unwritten: boolean;
  /** An image is being made of its source, and no guest has had it yet. */
  creating: ImageCreation | undefined;
  /** The job that QEMU works on for it. */
  job: JobProgress | undefined;
  /** Its disk, as the guest's kernel announces it; from before QEMU gets the device. Not there for what was found in QEMU. */
  arrival: DiskArrival | undefined;
  /** How it was seen to be encrypted. */
  encryption: EncryptionView | undefined;
  health: VolumeHealth = { failing: false, errors: 0 };
  /** The attach in progress; repeats of Attach join it. */
  attaching: Promise<void> | undefined;
  /** The removal in progress; repeats of Detach join it. */
  removal: Promise<void> | undefined;

  constructor(
    identity: VolumeIdentity,
    mutexWaitersMax: number,
    options: {
      readonly restored?: { readonly state: VolumeState; readonly times: StateTimes };
      readonly blank?: boolean;
      readonly unwritten?: boolean;
    } = {},
  ) {
    this.identity = identity;
    const { restored, blank = false, unwritten = false } = options;
    this.blank = blank;
    this.unwritten = unwritten;
    this.names = namesFor(identity.volumeId, identity.generation);
    this.mutex = new BoundedMutex(`volume ${identity.volumeId}`, mutexWaitersMax);
    this.state = restored?.state ?? { state: 'pending', phase: 'attaching', slot: identity.slot };
    this.times = restored?.times ?? {
      pending: Date.now(),
      attached: undefined,
      detaching: undefined,
      removed: undefined,
    };
  }

  get id(): string {
    return this.identity.volumeId;
  }

  get generation(): number {
    return this.identity.generation;
  }

  get spec(): VolumeSpec {
    return this.identity.spec;
  }

  isRemoved(): boolean {
    return this.state.state === 'removed';
  }

  snapshot(): VolumeSnapshot {
    return {
      ...this.identity,
      state: this.state,
      pciPath: pciPath(this.identity.slot),
      guest: this.guest,
      cause: causeOf(this.state),
      aio: this.aio,
      times: this.times,
      timings: this.timings,
      health: this.health,
      encryption: this.encryption,
      job: this.job,
    };
  }
}

/** The cause that a state carries, if any. */
export function causeOf(state: VolumeState): Cause | undefined {
  if (state.state === 'attached') return state.refused;
  if (state.state === 'pending' && state.phase === 'attaching') return undefined;
  return state.cause;
}

/** The serial of a volume that was given none: its id where that fits, else the first bytes of the id's SHA-256. */
export function defaultSerial(volumeId: string): string {
  if (Buffer.byteLength(volumeId) <= SERIAL_BYTES_MAX) return volumeId;
  return createHash('sha256').update(volumeId).digest('hex').slice(0, SERIAL_BYTES_MAX);
}
