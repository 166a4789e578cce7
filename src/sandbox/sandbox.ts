import { setMaxListeners } from 'node:events';
import { join } from 'node:path';
import { ShimError, messageOf } from '../base/errors.ts';
import { TokenBucket, type GuestBudget, type HostBudget } from '../base/budget.ts';
import type { Logger } from '../base/log.ts';
import { Paced } from '../base/paced.ts';
import type { Timing } from '../base/stopwatch.ts';
import type { Config } from '../config.ts';
import type { Cell } from '../confine/cells.ts';
import { UNCONFINED, type CellFacts } from '../confine/facts.ts';
import { agentFor, type GuestAgent } from '../guest/agent.ts';
import { Containers } from '../guest/containers/containers.ts';
import { DiskNames } from '../guest/disk-names.ts';
import { DiskHolders } from '../guest/holders.ts';
import { GuestEvents } from '../guest/guest-events.ts';
import type { KeySource } from '../keys/sources.ts';
import type { RunningAccelerator } from '../qemu/argv.ts';
import { sandboxFiles, type SandboxFiles } from '../qemu/files.ts';
import { Inventory } from '../qemu/inventory.ts';
import { describeExit, type ExitInfo, type QemuProcess } from '../qemu/process.ts';
import type { QemuCapabilities } from '../qmp/qemu-capabilities.ts';
import type { QmpClient } from '../qmp/client.ts';
import { QmpLink } from '../qmp/link.ts';
import type { EventType } from '../store/event.ts';
import type { EventLog } from '../store/events.ts';
import { JOURNAL_FILE, Journal, type JournalRecord } from '../store/journal.ts';
import type { BackingClaims } from '../volume/claims.ts';
import type { StaleCopies } from '../volume/stale-copies.ts';
import type { BootImages } from '../volume/boot-images.ts';
import { DriverWatch } from '../volume/driver-wait.ts';
import { Fence } from '../volume/fence.ts';
import { GuestAddresses } from '../volume/guest-addresses.ts';
import type { VolumeHost, Budgets } from '../volume/host.ts';
import { IoErrors } from '../volume/io-errors.ts';
import { Leases } from '../volume/leases.ts';
import type { Cause } from '../volume/model/state.ts';
import { Relays, relaySocket } from '../volume/relays.ts';
import { emptyAgain } from '../volume/removal.ts';
import { VolumeStats } from '../volume/stats/looks.ts';
import { VolumeStore } from '../volume/store.ts';
import { Throttles } from '../volume/throttles.ts';
import { Unplugs } from '../volume/unplugs.ts';
import { GuestCommands } from './exec.ts';
import { SerialPorts } from './ports.ts';
import { watchMonitor } from './heartbeat.ts';
import type { SandboxSpec, SandboxState, StartKind } from './spec.ts';

/** Resets of a guest that are told of and looked after one by one. */
const RESETS_PER_SECOND_MAX = 1;
const RESETS_AT_ONCE_MAX = 5;

/** What every sandbox of a daemon needs. */
export interface SandboxParts {
  readonly config: Config;
  readonly log: Logger;
  readonly events: EventLog;
  readonly claims: BackingClaims;
  readonly staleCopies: StaleCopies;
  readonly budgets: HostBudget;
  readonly keys: KeySource;
  readonly ioBudgets: Budgets;
  /** Called with each new connection to QEMU before anybody else gets it (observe.ts). */
  readonly onConnected: (sandbox: Sandbox, client: QmpClient) => Promise<void>;
  /** Called after a reset of the guest was seen, or several (observe.ts). */
  readonly afterReset: (sandbox: Sandbox) => void;
}

/** What is fixed before QEMU starts. */
export interface SandboxIdentity {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly uuid: string;
  readonly createdAtMs: number;
  readonly directory: string;
}

/** A sandbox as callers and watchers see it: a copy, safe to keep. */
export interface SandboxSnapshot extends SandboxIdentity {
  readonly state: SandboxState;
  readonly cause: Cause | undefined;
  readonly accelerator: RunningAccelerator;
  readonly acceleratorReason: string;
  readonly qemuVersion: string;
  readonly qemuPid: number;
  readonly volumesInUse: number;
  readonly vectors: { readonly all: number; readonly inUse: number };
  readonly timings: readonly Timing[];
  readonly agentReady: boolean;
  readonly runState: string;
  readonly unresponsive: boolean;
  /** Which channel of the guest costs too much, and why; empty while none does. */
  readonly overBudget: string;
  readonly start: StartKind;
  readonly confinement: CellFacts;
  /** What it boots, with every symbolic link resolved; undefined before that is known. */
  readonly images: BootImages | undefined;
}

/** What is known of a VM that is there, or is coming. */
interface Alive {
  /** Undefined until it was started, or found. */
  readonly qemu: QemuProcess | undefined;
  readonly capabilities: QemuCapabilities | undefined;
  /** Counts the resets of the guest that were seen. */
  readonly boot: number;
  /** The guest's agent has answered in this boot. */
  readonly agentReady: boolean;
  /** QEMU's own word for what the machine does. */
  readonly runState: string;
  /** Why QEMU said that it shuts down (QAPI ShutdownCause), when it said so. */
  readonly shutdownReason: string | undefined;
  /** QEMU did not answer its monitor in time when it was asked last (heartbeat.ts). */
  readonly unresponsive: boolean;
}

/** The stop in progress; repeats of Stop join it. */
interface Stop {
  readonly work: Promise<void>;
  /** Resolved when somebody asked for force: the graceful steps are then cut short. */
  readonly hurry: PromiseWithResolvers<void>;
}

/** Where a sandbox is in its life, with what is known only there. */
type Life =
  | (Alive & { readonly state: 'creating' })
  | (Alive & { readonly state: 'running' })
  | (Alive & { readonly state: 'stopping'; readonly cause: Cause | undefined; readonly stop: Stop | undefined })
  | {
      readonly state: 'stopped';
      readonly cause: Cause | undefined;
      readonly capabilities: QemuCapabilities | undefined;
    };

const UNSEEN: Alive = {
  qemu: undefined,
  capabilities: undefined,
  boot: 0,
  agentReady: false,
  runState: '',
  shutdownReason: undefined,
  unresponsive: false,
};

/** How the VM came to run. */
interface Launched {
  readonly accelerator: RunningAccelerator;
  readonly acceleratorReason: string;
  readonly start: StartKind;
  readonly timings: readonly Timing[];
  readonly confinement: CellFacts;
}

/**
 * One VM and what is known of it. Nobody else writes here: what others see they tell by a method that is named after
 * it. The phases of its life have files of their own (boot.ts, adopt.ts, stop.ts), as has the work on its volumes
 * (volume/).
 *
 *     create ─▶ boot.ts ─▶ own(qemu) ─▶ link ─▶ observe.ts ─▶ enter running
 *     volumes ─▶ VolumeHost, which this class implements            │
 *     the end of QEMU, whatever the reason ─▶ #onExit ─▶ every volume REMOVED ─▶ stopped
 */
export class Sandbox implements VolumeHost {
  readonly identity: SandboxIdentity;
  readonly log: Logger;
  readonly files: SandboxFiles;
  readonly link: QmpLink;
  readonly inventory: Inventory;
  /** What the guest may cost, over all of its channels. */
  readonly budget: GuestBudget;
  readonly agent: GuestAgent;
  readonly volumes: VolumeStore;
  readonly addresses = new GuestAddresses();
  readonly disks: DiskNames;
  readonly holders: DiskHolders;
  readonly guestEvents: GuestEvents;
  readonly drivers: DriverWatch;
  readonly unplugs: Unplugs;
  readonly fence: Fence;
  readonly throttles: Throttles;
  readonly relays: Relays;
  readonly ioErrors: IoErrors;
  readonly stats: VolumeStats;
  readonly leases: Leases;
  readonly ports: SerialPorts;
  readonly containers: Containers;
  readonly commands: GuestCommands;
  /** What a reset brings with it. A guest can reset itself again and again. */
  readonly resets: Paced;
  readonly #parts: SandboxParts;
  readonly #journal: Journal;
  /** Ends volume work: the VM is being stopped, is gone, or the daemon leaves it. */
  readonly #gone = new AbortController();
  /** Ends the QMP link: QEMU is gone, or the daemon leaves it. */
  readonly #ended = new AbortController();
  readonly #stopped = Promise.withResolvers<void>();
  #nextBoot = Promise.withResolvers<void>();
  #life: Life = { ...UNSEEN, state: 'creating' };
  #directoryLeft = false;
  #overBudget = '';
  #launched: Launched = {
    accelerator: 'tcg',
    acceleratorReason: '',
    start: { kind: 'cold', templateId: '', reason: '' },
    timings: [],
    confinement: UNCONFINED,
  };
  /** Where QEMU runs. */
  #cell: Cell | undefined;
  /** What QEMU boots, with every symbolic link resolved; undefined before that is known. */
  #images: BootImages | undefined;
  #heldImages: Disposable | undefined;
  /** Keeps the template of a clone from being evicted while its pages are in use. */
  #lease: Disposable | undefined;
  /** Work that nobody waits for, by what it is for; awaited when the sandbox is left. */
  readonly #background = new Set<Promise<void>>();

  /** @param agent a client of this VM's agent that was in use before it became a sandbox; from now on the sandbox's */
  constructor(parts: SandboxParts, identity: SandboxIdentity, agent?: GuestAgent) {
    const { config, events, claims } = parts;
    this.identity = identity;
    this.#parts = parts;
    this.log = parts.log.child({ sandboxId: identity.id });
    this.files = sandboxFiles(identity.directory);
    setMaxListeners(0, this.#gone.signal, this.#ended.signal);
    this.volumes = new VolumeStore({
      sandboxId: identity.id,
      capacity: identity.spec.volumeCapacity,
      vcpus: identity.spec.vcpus,
      iothreads: identity.spec.iothreads,
      spreadsQueues: () => this.capabilities?.iothreadVqMapping ?? false,
      relaySocket: (generation) => (this.confined ? relaySocket(identity.directory, generation) : undefined),
      log: this.log,
      events,
      claims,
      leaseChanged: (volume) => this.leases.changed(volume),
      mutexWaitersMax: config.device_queue_max,
      removedRetained: config.removed_retained,
    });
    this.budget = agent?.budget ?? parts.budgets.guest();
    this.budget.listen({
      over: (channel, what) => this.#wentOverBudget(channel, what),
      calm: () => this.#keptBudget(),
    });
    this.link = new QmpLink({
      connect: {
        path: this.files.qmpSocket,
        log: this.log,
        meter: this.budget.control('qmp'),
        lineBytesMax: config.qmp_line_bytes_max,
        pendingMax: config.qmp_pending_max,
        replyTimeoutMs: config.qmp_reply_timeout_ms,
      },
      log: this.log,
      gone: this.#ended.signal,
      onConnected: (client) => parts.onConnected(this, client),
    });
    this.inventory = new Inventory(this.link);
    this.agent = agent ?? agentFor(this.files.agentSocket, config, this.log, this.budget);
    this.disks = new DiskNames(this.agent);
    this.guestEvents = new GuestEvents(this);
    this.holders = new DiskHolders(this.agent, this.guestEvents);
    this.drivers = new DriverWatch(this);
    this.unplugs = new Unplugs(this);
    this.fence = new Fence(this);
    this.throttles = new Throttles(this);
    this.relays = new Relays({
      log: this.log,
      directory: identity.directory,
      qemu: () => this.qemu?.identity,
      uid: () => this.qemuUid,
      ended: this.#ended.signal,
    });
    this.ioErrors = new IoErrors(this);
    this.stats = new VolumeStats(this);
    this.leases = new Leases(this);
    this.ports = new SerialPorts(this);
    this.containers = new Containers(this);
    this.commands = new GuestCommands(this);
    const rate = new TokenBucket(RESETS_PER_SECOND_MAX, RESETS_AT_ONCE_MAX);
    this.resets = new Paced(rate, this.#gone.signal, () => parts.afterReset(this));
    this.#journal = new Journal(join(identity.directory, JOURNAL_FILE), () => this.#record());
  }

  get id(): string {
    return this.identity.id;
  }

  get labels(): SandboxSpec['labels'] {
    return this.identity.spec.labels;
  }

  get config(): Config {
    return this.#parts.config;
  }

  get keys(): KeySource {
    return this.#parts.keys;
  }

  /** The daemon's budgets of I/O. */
  get ioBudgets(): Budgets {
    return this.#parts.ioBudgets;
  }

  get vcpus(): number {
    return this.identity.spec.vcpus;
  }

  get state(): SandboxState {
    return this.#life.state;
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  get capabilities(): QemuCapabilities | undefined {
    return this.#life.capabilities;
  }

  get blockDrivers(): ReadonlySet<string> | undefined {
    return this.capabilities?.blockDrivers;
  }

  get virtioStatus(): boolean {
    return this.capabilities?.trials['x-query-virtio-status']?.outcome === 'works';
  }

  get binary(): string {
    // The configured name may be one on PATH, and may mean another file by now.
    return this.qemu === undefined ? this.config.qemu_binary : `/proc/${this.qemu.pid}/exe`;
  }

  /** Its QEMU has namespaces of its own. */
  get confined(): boolean {
    const { level, missing } = this.#launched.confinement;
    return level !== 'off' && !missing.some(({ part }) => part === 'namespaces');
  }

  /** The user and group that QEMU has for itself; 0: it has the daemon's. */
  get qemuUid(): number {
    return this.#launched.confinement.uid;
  }

  get qemu(): QemuProcess | undefined {
    return this.#alive.qemu;
  }

  get boot(): number {
    return this.#alive.boot;
  }

  /** Nothing reaches the agent through a QEMU that hangs: it serves the agent's port by the same loop. */
  get agentReady(): boolean {
    return this.#alive.agentReady && !this.#alive.unresponsive;
  }

  get unresponsive(): boolean {
    return this.#alive.unresponsive;
  }

  /** QMP RunState as it was seen last; empty before, and when QEMU is gone. */
  get runState(): string {
    return this.#alive.runState;
  }

  /** Resolves at the next reset of the guest. */
  get nextBoot(): Promise<void> {
    return this.#nextBoot.promise;
  }

  get accelerator(): RunningAccelerator {
    return this.#launched.accelerator;
  }

  get start(): StartKind {
    return this.#launched.start;
  }

  /** The start failed, and the state directory could not be removed then. */
  get directoryLeft(): boolean {
    return this.#directoryLeft;
  }

  get #alive(): Alive {
    return this.#life.state === 'stopped' ? UNSEEN : this.#life;
  }

  /** Resolves once QEMU has been seen to be gone and every volume is REMOVED. */
  get stopped(): Promise<void> {
    return this.#stopped.promise;
  }

  commit(): Promise<void> {
    return this.#journal.commit();
  }

  commitSoon(): void {
    this.inBackground('journal', this.commit());
  }

  /** Keeps a promise that nobody waits for: its failure is logged, and release() awaits it. */
  inBackground(purpose: string, work: Promise<void>): void {
    const kept = work
      .catch((error: unknown) => {
        if (!this.#gone.signal.aborted) this.log.warn({ purpose, problem: messageOf(error) }, 'background work failed');
      })
      .finally(() => this.#background.delete(kept));
    this.#background.add(kept);
  }

  // ---- what others have seen

  #see(seen: Partial<Alive>): void {
    if (this.#life.state !== 'stopped') this.#life = { ...this.#life, ...seen };
  }

  /** How the VM is about to be started. */
  launching(how: Partial<Omit<Launched, 'timings'>>): void {
    this.#launched = { ...this.#launched, ...how };
  }

  /** The directory of a start that failed could not be removed. Its QEMU may have ended already. */
  leftDirectory(): void {
    this.#directoryLeft = true;
  }

  /** QMP is connected, and this is what QEMU can do and does. */
  connected(capabilities: QemuCapabilities): void {
    this.#see({ capabilities });
  }

  sawRunState(runState: string): void {
    this.#see({ runState });
  }

  /** QEMU does not answer its monitor. */
  sawSilence(message: string): void {
    if (this.unresponsive || this.state === 'stopped') return;
    this.#see({ unresponsive: true });
    this.log.warn({ problem: message }, 'qemu does not answer its monitor');
    this.announce('sandbox.unresponsive', { reason: 'QEMU_UNRESPONSIVE', message });
  }

  /** QEMU answers its monitor, again or still. */
  sawAnswer(): void {
    if (!this.unresponsive) return;
    this.#see({ unresponsive: false });
    this.log.info('qemu answers its monitor again');
    this.announce('sandbox.responsive', { reason: 'QEMU_RESPONSIVE', message: 'QEMU answers its monitor again' });
  }

  /** The guest costs the daemon more than its budget: the channel was ended, or rests most of the time. */
  #wentOverBudget(channel: string, what: string): void {
    if (this.state === 'stopped') return;
    this.#overBudget = `${channel}: ${what}`;
    this.log.warn({ channel, problem: what }, 'guest is over its budget');
    const message = `the guest costs the daemon more than it may, over its channel ${this.#overBudget}`;
    this.announce('sandbox.over_budget', { reason: 'GUEST_OVER_BUDGET', message });
  }

  #keptBudget(): void {
    this.#overBudget = '';
    if (this.state === 'stopped') return;
    this.log.info('guest keeps to its budget again');
    this.announce('sandbox.within_budget', {
      reason: 'GUEST_WITHIN_BUDGET',
      message: 'the guest keeps to its budget again',
    });
  }

  sawShutdown(shutdownReason: string): void {
    this.#see({ shutdownReason });
  }

  /** The agent has answered in this boot of the guest. */
  agentAnswered(): void {
    this.#see({ agentReady: true });
    this.inBackground('uevents', this.guestEvents.begin());
  }

  /** A reset ends everything that the last boot of the guest had: its agent, its mounts, its bus numbers. */
  sawReset(): void {
    this.#see({ boot: this.boot + 1, agentReady: false });
    this.#nextBoot.resolve();
    this.#nextBoot = Promise.withResolvers<void>();
    this.addresses.forget();
    this.guestEvents.reset();
    this.commands.guestReset();
  }

  /** Takes charge of the QEMU process: from here its end is noticed. */
  own(qemu: QemuProcess): void {
    this.#see({ qemu });
    void qemu.exited.then((exit) => this.#onExit(exit));
    this.inBackground('heartbeat', watchMonitor(this));
    this.inBackground('stats', this.stats.watch());
  }

  /** Takes charge of the cell that QEMU runs in, until QEMU has ended. */
  holdCell(cell: Cell): void {
    this.#cell = cell;
    this.launching({ confinement: cell.facts });
  }

  /** QEMU has made its sockets: its directory is the daemon's again. @throws the system error */
  async sealCell(): Promise<void> {
    await this.#cell?.seal(this.files);
  }

  /** Holds on to the template that this VM's memory rests on, until QEMU has ended. */
  holdTemplate(lease: Disposable): void {
    this.#lease?.[Symbol.dispose]();
    this.#lease = lease;
  }

  /** What its QEMU boots is being kept from being changed, until QEMU has ended. */
  holdImages(images: BootImages, held: Disposable): void {
    this.#images = images;
    this.#heldImages = held;
  }

  // ---- its state

  /** The VM is ready: tells everybody, and answers once that is on disk. */
  async enterRunning(timings: readonly Timing[]): Promise<void> {
    this.#launched = { ...this.#launched, timings };
    this.#enter({ ...this.#alive, state: 'running' });
    await this.commit();
  }

  /** Tells everybody that it is being made. */
  begin(): void {
    this.#enter({ ...this.#alive, state: 'creating' });
  }

  /**
   * Joins the stop in progress, or begins one.
   * @param force cuts the graceful steps short, also of a stop that others have begun
   * @param begin carries it out; it is given what is resolved when somebody asks for force
   */
  async stopOnce(force: boolean, begin: (hurry: Promise<void>) => Promise<void>): Promise<void> {
    const life = this.#life;
    if (life.state === 'stopped') return;
    const under = life.state === 'stopping' ? life.stop : undefined;
    const stop = under ?? this.#beginStop(begin);
    if (force) stop.hurry.resolve();
    await stop.work;
  }

  #beginStop(begin: (hurry: Promise<void>) => Promise<void>): Stop {
    const hurry = Promise.withResolvers<void>();
    const cause: Cause = { reason: 'STOP_REQUESTED', message: 'a caller asked to stop the sandbox' };
    this.#enter({ ...this.#alive, state: 'stopping', cause, stop: undefined });
    const work = begin(hurry.promise).finally(() => {
      if (this.#life.state === 'stopping' && this.#life.stop === stop) this.#life = { ...this.#life, stop: undefined };
    });
    const stop = { work, hurry };
    if (this.#life.state === 'stopping') this.#life = { ...this.#life, stop };
    return stop;
  }

  /** Moves to another state, with one log line and one event. */
  #enter(life: Life): void {
    const before = this.#life.state;
    this.#life = life;
    if (before === life.state && life.state !== 'creating') return;
    const cause = this.#cause;
    this.log.info({ state: life.state, cause }, 'sandbox state changed');
    this.announce(`sandbox.${life.state}`, cause);
  }

  get #cause(): Cause | undefined {
    return 'cause' in this.#life ? this.#life.cause : undefined;
  }

  announce(type: EventType, cause: Cause | undefined): void {
    this.#parts.events.emit({
      type,
      sandboxId: this.id,
      volumeId: undefined,
      generation: 0,
      cause,
      timings: type === 'sandbox.running' ? this.#launched.timings : [],
      subject: this.snapshot(),
    });
  }

  /** Restores what the journal says, before the sandbox is adopted. */
  restore(record: JournalRecord): void {
    const { state, cause, accelerator, acceleratorReason, timings, start, nextGeneration } = record.sandbox;
    const { confinement = UNCONFINED } = record.sandbox;
    this.#journal.goOn(record);
    this.#life = restored(state, cause);
    this.#launched = { accelerator, acceleratorReason, timings, start, confinement };
    this.volumes.reserveGenerations(nextGeneration);
    for (const volume of record.volumes) this.volumes.restore(volume);
    this.volumes.distrustSlots();
    this.ports.restore(record.ports);
    this.containers.restore(record.containers);
    this.volumes.announceMissed();
    this.leases.adopt();
  }

  /** Ends every wait for the guest: Stop has begun, or the VM is gone (locking rule 5). */
  preempt(reason: ShimError): void {
    this.#gone.abort(reason);
  }

  /** The QEMU process has ended, whatever the reason; what it held is gone with it. */
  async #onExit(exit: ExitInfo, message = describeExit(exit)): Promise<void> {
    const cause = this.#exitCause(message);
    const error = new ShimError('UNAVAILABLE', `sandbox ${this.id}: ${cause.message}`, { reason: 'VM_GONE' });
    this.preempt(error);
    this.#ended.abort(error);
    this.#see({ agentReady: false, runState: '', unresponsive: false });
    this.budget[Symbol.dispose]();
    this.#overBudget = '';
    this.#lease?.[Symbol.dispose]();
    await this.relays.endAll();
    this.#cell?.[Symbol.dispose]();
    this.#heldImages?.[Symbol.dispose]();
    for (const volume of this.volumes.all()) {
      using _held = await volume.mutex.acquire();
      await emptyAgain(this, volume);
      this.volumes.apply(volume, { kind: 'vm-gone', cause: { reason: 'VM_GONE', message: cause.message } });
    }
    this.containers.allGone(true);
    await this.ports.forget().catch((problem: unknown) => {
      this.log.warn({ problem: messageOf(problem) }, 'fifos of ports not removed after the end of qemu');
    });
    this.#enter({ state: 'stopped', cause, capabilities: this.capabilities });
    await this.commit().catch((problem: unknown) => {
      this.log.warn({ problem: messageOf(problem) }, 'journal not written after the end of qemu');
    });
    await this.link[Symbol.asyncDispose]();
    await this.agent[Symbol.asyncDispose]();
    await this.guestEvents[Symbol.asyncDispose]();
    this.#stopped.resolve();
  }

  /** The journal knows of a QEMU that is not there any more. */
  async foundDead(): Promise<void> {
    if (this.#life.state !== 'stopped') {
      await this.#onExit({ code: undefined, signal: undefined }, 'QEMU ended while no daemon watched it');
    } else this.#stopped.resolve();
  }

  #exitCause(message: string): Cause {
    const { shutdownReason } = this.#alive;
    if (this.#life.state === 'stopping') return { reason: 'STOPPED', message: `stopped on request; ${message}` };
    if (shutdownReason === 'guest-panic') {
      return { reason: 'GUEST_PANICKED', message: `the guest's kernel panicked; ${message}` };
    }
    if (shutdownReason?.startsWith('guest') === true) {
      return { reason: 'GUEST_SHUTDOWN', message: `the guest shut itself down (${shutdownReason}); ${message}` };
    }
    return { reason: 'QEMU_EXITED', message };
  }

  /** Leaves the VM running and lets go of it: the daemon ends, the next one adopts. */
  async release(): Promise<void> {
    this.budget[Symbol.dispose]();
    const reason = new ShimError('UNAVAILABLE', 'the daemon is stopping', { reason: 'DAEMON_STOPPING' });
    this.preempt(reason);
    this.#ended.abort(reason);
    this.containers.release();
    await this.link[Symbol.asyncDispose]();
    await this.agent[Symbol.asyncDispose]();
    await this.guestEvents[Symbol.asyncDispose]();
    await Promise.allSettled(this.#background);
    if (this.#life.state !== 'stopped' && this.#journal.begun) await this.commit();
  }

  snapshot(): SandboxSnapshot {
    const { runState, unresponsive, qemu } = this.#alive;
    return {
      ...this.identity,
      ...this.#launched,
      images: this.#images,
      state: this.#life.state,
      cause: this.#cause,
      qemuVersion: this.capabilities?.versionText ?? '',
      qemuPid: qemu?.pid ?? 0,
      volumesInUse: this.volumes.slotsInUse,
      vectors: this.volumes.vectors,
      agentReady: this.agentReady,
      // What it said last is not what it does now.
      runState: unresponsive ? '' : runState,
      unresponsive,
      overBudget: this.#overBudget,
    };
  }

  /** Its record as that of one that has stopped, for the sandbox that takes its place. */
  recordOfStopped(cause: Cause): JournalRecord {
    const record = this.#record();
    return { ...record, sandbox: { ...record.sandbox, state: 'stopped', cause, process: undefined } };
  }

  #record(): JournalRecord {
    const { id, spec, uuid, createdAtMs } = this.identity;
    const { confinement, ...launched } = this.#launched;
    return {
      version: 1,
      sandbox: {
        ...{ id, spec, uuid, createdAtMs },
        ...launched,
        ...(confinement.level !== 'off' && { confinement }),
        state: this.#life.state,
        cause: this.#cause,
        process: this.#alive.qemu?.identity,
        nextGeneration: this.volumes.nextGeneration,
      },
      volumes: this.volumes.records(),
      ports: this.ports.records(),
      containers: this.containers.record(),
    };
  }
}

/** A life as the journal tells of it, before anything was seen of it. */
function restored(state: SandboxState, cause: Cause | undefined): Life {
  switch (state) {
    case 'creating':
      return { ...UNSEEN, state };
    case 'running':
      return { ...UNSEEN, state };
    case 'stopping':
      return { ...UNSEEN, state, cause, stop: undefined };
    case 'stopped':
      return { state, cause, capabilities: undefined };
  }
}
