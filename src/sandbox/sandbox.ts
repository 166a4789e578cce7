import { setMaxListeners } from 'node:events';
import { join } from 'node:path';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { Cause } from '../device/state.ts';
import { GuestAgent } from '../guest/agent.ts';
import type { KeySource } from '../keys/sources.ts';
import { DiskNames } from '../guest/disk-names.ts';
import { Containers } from '../guest/containers/containers.ts';
import type { RunningAccelerator, SandboxFiles } from '../qemu/argv.ts';
import type { AcceleratorChoice } from '../qemu/accelerator.ts';
import { describeExit, type ExitInfo, type QemuProcess } from '../qemu/process.ts';
import type { QemuCapabilities } from '../qmp/capabilities.ts';
import type { BackingClaims } from './backing.ts';
import type { EventLog, EventType, Timing } from './events.ts';
import { DriverWatch } from './driver-wait.ts';
import { GuestAddresses } from './guest-addresses.ts';
import { GuestEvents } from './guest-events.ts';
import { undoCreation } from './image-undo.ts';
import { Journal, type JournalRecord } from './journal.ts';
import { QmpLink } from './link.ts';
import { observe } from './observe.ts';
import { SerialPorts } from './ports.ts';
import type { SandboxSpec, SandboxState, StartKind } from './spec.ts';
import type { WarmPool } from './pool.ts';
import type { Templates } from './templates.ts';
import type { VolumeHost } from './vm.ts';
import { VolumeStore } from './volume-store.ts';

/** What all sandboxes of a daemon share. */
export interface SandboxEnvironment {
  readonly config: Config;
  readonly log: Logger;
  readonly events: EventLog;
  readonly claims: BackingClaims;
  readonly accelerators: AcceleratorChoice;
  readonly templates: Templates;
  readonly keys: KeySource;
  readonly pool: WarmPool;
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
  readonly start: StartKind;
}

export const JOURNAL_FILE = 'state.json';

/** Paths inside a sandbox's state directory. */
export function sandboxFiles(directory: string): SandboxFiles {
  return {
    directory,
    qmpSocket: join(directory, 'qmp.sock'),
    spareSocket: join(directory, 'spare.sock'),
    agentSocket: join(directory, 'qga.sock'),
    ueventSocket: join(directory, 'uevents.sock'),
    consoleLog: join(directory, 'console.log'),
    qemuLog: join(directory, 'qemu.log'),
  };
}

/** A client of a VM's guest agent. */
export function agentFor(files: SandboxFiles, config: Config, log: Logger): GuestAgent {
  return new GuestAgent({
    path: files.agentSocket,
    log,
    requestTimeoutMs: config.agent_timeout_ms,
    lineBytesMax: config.agent_line_bytes_max,
    queueMax: config.agent_queue_max,
  });
}

/**
 * One VM and what is known of it. Life-cycle phases live in their own files: boot.ts, stop.ts, adopt.ts; volumes in
 * attach.ts, detach.ts, removal.ts. This class owns every change of the sandbox's own state.
 */
export class Sandbox implements VolumeHost {
  readonly identity: SandboxIdentity;
  readonly environment: SandboxEnvironment;
  readonly log: Logger;
  readonly files: SandboxFiles;
  readonly link: QmpLink;
  readonly agent: GuestAgent;
  readonly volumes: VolumeStore;
  readonly addresses = new GuestAddresses();
  readonly disks: DiskNames;
  readonly guestEvents: GuestEvents;
  readonly drivers: DriverWatch;
  readonly ports: SerialPorts;
  readonly containers: Containers;
  readonly #journal: Journal;
  /** Ends volume work: the VM is being stopped, is gone, or the daemon leaves it. */
  readonly #gone = new AbortController();
  /** Ends the QMP link: QEMU is gone, or the daemon leaves it. */
  readonly #ended = new AbortController();
  readonly #stopped = Promise.withResolvers<void>();
  #state: SandboxState = 'creating';
  #cause: Cause | undefined;
  #qemu: QemuProcess | undefined;
  capabilities: QemuCapabilities | undefined;
  accelerator: RunningAccelerator = 'tcg';
  acceleratorReason = '';
  agentReady = false;
  boot = 0;
  runState = '';
  timings: readonly Timing[] = [];
  start: StartKind = { kind: 'cold', templateId: '', reason: '' };
  /** Keeps the template of a clone from being evicted while its pages are in use. */
  #lease: Disposable | undefined;
  /** Why QEMU said that it shuts down (QAPI ShutdownCause), when it said so. */
  shutdownReason: string | undefined;
  /** The start failed, and the state directory could not be removed then. */
  directoryLeft = false;
  /** The stop in progress; repeats of Stop join it. */
  stopping: Promise<void> | undefined;
  /** Work that nobody waits for, by what it is for; awaited when the sandbox is left. */
  readonly #background = new Set<Promise<void>>();

  /** @param agent a client of this VM's agent that was in use before it became a sandbox; from now on the sandbox's */
  constructor(environment: SandboxEnvironment, identity: SandboxIdentity, agent?: GuestAgent) {
    const { config, events, claims } = environment;
    this.identity = identity;
    this.environment = environment;
    this.log = environment.log.child({ sandboxId: identity.id });
    this.files = sandboxFiles(identity.directory);
    setMaxListeners(0, this.#gone.signal, this.#ended.signal);
    this.volumes = new VolumeStore({
      sandboxId: identity.id,
      capacity: identity.spec.volumeCapacity,
      vcpus: identity.spec.vcpus,
      iothreads: identity.spec.iothreads,
      spreadsQueues: () => this.capabilities?.iothreadVqMapping ?? false,
      log: this.log,
      events,
      claims,
      mutexWaitersMax: config.device_queue_max,
      removedRetained: config.removed_retained,
    });
    this.link = new QmpLink({
      connect: {
        path: this.files.qmpSocket,
        log: this.log,
        lineBytesMax: config.qmp_line_bytes_max,
        pendingMax: config.qmp_pending_max,
        replyTimeoutMs: config.qmp_reply_timeout_ms,
      },
      log: this.log,
      gone: this.#ended.signal,
      onConnected: (client) => observe(this, client),
    });
    this.agent = agent ?? agentFor(this.files, config, this.log);
    this.disks = new DiskNames(this.agent);
    this.guestEvents = new GuestEvents(this);
    this.drivers = new DriverWatch(this);
    this.ports = new SerialPorts(this);
    this.containers = new Containers(this);
    this.#journal = new Journal(join(identity.directory, JOURNAL_FILE), () => this.#record());
  }

  get id(): string {
    return this.identity.id;
  }

  get config(): Config {
    return this.environment.config;
  }

  get keys(): KeySource {
    return this.environment.keys;
  }

  get state(): SandboxState {
    return this.#state;
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  get virtioStatus(): boolean {
    return this.capabilities?.virtioStatus ?? false;
  }

  get qemu(): QemuProcess | undefined {
    return this.#qemu;
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

  /** The agent has answered in this boot of the guest. */
  agentAnswered(): void {
    this.agentReady = true;
    this.inBackground('uevents', this.guestEvents.begin());
  }

  /** Takes charge of the QEMU process: from here its end is noticed. */
  own(qemu: QemuProcess): void {
    this.#qemu = qemu;
    void qemu.exited.then((exit) => this.#onExit(exit));
  }

  /** Holds on to the template that this VM's memory rests on, until QEMU has ended. */
  holdTemplate(lease: Disposable): void {
    this.#lease?.[Symbol.dispose]();
    this.#lease = lease;
  }

  /** Moves to another state, with one log line and one event. */
  enter(state: SandboxState, cause: Cause | undefined): void {
    if (this.#state === state && state !== 'creating') return;
    this.#state = state;
    this.#cause = cause;
    this.log.info({ state, cause }, 'sandbox state changed');
    this.announce(`sandbox.${state}`, cause);
  }

  announce(type: EventType, cause: Cause | undefined): void {
    this.environment.events.emit({
      type,
      sandboxId: this.id,
      volumeId: undefined,
      generation: 0,
      cause,
      timings: type === 'sandbox.running' ? this.timings : [],
      subject: this.snapshot(),
    });
  }

  /** Restores what the journal says, before the sandbox is adopted. */
  restore(record: JournalRecord): void {
    const { sandbox } = record;
    this.#journal.goOn(record);
    this.#state = sandbox.state;
    this.#cause = sandbox.cause;
    this.accelerator = sandbox.accelerator;
    this.acceleratorReason = sandbox.acceleratorReason;
    this.timings = sandbox.timings;
    this.start = sandbox.start;
    this.volumes.reserveGenerations(sandbox.nextGeneration);
    for (const volume of record.volumes) this.volumes.restore(volume);
    this.ports.restore(record.ports);
    this.containers.restore(record.containers);
    this.volumes.announceMissed();
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
    this.agentReady = false;
    this.runState = '';
    this.#lease?.[Symbol.dispose]();
    for (const volume of this.volumes.all()) {
      using _held = await volume.mutex.acquire();
      await undoCreation(volume, { scanBytesMax: this.config.empty_scan_bytes_max, log: this.log });
      this.volumes.apply(volume, { kind: 'vm-gone', cause: { reason: 'VM_GONE', message: cause.message } });
    }
    this.containers.allGone(true);
    await this.ports.forget().catch((problem: unknown) => {
      this.log.warn({ problem: messageOf(problem) }, 'fifos of ports not removed after the end of qemu');
    });
    this.enter('stopped', cause);
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
    if (this.#state !== 'stopped') {
      await this.#onExit({ code: undefined, signal: undefined }, 'QEMU ended while no daemon watched it');
    } else this.#stopped.resolve();
  }

  #exitCause(message: string): Cause {
    if (this.#state === 'stopping') return { reason: 'STOPPED', message: `stopped on request; ${message}` };
    if (this.shutdownReason === 'guest-panic') {
      return { reason: 'GUEST_PANICKED', message: `the guest's kernel panicked; ${message}` };
    }
    if (this.shutdownReason?.startsWith('guest') === true) {
      return { reason: 'GUEST_SHUTDOWN', message: `the guest shut itself down (${this.shutdownReason}); ${message}` };
    }
    return { reason: 'QEMU_EXITED', message };
  }

  /** Leaves the VM running and lets go of it: the daemon ends, the next one adopts. */
  async release(): Promise<void> {
    const reason = new ShimError('UNAVAILABLE', 'the daemon is stopping', { reason: 'DAEMON_STOPPING' });
    this.preempt(reason);
    this.#ended.abort(reason);
    this.containers.release();
    await this.link[Symbol.asyncDispose]();
    await this.agent[Symbol.asyncDispose]();
    await this.guestEvents[Symbol.asyncDispose]();
    await Promise.allSettled(this.#background);
    if (this.#state !== 'stopped' && this.#journal.begun) await this.commit();
  }

  snapshot(): SandboxSnapshot {
    const alive = this.#qemu !== undefined && this.#state !== 'stopped';
    return {
      ...this.identity,
      state: this.#state,
      cause: this.#cause,
      accelerator: this.accelerator,
      acceleratorReason: this.acceleratorReason,
      qemuVersion: this.capabilities?.versionText ?? '',
      qemuPid: alive ? (this.#qemu?.pid ?? 0) : 0,
      volumesInUse: this.volumes.slotsInUse,
      vectors: this.volumes.vectors,
      timings: this.timings,
      agentReady: this.agentReady,
      runState: this.runState,
      start: this.start,
    };
  }

  #record(): JournalRecord {
    const { id, spec, uuid, createdAtMs } = this.identity;
    return {
      version: 1,
      sandbox: {
        id,
        spec,
        uuid,
        createdAtMs,
        accelerator: this.accelerator,
        acceleratorReason: this.acceleratorReason,
        state: this.#state,
        cause: this.#cause,
        process: this.#qemu?.identity,
        nextGeneration: this.volumes.nextGeneration,
        timings: this.timings,
        start: this.start,
      },
      volumes: this.volumes.records(),
      ports: this.ports.records(),
      containers: this.containers.record(),
    };
  }
}
