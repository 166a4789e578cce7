import { randomUUID } from 'node:crypto';
import { BoundedMutex } from '../base/mutex.ts';
import type { Timing } from '../base/stopwatch.ts';
import type { DiskArrival } from '../guest/disk-arrivals.ts';
import type { Seat } from './front-end/module.ts';
import type { AioMode } from './model/disk.ts';
import type { Draw } from './model/draw.ts';
import type { Emptiness } from './model/emptiness.ts';
import type { EncryptionView, ImageCreation } from './model/encryption.ts';
import {
  NOTHING_MADE,
  observe,
  type JobProgress,
  type MadeInGuest,
  type Observed,
  type StateTimes,
  type VolumeFacts,
  type VolumeHealth,
  type VolumeInput,
} from './model/facts.ts';
import type { IoLimits } from './model/limits.ts';
import type { Medium } from './medium.ts';
import { namesFor, numberOf, type QemuNames } from './model/names.ts';
import { mirrorObject, type MirrorJob, type QemuObject } from './model/objects.ts';
import type { Lease } from './model/lease.ts';
import { NO_OPERATION, operationViews } from './model/operating.ts';
import type { Operation, OperationTag, OperationView, Outcome } from './model/operation.ts';
import { pciPath } from './model/slots.ts';
import type { Cause, GuestView, VolumeState } from './model/state.ts';
import { objectsOf } from './plan.ts';
import type { VolumeRecord } from './record.ts';
import { moduleOf, type SourceSpec } from './source/registry.ts';
import type { VolumeSpec } from './spec.ts';

/** What a generation of a volume is, and where its bytes are: a move (VolumeStore.switchMedium) changes that alone. */
export interface VolumeIdentity extends Seat {
  readonly sandboxId: string;
  readonly volumeId: string;
  readonly generation: number;
  readonly spec: VolumeSpec;
  /** Claims on the source go by it. */
  readonly backingIdentity: string;
  /** The source as QEMU opens it, in one word: a path with every symbolic link resolved. */
  readonly resolvedPath: string;
}

/** What was seen of the source when it was looked at, and matters until the volume is there. */
export interface SourceLook {
  /** Its bytes on the host end with a whole sector of 512. */
  readonly endsInSector: boolean;
  /** Its source was seen to be empty, and is to be made an encrypted image first. */
  readonly blank: boolean;
  readonly emptiness: Emptiness;
}

/** A volume as callers and watchers see it: a copy, safe to keep. */
export interface VolumeSnapshot extends VolumeIdentity {
  readonly state: VolumeState;
  readonly sizeBytes: number;
  readonly pciPath: string;
  readonly guest: GuestView | undefined;
  readonly cause: Cause | undefined;
  readonly aio: AioMode | undefined;
  readonly times: StateTimes;
  readonly timings: readonly Timing[];
  readonly health: VolumeHealth;
  readonly encryption: EncryptionView | undefined;
  readonly job: JobProgress | undefined;
  /** Those that have ended, as far as they are kept, then the one under way. */
  readonly operations: readonly OperationView[];
  readonly limits: IoLimits | undefined;
  readonly lease: Lease | undefined;
  readonly draw: Draw | undefined;
}

/** How a medium is copied to another. */
export interface MirrorOptions {
  /** 0: no limit. */
  readonly speedBytesPerS: number;
  /** `stop`: the job waits, as the VM does; `report`: it ends. */
  readonly onSourceError: 'report' | 'stop';
}

const DEFAULT_MIRROR: MirrorOptions = { speedBytesPerS: 0, onSourceError: 'report' };

interface Media {
  readonly medium: number;
  readonly otherMedia: readonly Medium[];
}

interface VolumeOptions {
  readonly mutexWaitersMax: number;
  /** Where QEMU finds the relay for the volume of a generation; undefined where it needs none. */
  readonly relaySocket: (generation: number) => string | undefined;
}

/**
 * One generation of a volume: what never changes, what is known (model/facts.ts), and the work that is under way for
 * it.
 *
 * INVARIANT: what is known changes only through VolumeStore.apply; its state, only under `mutex`.
 */
export class Volume {
  readonly mutex: BoundedMutex;
  readonly look: SourceLook;
  readonly #relaySocket: VolumeOptions['relaySocket'];
  #identity: VolumeIdentity;
  #names: QemuNames;
  #otherMedia: readonly Medium[];
  #facts: VolumeFacts;
  #arrival: DiskArrival | undefined;
  #attaching: Promise<void> | undefined;
  #removal: Promise<void> | undefined;
  #operating: Promise<void> | undefined;
  #question: AbortController | undefined;
  #cancellation: AbortController | undefined;
  #asking = false;
  #nudged = Promise.withResolvers<void>();

  private constructor(
    identity: VolumeIdentity,
    options: VolumeOptions,
    facts: VolumeFacts,
    look: SourceLook,
    media: Media = { medium: 0, otherMedia: [] },
  ) {
    const { mutexWaitersMax, relaySocket } = options;
    this.#identity = identity;
    this.#relaySocket = relaySocket;
    this.#names = namesFor(identity.volumeId, identity.generation, media.medium);
    this.#otherMedia = media.otherMedia;
    this.mutex = new BoundedMutex(`volume ${identity.volumeId}`, mutexWaitersMax);
    this.#facts = facts;
    this.look = look;
  }

  /** A PENDING volume that nobody has told QEMU of yet. */
  static begin(
    identity: VolumeIdentity,
    options: VolumeOptions & {
      readonly sizeBytes: number;
      readonly look: SourceLook;
      readonly lease: Lease | undefined;
    },
  ): Volume {
    const facts: VolumeFacts = {
      state: { state: 'pending', phase: 'attaching', slot: identity.slot },
      times: { pending: Date.now(), attached: undefined, detaching: undefined, removed: undefined },
      ...{
        timings: [],
        sizeBytes: options.sizeBytes,
        askedBytes: undefined,
        guest: undefined,
        made: NOTHING_MADE,
        aio: undefined,
      },
      ...{ encryption: undefined, creating: undefined, job: undefined, heldBy: undefined },
      ...NO_OPERATION,
      limits: undefined,
      lease: options.lease,
      draw: undefined,
      health: { failing: false, errors: 0 },
    };
    return new Volume(identity, options, facts, options.look);
  }

  /** One that the journal, or QEMU, knows. */
  static restore(record: VolumeRecord, options: VolumeOptions & { readonly sandboxId: string }): Volume {
    const { state, times, sizeBytes, aio, mounted, encryption, creating, ...others } = record;
    const { operation, operationTag, outcomes = [], limits, lease, draw, ...rest } = others;
    const { medium = 0, otherMedia = [], ...identity } = rest;
    const facts: VolumeFacts = {
      ...{ state, times, timings: [], sizeBytes, aio, encryption, creating, job: undefined },
      ...{ operation, outcomes, progress: undefined, lease },
      // One that an earlier version has begun has none.
      operationTag: operation === undefined ? undefined : (operationTag ?? { id: randomUUID(), startedMs: Date.now() }),
      heldBy: undefined,
      limits,
      draw,
      // The resize that was under way may have been seen to give more than it asked for.
      askedBytes: operation?.kind === 'resize' ? operation.sizeBytes : undefined,
      guest: 'guest' in state ? state.guest : undefined,
      // Which of the two may be there the record does not say: both are looked for.
      made: {
        mapping: mounted && identity.spec.encryption?.kind === 'guest-luks2',
        mount: mounted && identity.spec.mount !== undefined,
      },
      health: { failing: false, errors: 0 },
    };
    const look = { endsInSector: true, blank: false, emptiness: 'look' } as const;
    return new Volume({ ...identity, sandboxId: options.sandboxId }, options, facts, look, { medium, otherMedia });
  }

  get identity(): VolumeIdentity {
    return this.#identity;
  }

  /** What it is called in QEMU, on its present medium. */
  get names(): QemuNames {
    return this.#names;
  }

  /** The socket by which QEMU reaches the source's server (relays.ts); undefined: by itself, or there is none. */
  get relay(): string | undefined {
    return this.#relayOf(this.spec.source, this.#names);
  }

  /** Those that QEMU may have open beside the one that the device is on. */
  get otherMedia(): readonly Medium[] {
    return this.#otherMedia;
  }

  otherMedium(number: number): Medium | undefined {
    return this.#otherMedia.find((one) => one.number === number);
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

  get state(): VolumeState {
    return this.#facts.state;
  }

  get sizeBytes(): number {
    return this.#facts.sizeBytes;
  }

  get askedBytes(): number | undefined {
    return this.#facts.askedBytes;
  }

  get guest(): GuestView | undefined {
    return this.#facts.guest;
  }

  get made(): MadeInGuest {
    return this.#facts.made;
  }

  get aio(): AioMode | undefined {
    return this.#facts.aio;
  }

  get encryption(): EncryptionView | undefined {
    return this.#facts.encryption;
  }

  get creating(): ImageCreation | undefined {
    return this.#facts.creating;
  }

  get operation(): Operation | undefined {
    return this.#facts.operation;
  }

  get operationTag(): OperationTag | undefined {
    return this.#facts.operationTag;
  }

  get outcomes(): readonly Outcome[] {
    return this.#facts.outcomes;
  }

  get draw(): Draw | undefined {
    return this.#facts.draw;
  }

  get limits(): IoLimits | undefined {
    return this.#facts.limits;
  }

  get heldBy(): string | undefined {
    return this.#facts.heldBy;
  }

  get lease(): Lease | undefined {
    return this.#facts.lease;
  }

  get timings(): readonly Timing[] {
    return this.#facts.timings;
  }

  get health(): VolumeHealth {
    return this.#facts.health;
  }

  /** The source as QEMU opens it. */
  get resolved(): SourceSpec {
    const { spec, resolvedPath } = this.identity;
    return moduleOf(spec.source).resolved(spec.source, resolvedPath);
  }

  /** What it is in QEMU on its present medium, in order; with what may be there while an image is being made. */
  objects(aio: AioMode | undefined = this.aio, creates = true): readonly QemuObject[] {
    const { spec, identity, names, resolved, relay } = this;
    return objectsOf({ spec, names, resolved, seat: identity, relay }, aio, creates);
  }

  /** All that QEMU may have of it, in an order in which it can be taken away from the last one on. */
  everyObject(): readonly QemuObject[] {
    const own = this.objects();
    const others = this.#otherMedia.flatMap((one) => [...this.objectsOn(one), this.mirrorTo(one)]);
    // The job that has brought it here may wait to be dismissed.
    const last = this.#names.medium === 0 ? [] : [this.mirrorTo({ number: this.#names.medium })];
    const device = own.filter(({ type }) => type === 'device');
    return [...own.filter(({ type }) => type !== 'device'), ...others, ...last, ...device];
  }

  /** What another medium is in QEMU, in order, without a device. */
  objectsOn(medium: Medium, aio: AioMode | undefined = medium.aio, creates = true): readonly QemuObject[] {
    const spec = specOn(this.spec, medium);
    const resolved = resolvedOf(medium);
    const names = this.namesOn(medium);
    const planned = { spec, names, resolved, seat: this.#identity, relay: this.relayOf(medium) };
    return objectsOf(planned, aio, creates).filter(({ type }) => type !== 'device');
  }

  namesOn({ number }: Pick<Medium, 'number'>): QemuNames {
    return namesFor(this.id, this.generation, number);
  }

  /** As `relay`, of another medium. */
  relayOf(medium: Medium): string | undefined {
    return this.#relayOf(medium.source, this.namesOn(medium));
  }

  /** The sources of all its media, as QEMU opens them. */
  openSources(): readonly { readonly relay: string | undefined; readonly resolved: SourceSpec }[] {
    const others = this.#otherMedia.map((one) => ({ relay: this.relayOf(one), resolved: resolvedOf(one) }));
    return [{ relay: this.relay, resolved: this.resolved }, ...others];
  }

  /** The sockets of all its media. */
  get relays(): readonly string[] {
    return [this.relay, ...this.#otherMedia.map((one) => this.relayOf(one))].filter((socket) => socket !== undefined);
  }

  #relayOf(source: SourceSpec, names: QemuNames): string | undefined {
    return moduleOf(source).server === undefined ? undefined : this.#relaySocket(numberOf(names));
  }

  /** The job that copies the present medium to another; with its options left out, as it is looked for. */
  mirrorTo(to: Pick<Medium, 'number'>, options: MirrorOptions = DEFAULT_MIRROR): MirrorJob {
    const { root, mirror } = this.namesOn(to);
    return mirrorObject({
      ...{ 'job-id': mirror.job, device: this.#names.root, target: root, sync: 'full' },
      ...{ 'copy-mode': 'write-blocking', 'filter-node-name': mirror.filter, 'auto-dismiss': false },
      ...{ speed: options.speedBytesPerS, 'on-source-error': options.onSourceError, 'on-target-error': 'report' },
    });
  }

  /** For VolumeStore alone, which has the claims. */
  setOtherMedia(media: readonly Medium[]): void {
    this.#otherMedia = media;
  }

  /** For VolumeStore alone: the device is on another medium; the one before is one of the others. */
  moveTo(medium: Medium): void {
    const { spec, resolvedPath, backingIdentity } = this.#identity;
    const before: Medium = {
      ...{ number: this.#names.medium, source: spec.source, resolvedPath, backingIdentity, aio: this.aio },
      ...(spec.encryption?.kind === 'host-luks' ? { encryption: spec.encryption } : {}),
    };
    this.#otherMedia = this.#otherMedia.map((one) => (one.number === medium.number ? before : one));
    this.#identity = {
      ...this.#identity,
      ...{ spec: specOn(spec, medium), resolvedPath: medium.resolvedPath, backingIdentity: medium.backingIdentity },
    };
    this.#names = this.namesOn(medium);
  }

  isRemoved(): boolean {
    return this.state.state === 'removed';
  }

  /** Takes note of news. For VolumeStore.apply alone, which logs, announces, and frees what REMOVED frees. */
  observe(input: VolumeInput): Observed {
    const observed = observe(this.#facts, input, Date.now());
    this.#facts = observed.facts;
    return observed;
  }

  /**
   * Its disk, as the guest's kernel announces it; from before QEMU gets the device. Not there for what was found in
   * QEMU.
   */
  get arrival(): DiskArrival | undefined {
    return this.#arrival;
  }

  /** A disk is expected at its address. Once: what was expected before stays. */
  expect(arrival: () => DiskArrival): void {
    this.#arrival ??= arrival();
  }

  /** The attach in progress; repeats of Attach join it. */
  get attaching(): Promise<void> | undefined {
    return this.#attaching;
  }

  /** The removal in progress; repeats of Detach join it. */
  get removal(): Promise<void> | undefined {
    return this.#removal;
  }

  /** Keeps the promise of an attach until it settles; it is the caller's to see to its failure. */
  attachBy(work: Promise<void>): Promise<void> {
    const kept = work.finally(() => {
      if (this.#attaching === kept) this.#attaching = undefined;
    });
    this.#attaching = kept;
    return kept;
  }

  /** Keeps the promise of a removal until it settles; it is the caller's to see to its failure. */
  removeBy(work: Promise<void>): Promise<void> {
    const kept = work.finally(() => {
      if (this.#removal === kept) this.#removal = undefined;
    });
    this.#removal = kept;
    return kept;
  }

  /** A detach waits for the guest to say who uses the disk, or for the way back to ATTACHED; nothing was taken yet. */
  get asking(): boolean {
    return this.#asking;
  }

  /** A detach asks the guest to let go. The signal says that its answer is not needed any more. */
  ask(): AbortSignal {
    this.#asking = true;
    this.#question = new AbortController();
    return this.#question.signal;
  }

  /** The guest has answered, or the detach goes on without. */
  answered(): void {
    this.#asking = false;
  }

  /** Force has come: no answer is needed any more. */
  hurry(): void {
    this.#question?.abort(new Error('the answer is not needed any more'));
  }

  /** The operation in progress; the same one again joins it. */
  get operating(): Promise<void> | undefined {
    return this.#operating;
  }

  /** Keeps the promise of an operation until it settles; it is the caller's to see to its failure. */
  operateBy(work: Promise<void>): Promise<void> {
    const kept = work.finally(() => {
      if (this.#operating === kept) this.#operating = undefined;
    });
    this.#operating = kept;
    return kept;
  }

  /** For the work of an operation: aborted when somebody wants it cancelled. */
  cancellation(): AbortSignal {
    this.#cancellation = new AbortController();
    if (this.operationTag?.cancelAsked === true) this.cancel();
    return this.#cancellation.signal;
  }

  /** Tells the work of the operation under way. What is on record says so already (VolumeStore.cancel). */
  cancel(): void {
    this.#cancellation?.abort(new OperationCancelled());
  }

  /** Resolves when somebody wants the operation's work to look again. */
  nudged(): Promise<void> {
    return this.#nudged.promise;
  }

  /** Has the work of an operation look again. */
  nudge(): void {
    this.#nudged.resolve();
    this.#nudged = Promise.withResolvers();
  }

  record(): VolumeRecord {
    const { sandboxId: _sandboxId, ...identity } = this.#identity;
    const { medium } = this.#names;
    const { state, times, sizeBytes, aio, made, encryption, creating } = this.#facts;
    const { operation, operationTag, outcomes, limits, lease, draw } = this.#facts;
    return {
      ...identity,
      ...{ state, times, sizeBytes, aio, mounted: made.mapping || made.mount, encryption, creating },
      // Left out when there is none, so that the version before can read the record.
      ...(operation === undefined ? {} : { operation, operationTag }),
      ...(outcomes.length === 0 ? {} : { outcomes }),
      ...(limits === undefined ? {} : { limits }),
      ...(medium === 0 ? {} : { medium }),
      ...(this.#otherMedia.length === 0 ? {} : { otherMedia: this.#otherMedia }),
      ...(lease === undefined ? {} : { lease }),
      ...(draw === undefined ? {} : { draw }),
    };
  }

  snapshot(): VolumeSnapshot {
    const { state, sizeBytes, guest, aio, times, timings, health, encryption, job, limits, lease, draw } = this.#facts;
    return {
      ...this.identity,
      operations: operationViews(this.#facts),
      ...{ state, sizeBytes, guest, aio, times, timings, health, encryption, job, limits, lease, draw },
      pciPath: pciPath(this.identity.slot),
      cause: causeOf(state),
    };
  }
}

/** What a volume is asked to be on another medium: the same disk, of other bytes on the host. */
export function specOn(spec: VolumeSpec, { source, encryption }: Pick<Medium, 'source' | 'encryption'>): VolumeSpec {
  return { ...spec, source, encryption: encryption ?? spec.encryption };
}

function resolvedOf({ source, resolvedPath }: Medium): SourceSpec {
  return moduleOf(source).resolved(source, resolvedPath);
}

/** Why the signal of an operation's work is aborted. */
export class OperationCancelled extends Error {
  constructor() {
    super('the operation is to be cancelled');
  }
}

/** The cause that a state carries, if any. */
export function causeOf(state: VolumeState): Cause | undefined {
  if (state.state === 'attached') return state.refused;
  if (state.state === 'pending' && state.phase === 'attaching') return undefined;
  return state.cause;
}
