import { isDeepStrictEqual } from 'node:util';
import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ReasonWith } from '../base/reasons.ts';
import { PlacementBook, type Placement } from '../device/placement.ts';
import { SlotBook, type Slot } from '../device/slots.ts';
import type { AioMode, VolumeSpec } from '../device/spec.ts';
import { transition, type Cause, type Transition, type VolumeInput, type VolumeState } from '../device/state.ts';
import type { Backing, BackingClaims } from './backing.ts';
import type { EventLog } from './events.ts';
import type { JournalVolume } from './journal.ts';
import type { JobProgress } from './job.ts';
import { Volume, type VolumeSnapshot } from './volume.ts';

export interface VolumeStoreOptions {
  readonly sandboxId: string;
  readonly capacity: number;
  readonly vcpus: number;
  readonly iothreads: number;
  /** Whether QEMU can spread the virtqueues of a disk over iothreads; known once it runs. */
  readonly spreadsQueues: () => boolean;
  readonly log: Logger;
  readonly events: EventLog;
  readonly claims: BackingClaims;
  readonly mutexWaitersMax: number;
  readonly removedRetained: number;
}

/**
 * The volumes of one sandbox: who has which slot, name and source. This is the allocator of locking rule 2, and its lock is
 * JavaScript's own: every method runs to its end without an await, so nothing can come in between and it can never be
 * held across QEMU or the guest.
 */
export class VolumeStore {
  readonly #options: VolumeStoreOptions;
  readonly #slots: SlotBook;
  readonly #placements: PlacementBook;
  /** The newest generation of each id; removed ones stay for a while. */
  readonly #volumes = new Map<string, Volume>();
  #nextGeneration = 1;
  /** Modes in which this VM's QEMU has opened a source. */
  readonly #workingAio = new Set<AioMode>();

  constructor(options: VolumeStoreOptions) {
    this.#options = options;
    this.#slots = new SlotBook(options.capacity);
    this.#placements = new PlacementBook(options);
  }

  get slotsInUse(): number {
    return this.#slots.inUse;
  }

  /** Whether this VM's QEMU has opened a source in this mode. */
  worksWith(aio: AioMode): boolean {
    return this.#workingAio.has(aio);
  }

  noteWorks(aio: AioMode): void {
    this.#workingAio.add(aio);
  }

  /** Interrupt vectors that the guest has for volumes, and how many are taken. */
  get vectors(): { readonly all: number; readonly inUse: number } {
    return { all: this.#placements.vectors, inUse: this.#placements.vectorsInUse };
  }

  get nextGeneration(): number {
    return this.#nextGeneration;
  }

  find(volumeId: string): Volume | undefined {
    return this.#volumes.get(volumeId);
  }

  all(): readonly Volume[] {
    return [...this.#volumes.values()];
  }

  /**
   * The volume that an Attach of this id and spec repeats, if any.
   * @throws ShimError ALREADY_EXISTS when the id is attached with another spec; FAILED_PRECONDITION while it is leaving,
   * or / VOLUME_NOT_MOUNTED, LUKS_NOT_OPEN
   */
  repeated(volumeId: string, spec: VolumeSpec): Volume | undefined {
    const existing = this.#volumes.get(volumeId);
    if (existing === undefined || existing.state.state === 'removed') return undefined;
    const metadata = { sandboxId: this.#options.sandboxId, volumeId };
    if (!isDeepStrictEqual(existing.spec, spec)) {
      throw new ShimError('ALREADY_EXISTS', `volume ${volumeId} is attached already, with another spec`, {
        reason: 'VOLUME_EXISTS',
        metadata,
      });
    }
    if (existing.state.state === 'detaching') {
      throw new ShimError(
        'FAILED_PRECONDITION',
        `volume ${volumeId} is being detached; attach it again once it is removed`,
        {
          reason: 'VOLUME_DETACHING',
          metadata,
        },
      );
    }
    if (existing.state.state === 'pending' && existing.state.phase === 'undoing') {
      throw new ShimError('FAILED_PRECONDITION', `the failed attach of volume ${volumeId} is still being undone`, {
        reason: 'VOLUME_PENDING',
        metadata: { ...metadata, cause: existing.state.cause.reason },
      });
    }
    this.#refuseHalf(existing);
    return existing;
  }

  /**
   * A volume that is attached without what its spec says of the guest is no success for a repeated Attach: a detach that was
   * refused half-way, or a reset of the guest, has taken away the mount or closed the encryption.
   */
  #refuseHalf({ id, spec, state }: Volume): void {
    if (state.state !== 'attached') return;
    const lacks = (evidence: string): boolean => !state.guest.evidence.includes(evidence);
    const refusal = (reason: ReasonWith<'FAILED_PRECONDITION'>, what: string): ShimError =>
      new ShimError(
        'FAILED_PRECONDITION',
        `volume ${id} is attached, but ${what} any more; detach it, and attach it again`,
        {
          reason,
          metadata: { sandboxId: this.#options.sandboxId, volumeId: id },
        },
      );
    if (spec.encryption?.kind === 'guest-luks2' && lacks('guest-luks'))
      throw refusal('LUKS_NOT_OPEN', 'its encryption is not known to be open');
    if (spec.mount !== undefined && lacks('guest-mount'))
      throw refusal('VOLUME_NOT_MOUNTED', `is not known to be mounted at ${spec.mount.mountPoint}`);
  }

  /**
   * Makes a new PENDING volume: takes a slot, a generation and the claim on its source, all or nothing.
   * @throws ShimError RESOURCE_EXHAUSTED / NO_SLOT, FAILED_PRECONDITION / BACKING_IN_USE, ALREADY_EXISTS / SERIAL_IN_USE
   */
  add(volumeId: string, spec: VolumeSpec, backing: Backing): Volume {
    const { sandboxId, claims } = this.#options;
    this.checkSerial(spec.serial);
    const generation = this.#nextGeneration;
    claims.claim(backing, this.#owner(volumeId, generation), !spec.readOnly);
    const slot = this.#slots.take(generation);
    if (slot === undefined) {
      claims.release(backing.identity, this.#owner(volumeId, generation));
      throw new ShimError(
        'RESOURCE_EXHAUSTED',
        `all ${this.#slots.capacity} volume slots of sandbox ${sandboxId} are taken`,
        {
          reason: 'NO_SLOT',
          metadata: { sandboxId, capacity: String(this.#slots.capacity) },
        },
      );
    }
    this.#nextGeneration += 1;
    const identity = {
      sandboxId,
      volumeId,
      generation,
      spec,
      slot,
      placement: this.#placements.take(generation, spec.queues, this.#options.spreadsQueues()),
      backingIdentity: backing.identity,
      resolvedPath: backing.path,
      sizeBytes: backing.sizeBytes,
    };
    const volume = new Volume(identity, this.#options.mutexWaitersMax, {
      blank: backing.blank ?? false,
      unwritten: backing.unwritten ?? false,
    });
    this.#put(volume);
    this.#announce(volume, undefined);
    return volume;
  }

  /** @throws ShimError ALREADY_EXISTS / SERIAL_IN_USE */
  checkSerial(serial: string): void {
    for (const other of this.#volumes.values()) {
      if (other.state.state === 'removed' || other.spec.serial !== serial) continue;
      throw new ShimError('ALREADY_EXISTS', `serial ${serial} is in use by volume ${other.id} of this sandbox`, {
        reason: 'SERIAL_IN_USE',
        metadata: { sandboxId: this.#options.sandboxId, volumeId: other.id, serial },
      });
    }
  }

  /** The guest's device nodes of all volumes that are there, but for one. */
  guestDevices(except: Volume): ReadonlySet<string> {
    const others = [...this.#volumes.values()].filter((volume) => volume !== except && !volume.isRemoved());
    return new Set(others.flatMap(({ guest }) => guest?.device ?? []));
  }

  /** The slots that the next volumes would get. */
  previewSlots(count: number): readonly Slot[] {
    return this.#slots.preview(count);
  }

  /** Gives the placements of the next volumes, one after the other, and takes nothing. */
  previewPlacements(): (generation: number, queues: number) => Placement {
    const book = this.#placements.copy();
    const mapping = this.#options.spreadsQueues();
    return (generation, queues) => book.take(generation, queues, mapping);
  }

  /** Puts back a volume that the journal knows. Its slot and claim are taken unless it is removed. */
  restore(record: JournalVolume): Volume {
    const { state, times, aio, mounted, encryption, creating, ...identity } = record;
    const full = { ...identity, sandboxId: this.#options.sandboxId };
    const volume = new Volume(full, this.#options.mutexWaitersMax, { restored: { state, times } });
    volume.aio = aio;
    volume.mounted = mounted;
    volume.encryption = encryption;
    volume.creating = creating;
    if ('guest' in state) volume.guest = state.guest;
    this.#nextGeneration = Math.max(this.#nextGeneration, record.generation + 1);
    if (volume.state.state !== 'removed') {
      this.#slots.claim(record.slot, record.generation);
      this.#placements.claim(record.generation, record.spec.queues, record.placement);
      const backing = { path: record.resolvedPath, identity: record.backingIdentity, sizeBytes: record.sizeBytes };
      this.#options.claims.claim(backing, this.#owner(volume.id, volume.generation), !volume.spec.readOnly);
    }
    this.#put(volume);
    return volume;
  }

  /** Generations below this number have been given out before. */
  reserveGenerations(nextGeneration: number): void {
    this.#nextGeneration = Math.max(this.#nextGeneration, nextGeneration);
  }

  /**
   * Applies one input: the only place where a volume's state changes. Logs, announces and frees what REMOVED frees.
   * Callers hold the volume's mutex (locking rule 1).
   */
  apply(volume: Volume, input: VolumeInput): Transition {
    const result = transition(volume.state, input);
    if (result.kind === 'next') this.#enter(volume, result.next, input.kind);
    else if (result.kind === 'denied') {
      this.#options.log.debug({ volumeId: volume.id, input: input.kind, reason: result.reason }, 'transition denied');
    }
    return result;
  }

  #enter(volume: Volume, state: VolumeState, input: string): void {
    const before = volume.state;
    volume.state = state;
    if ('guest' in state) volume.guest = state.guest;
    if (state.state !== before.state) volume.times = { ...volume.times, [state.state]: Date.now() };
    if (state.state === 'removed' && before.state !== 'removed') {
      volume.mounted = false;
      this.#slots.release(before.slot, volume.generation);
      this.#placements.release(volume.generation);
      this.#options.claims.release(volume.identity.backingIdentity, this.#owner(volume.id, volume.generation));
      this.#forgetOldest();
    }
    if (state.state !== before.state) this.#announce(volume, input);
  }

  /** Emits the events of present states that were never delivered: the daemon that observed them was killed first. */
  announceMissed(): void {
    const { events, sandboxId } = this.#options;
    for (const volume of this.#volumes.values()) {
      const last = events.latest(sandboxId, volume.id, volume.generation);
      if (last?.type !== `volume.${volume.state.state}`) this.#announce(volume, 'adoption');
    }
  }

  /** Takes note of a new size that was seen, and tells watchers. */
  resized(volume: Volume, sizeBytes: number): void {
    const before = volume.identity.sizeBytes;
    if (before === sizeBytes) return;
    volume.identity = { ...volume.identity, sizeBytes };
    this.#options.log.info({ volumeId: volume.id, before, sizeBytes }, 'volume resized');
    this.#options.events.emit({
      type: 'volume.resized',
      sandboxId: this.#options.sandboxId,
      volumeId: volume.id,
      generation: volume.generation,
      cause: { reason: 'RESIZED', message: `the disk has ${sizeBytes} bytes, it had ${before}` },
      timings: [],
      subject: volume.snapshot(),
    });
  }

  /** Tells watchers how far a job of QEMU's for the volume is; the state stays as it is. */
  setJob(volume: Volume, job: JobProgress | undefined): void {
    const changed = job?.status !== volume.job?.status || job?.current !== volume.job?.current;
    volume.job = job;
    if (!changed || job === undefined) return;
    this.#options.events.emit({
      type: 'volume.job',
      sandboxId: this.#options.sandboxId,
      volumeId: volume.id,
      generation: volume.generation,
      cause: { reason: 'JOB_PROGRESS', message: `${job.type}: ${job.status}, ${job.current} of ${job.total}` },
      timings: [],
      subject: volume.snapshot(),
    });
  }

  /** Tells watchers of a change of health; the state stays as it is. */
  announceHealth(volume: Volume, cause: Cause): void {
    this.#options.events.emit({
      type: 'volume.health',
      sandboxId: this.#options.sandboxId,
      volumeId: volume.id,
      generation: volume.generation,
      cause,
      timings: [],
      subject: volume.snapshot(),
    });
  }

  #announce(volume: Volume, input: string | undefined): void {
    const snapshot = volume.snapshot();
    this.#options.log.info(
      { volumeId: volume.id, generation: volume.generation, state: volume.state.state, input, cause: snapshot.cause },
      'volume state changed',
    );
    this.#options.events.emit({
      type: `volume.${volume.state.state}`,
      sandboxId: this.#options.sandboxId,
      volumeId: volume.id,
      generation: volume.generation,
      cause: snapshot.cause,
      timings: volume.timings,
      subject: snapshot,
    });
  }

  #put(volume: Volume): void {
    // Deleted first, so that the map's order is the order of the newest generations.
    this.#volumes.delete(volume.id);
    this.#volumes.set(volume.id, volume);
  }

  #forgetOldest(): void {
    const removed = [...this.#volumes.values()].filter((volume) => volume.state.state === 'removed');
    for (const volume of removed.slice(0, Math.max(0, removed.length - this.#options.removedRetained))) {
      this.#volumes.delete(volume.id);
    }
  }

  #owner(volumeId: string, generation: number): string {
    return `volume ${volumeId} (generation ${generation}) of sandbox ${this.#options.sandboxId}`;
  }

  /** The volumes as the journal keeps them. */
  records(): readonly JournalVolume[] {
    return this.all().map((volume) => {
      const { sandboxId, ...identity } = volume.identity;
      const { state, times, aio, mounted, encryption, creating } = volume;
      return { ...identity, state, times, aio, mounted, encryption, creating };
    });
  }

  snapshots(): readonly VolumeSnapshot[] {
    return this.all().map((volume) => volume.snapshot());
  }
}
