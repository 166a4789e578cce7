import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ReasonWith } from '../base/reasons.ts';
import type { NewEvent } from '../store/event.ts';
import { causeOf, Volume, type SourceLook, type VolumeSnapshot } from './volume.ts';
import type { BackingClaims, ClaimPurpose } from './claims.ts';
import type { Medium } from './medium.ts';
import type { AioMode } from './model/disk.ts';
import type { Observed, VolumeInput } from './model/facts.ts';
import type { Lease } from './model/lease.ts';
import type { Operation } from './model/operation.ts';
import { PlacementBook, type Placement } from './model/placement.ts';
import { SlotBook, type Asked, type Slot } from './model/slots.ts';
import type { Cause, Evidence, VolumeState } from './model/state.ts';
import type { VolumeRecord } from './record.ts';
import { moduleOf, type SourceSpec } from './source/registry.ts';
import type { Inspection } from './source/module.ts';
import type { VolumeSpec } from './spec.ts';

/**
 * Who has what in one sandbox, and the only door to what is known of a volume:
 *
 *     add ─▶ claim (claims.ts), slot (model/slots.ts), vectors (model/placement.ts), generation ─▶ Volume, PENDING
 *     apply(volume, input) ─▶ volume.observe ─▶ model/facts.ts ─▶ model/state.ts
 *           └─▶ log line, event; on REMOVED slot, vectors and claim are free again
 */

/** Where changes are told. */
export interface VolumeEvents {
  emit(event: NewEvent): void;
  /** The newest event of a generation that is kept. */
  latest(sandboxId: string, volumeId: string, generation: number): { readonly type: string } | undefined;
}

export interface VolumeStoreOptions {
  readonly sandboxId: string;
  readonly capacity: number;
  readonly vcpus: number;
  readonly iothreads: number;
  /** Whether QEMU can spread the virtqueues of a disk over iothreads; known once it runs. */
  readonly spreadsQueues: () => boolean;
  /** Where this VM's QEMU finds the relay for the volume of a generation; undefined: it needs none. */
  readonly relaySocket: (generation: number) => string | undefined;
  readonly log: Logger;
  readonly events: VolumeEvents;
  readonly claims: BackingClaims;
  /** The end of a volume's lease is another one, or there is none any more. */
  readonly leaseChanged: (volume: Volume) => void;
  readonly mutexWaitersMax: number;
  readonly removedRetained: number;
}

/**
 * The volumes of one sandbox: who has which slot, name and source. This is the allocator of locking rule 2, and its
 * lock is JavaScript's own: every method runs to its end without an await, so nothing can come in between and it can
 * never be held across QEMU or the guest.
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
   * @throws ShimError ALREADY_EXISTS when the id is attached with another spec; FAILED_PRECONDITION while it is
   *   leaving,
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
   * A volume that is attached without what its spec says of the guest is no success for a repeated Attach: a detach
   * that was refused half-way, or a reset of the guest, has taken away the mount or closed the encryption.
   */
  #refuseHalf({ id, spec, state }: Volume): void {
    if (state.state !== 'attached') return;
    const lacks = (evidence: Evidence): boolean => !state.guest.evidence.includes(evidence);
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
   * @throws ShimError the first of `refusals`
   */
  add(volumeId: string, spec: VolumeSpec, source: Inspection<SourceSpec>, lease?: Lease): Volume {
    const { sandboxId, claims, mutexWaitersMax, relaySocket } = this.#options;
    const [refusal] = this.refusals(volumeId, spec, source);
    if (refusal !== undefined) throw refusal;
    const generation = this.#nextGeneration;
    const slot = this.#slots.take(generation);
    if (slot === undefined) throw this.#noSlot();
    claims.claim(claimed(source), this.#owner(volumeId, generation), !spec.readOnly);
    this.#nextGeneration += 1;
    const identity = {
      sandboxId,
      volumeId,
      generation,
      spec,
      slot,
      placement: this.#placements.take(generation, spec.queues, this.#options.spreadsQueues()),
      backingIdentity: source.identity,
      resolvedPath: claimed(source).described,
    };
    const { endsInSector, blank = false, emptiness } = source;
    const look: SourceLook = { endsInSector, blank, emptiness };
    const { sizeBytes } = source;
    const volume = Volume.begin(identity, { mutexWaitersMax, relaySocket, sizeBytes, look, lease });
    this.#put(volume);
    this.#announceState(volume, undefined);
    if (lease?.untilMs !== undefined) this.#options.leaseChanged(volume);
    return volume;
  }

  /**
   * Every reason why a volume could not be added now: SERIAL_IN_USE, GUEST_MOUNT_POINT_BUSY, BACKING_IN_USE, NO_SLOT.
   * @param source left out: it could not be looked at, which is a reason of its own
   * @param others volumes of the same request that come before it
   */
  refusals(
    volumeId: string,
    spec: VolumeSpec,
    source: Inspection<SourceSpec> | undefined,
    others: readonly Wanted[] = [],
  ): readonly ShimError[] {
    const { claims } = this.#options;
    const problems = [this.#serialInUse(spec.serial), this.#mountPointTaken(spec)];
    if (source !== undefined) {
      problems.push(claims.conflict(claimed(source), this.#owner(volumeId, this.#nextGeneration), !spec.readOnly));
    }
    problems.push(...others.flatMap((other) => clash({ volumeId, spec, source }, other)));
    if (this.#slots.preview(others.length + 1).length <= others.length) problems.push(this.#noSlot());
    return problems.filter((problem) => problem !== undefined);
  }

  #serialInUse(serial: string): ShimError | undefined {
    for (const other of this.#volumes.values()) {
      if (other.state.state === 'removed' || other.spec.serial !== serial) continue;
      return new ShimError('ALREADY_EXISTS', `serial ${serial} is in use by volume ${other.id} of this sandbox`, {
        reason: 'SERIAL_IN_USE',
        metadata: { sandboxId: this.#options.sandboxId, volumeId: other.id, serial },
      });
    }
    return undefined;
  }

  /** The guest covers no mount: it would refuse only after the disk is there, and encrypted. */
  #mountPointTaken({ mount }: VolumeSpec): ShimError | undefined {
    if (mount === undefined) return undefined;
    const holder = this.all().find(({ spec, state }) => {
      if (spec.mount?.mountPoint !== mount.mountPoint) return false;
      if (state.state === 'attached') return state.guest.evidence.includes('guest-mount');
      return state.state === 'pending' && state.phase === 'attaching';
    });
    return holder && mountPointTaken(mount.mountPoint, holder.id, `volume ${holder.id} of this sandbox`);
  }

  #noSlot(): ShimError {
    const { sandboxId } = this.#options;
    return new ShimError(
      'RESOURCE_EXHAUSTED',
      `all ${this.#slots.capacity} volume slots of sandbox ${sandboxId} are taken`,
      {
        reason: 'NO_SLOT',
        metadata: { sandboxId, capacity: String(this.#slots.capacity) },
      },
    );
  }

  /** The guest's device nodes of all volumes that are there, but for one. */
  guestDevices(except: Volume): ReadonlySet<string> {
    const others = [...this.#volumes.values()].filter((volume) => volume !== except && !volume.isRemoved());
    return new Set(others.flatMap(({ guest }) => guest?.device ?? []));
  }

  /** As SlotBook.asking. */
  asking(): Asked {
    return this.#slots.asking();
  }

  /** As SlotBook.passed. */
  passed(asked: Asked): void {
    this.#slots.passed(asked);
  }

  /** As SlotBook.isSettled. */
  isSettled(slot: Slot): boolean {
    return this.#slots.isSettled(slot);
  }

  /** As SlotBook.distrust. */
  distrustSlots(): void {
    this.#slots.distrust();
  }

  /** Where QEMU would find the relay for a volume of this generation; undefined: it needs none. */
  relaySocket(source: SourceSpec, generation: number): string | undefined {
    return moduleOf(source).server === undefined ? undefined : this.#options.relaySocket(generation);
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
  restore(record: VolumeRecord): Volume {
    const { sandboxId, mutexWaitersMax, relaySocket, claims } = this.#options;
    const volume = Volume.restore(record, { sandboxId, mutexWaitersMax, relaySocket });
    this.#nextGeneration = Math.max(this.#nextGeneration, record.generation + 1);
    if (volume.state.state !== 'removed') {
      this.#slots.claim(record.slot, record.generation);
      this.#placements.claim(record.generation, record.spec.queues, record.placement);
      const source = { described: record.resolvedPath, identity: record.backingIdentity };
      claims.claim(source, this.#owner(volume.id, volume.generation), !volume.spec.readOnly, 'held');
      for (const medium of volume.otherMedia) this.#claimMedium(volume, medium, 'held');
    }
    this.#nextGeneration = Math.max(this.#nextGeneration, ...mediumNumbers(volume).map((number) => number + 1));
    this.#put(volume);
    return volume;
  }

  /** A number for another medium of a volume, from the counter of generations: QEMU's names hold it, and no two do. */
  nextMedium(): number {
    const number = this.#nextGeneration;
    this.#nextGeneration += 1;
    return number;
  }

  /**
   * Takes the claim on another medium for a volume: its present one is to be copied there. Once more for the same
   * number: its file has been made, or QEMU has opened it.
   * @throws ShimError FAILED_PRECONDITION / BACKING_IN_USE
   */
  putMedium(volume: Volume, medium: Medium): void {
    this.#claimMedium(volume, medium);
    volume.setOtherMedia([...volume.otherMedia.filter(({ number }) => number !== medium.number), medium]);
  }

  /** The bytes of a medium that is new are all about to be replaced. */
  #claimMedium(volume: Volume, { backingIdentity, resolvedPath }: Medium, purpose: ClaimPurpose = 'overwrite'): void {
    if (backingIdentity === '') return;
    const { claims } = this.#options;
    const owner = this.#owner(volume.id, volume.generation);
    if (backingIdentity === volume.identity.backingIdentity) {
      throw new ShimError('FAILED_PRECONDITION', `${resolvedPath} is where volume ${volume.id} is already`, {
        reason: 'BACKING_IN_USE',
        metadata: { path: resolvedPath, holder: owner },
      });
    }
    claims.claim({ identity: backingIdentity, described: resolvedPath }, owner, true, purpose);
  }

  /** The device was seen to be on that medium. The one before is one of the others, its claim is held. */
  switchMedium(volume: Volume, number: number): void {
    const medium = volume.otherMedium(number);
    if (medium === undefined) throw new Error(`volume ${volume.id} has no medium ${number}`);
    volume.moveTo(medium);
    this.apply(volume, { kind: 'opened', aio: medium.aio });
    this.#options.log.info({ volumeId: volume.id, medium: number }, 'volume is on another medium');
  }

  /** QEMU was seen to have nothing of that medium any more: its claim is free. */
  dropMedium(volume: Volume, number: number): void {
    const medium = volume.otherMedium(number);
    if (medium === undefined) return;
    volume.setOtherMedia(volume.otherMedia.filter((one) => one !== medium));
    this.#releaseMedium(volume, medium);
  }

  #releaseMedium(volume: Volume, { backingIdentity }: Medium): void {
    this.#options.claims.release(backingIdentity, this.#owner(volume.id, volume.generation));
  }

  /** Generations below this number have been given out before. */
  reserveGenerations(nextGeneration: number): void {
    this.#nextGeneration = Math.max(this.#nextGeneration, nextGeneration);
  }

  /**
   * Applies one input: the only place where what is known of a volume changes. Logs, announces and frees what REMOVED
   * frees.
   *
   * Who applies an input that may move the state (StateInput) holds the volume's mutex: what decides it was looked at
   * before, and must still be so (locking rules 1 and 4). The others tell one whole fact, change no state and are
   * applied at once; a progress or an I/O error must not wait for an image that is being made.
   */
  apply(volume: Volume, input: VolumeInput): Observed['result'] {
    const { state: before, lease } = volume;
    const { result, news } = volume.observe(input);
    if (result.kind === 'denied') {
      this.#options.log.debug({ volumeId: volume.id, input: input.kind, reason: result.reason }, 'transition denied');
    }
    if (news !== undefined) {
      this.#options.log.info({ volumeId: volume.id, news: news.type, cause: news.cause }, 'volume news');
      this.#emit(volume, news.type, news.cause, []);
    }
    if (result.kind === 'next') this.#entered(volume, before, input.kind);
    if (volume.lease?.untilMs !== lease?.untilMs || input.kind === 'lease-given') this.#options.leaseChanged(volume);
    return result;
  }

  #entered(volume: Volume, before: VolumeState, input: string): void {
    const { state } = volume;
    if (state.state === before.state) return;
    if (before.state !== 'removed' && state.state === 'removed') {
      this.#slots.release(before.slot, volume.generation);
      this.#placements.release(volume.generation);
      this.#options.claims.release(volume.identity.backingIdentity, this.#owner(volume.id, volume.generation));
      for (const medium of volume.otherMedia) this.dropMedium(volume, medium.number);
      this.#forgetOldest();
    }
    this.#announceState(volume, input);
  }

  /**
   * Takes the volume's exclusive slot for an operation.
   * @param id the caller's; undefined: one is made
   * @throws ShimError FAILED_PRECONDITION / OPERATION_IN_PROGRESS that names the one that has it; ALREADY_EXISTS /
   *   OPERATION_EXISTS
   */
  begin(volume: Volume, operation: Operation, id: string = randomUUID()): void {
    const { operation: other } = volume;
    const { sandboxId } = this.#options;
    if (other !== undefined) {
      throw new ShimError(
        'FAILED_PRECONDITION',
        `volume ${volume.id} is in the midst of another operation: ${other.kind}`,
        {
          reason: 'OPERATION_IN_PROGRESS',
          metadata: { sandboxId, volumeId: volume.id, operation: other.kind },
        },
      );
    }
    const holder = this.withOperation(id);
    if (holder !== undefined) {
      throw new ShimError('ALREADY_EXISTS', `operation ${id} exists already, of volume ${holder.id}`, {
        reason: 'OPERATION_EXISTS',
        metadata: { sandboxId, volumeId: holder.id, operationId: id },
      });
    }
    this.apply(volume, { kind: 'operation-begun', operation, tag: { id, startedMs: Date.now() } });
  }

  /** The volume that has, or had, an operation of this id. */
  withOperation(id: string): Volume | undefined {
    return this.all().find(
      ({ operationTag, outcomes }) => operationTag?.id === id || outcomes.some((outcome) => outcome.id === id),
    );
  }

  /** Emits the events of present states that were never delivered: the daemon that observed them was killed first. */
  announceMissed(): void {
    const { events, sandboxId } = this.#options;
    for (const volume of this.#volumes.values()) {
      const last = events.latest(sandboxId, volume.id, volume.generation);
      if (last?.type !== `volume.${volume.state.state}`) this.#announceState(volume, 'adoption');
    }
  }

  #announceState(volume: Volume, input: string | undefined): void {
    const { id: volumeId, generation, state, timings } = volume;
    const cause = causeOf(state);
    this.#options.log.info({ volumeId, generation, state: state.state, input, cause }, 'volume state changed');
    this.#emit(volume, `volume.${state.state}`, cause, timings);
  }

  #emit(volume: Volume, type: NewEvent['type'], cause: Cause | undefined, timings: NewEvent['timings']): void {
    const { id: volumeId, generation } = volume;
    const { sandboxId } = this.#options;
    this.#options.events.emit({ type, sandboxId, volumeId, generation, cause, timings, subject: volume.snapshot() });
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
  records(): readonly VolumeRecord[] {
    return this.all().map((volume) => volume.record());
  }

  snapshots(): readonly VolumeSnapshot[] {
    return this.all().map((volume) => volume.snapshot());
  }
}

function mediumNumbers({ names, otherMedia }: Volume): readonly number[] {
  return [names.medium, ...otherMedia.map(({ number }) => number)];
}

/** A volume of a request, as far as it is known before it is made. */
export interface Wanted {
  readonly volumeId: string;
  readonly spec: VolumeSpec;
  readonly source: Inspection<SourceSpec> | undefined;
}

function claimed({ resolved, identity }: Inspection<SourceSpec>): {
  readonly described: string;
  readonly identity: string;
} {
  return { described: moduleOf(resolved).describe(resolved), identity };
}

/** Reasons that lie in another volume of the same request. */
function clash({ spec, source }: Wanted, other: Wanted): readonly ShimError[] {
  const found: ShimError[] = [];
  const { volumeId: holder } = other;
  const writable = !spec.readOnly || !other.spec.readOnly;
  if (source !== undefined && source.identity === other.source?.identity && writable) {
    const { described: path } = claimed(source);
    found.push(
      new ShimError('FAILED_PRECONDITION', `${path} is wanted by volume ${holder} of the same batch`, {
        reason: 'BACKING_IN_USE',
        metadata: { path, holder },
      }),
    );
  }
  if (spec.serial === other.spec.serial) {
    found.push(
      new ShimError('ALREADY_EXISTS', `serial ${spec.serial} is wanted by volume ${holder} of the same batch`, {
        reason: 'SERIAL_IN_USE',
        metadata: { volumeId: holder, serial: spec.serial },
      }),
    );
  }
  if (spec.mount !== undefined && spec.mount.mountPoint === other.spec.mount?.mountPoint) {
    found.push(mountPointTaken(spec.mount.mountPoint, holder, `volume ${holder} of the same batch`));
  }
  return found;
}

function mountPointTaken(mountPoint: string, volumeId: string, holder: string): ShimError {
  return new ShimError('FAILED_PRECONDITION', `${mountPoint} is the mount point of ${holder}`, {
    reason: 'GUEST_MOUNT_POINT_BUSY',
    metadata: { mountPoint, volumeId },
  });
}
