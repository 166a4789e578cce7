import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { waitFor } from '../../base/deadline.ts';
import { ShimError } from '../../base/errors.ts';
import type { Ports } from './port.ts';
import { keyOf, type ProcessRecord } from './records.ts';
import type { ProcessPorts } from './runtime.ts';
import { PortReader, PortWriter } from './streams.ts';
import type { GuestProcess, ProcessExit } from './types.ts';

/** How long a removal waits for output that is being read to come to its end. */
const DRAIN_MS = 5000;

/** What a process asks of those who act for it (containers.ts). */
export interface ProcessActions {
  readonly ports: Ports;
  start(process: ContainerProcess): Promise<number>;
  kill(process: ContainerProcess, signal: number, all: boolean): Promise<void>;
  resize(process: ContainerProcess, columns: number, rows: number): Promise<void>;
  delete(process: ContainerProcess): Promise<ProcessExit>;
}

/** As the journal has it (records.ts), an exec's `process` being the object that its text says. */
export type KnownProcess = Omit<ProcessRecord, 'process'> & { readonly process: object | undefined };

/** One process and all that is known of it. It decides nothing: containers.ts does, and changes it. */
export class ContainerProcess implements GuestProcess {
  readonly containerId: string;
  readonly execId: string | undefined;
  readonly key: string;
  readonly token: string;
  readonly streams: ProcessRecord['streams'];
  readonly exited: Promise<ProcessExit>;
  ports: ProcessPorts = { stdin: 0, stdout: 0, stderr: 0, terminal: 0 };
  phase: ProcessRecord['state'];
  frozen: boolean;
  ran: boolean;
  /** The guest may have been asked to start it. Not on record: of an earlier daemon's processes it is not known. */
  asked = false;
  pid: number;
  /** An exec's `process` for crun, until it is started. */
  execProcess: object | undefined;
  /** What the terminal begins with. */
  size: { readonly columns: number; readonly rows: number } | undefined;
  starting: Promise<number> | undefined;
  deleting: Promise<ProcessExit> | undefined;
  readonly #actions: ProcessActions;
  readonly #exited = Promise.withResolvers<ProcessExit>();
  #exit: ProcessExit | undefined;
  #stdin: PortWriter | undefined;
  #stdout: PortReader | undefined;
  #stderr: PortReader | undefined;

  constructor(record: KnownProcess, actions: ProcessActions) {
    this.containerId = record.containerId;
    this.execId = record.execId;
    this.key = keyOf(record.containerId, record.execId);
    this.token = record.token;
    this.streams = record.streams;
    this.phase = record.state;
    this.frozen = record.paused;
    this.ran = record.ran ?? (record.state === 'running' || record.state === 'stopped');
    this.pid = record.pid;
    this.execProcess = record.process;
    this.#actions = actions;
    this.exited = this.#exited.promise;
    this.usePorts(record.ports);
    if (record.exit !== undefined) this.settle(record.exit);
  }

  get terminal(): boolean {
    return this.streams.terminal;
  }

  get state(): GuestProcess['state'] {
    if (this.#exit !== undefined || this.phase === 'stopped' || this.phase === 'deleting') return 'stopped';
    if (this.frozen) return 'paused';
    return this.phase === 'running' ? 'running' : 'created';
  }

  get exit(): ProcessExit | undefined {
    return this.#exit;
  }

  get stdin(): Writable | undefined {
    return this.#stdin;
  }

  get stdout(): PortReader | undefined {
    return this.#stdout;
  }

  get stderr(): PortReader | undefined {
    return this.#stderr;
  }

  start(): Promise<number> {
    return this.#actions.start(this);
  }

  kill(signal: number, options: { readonly all?: boolean } = {}): Promise<void> {
    return this.#actions.kill(this, signal, options.all ?? false);
  }

  resize(size: { readonly columns: number; readonly rows: number }): Promise<void> {
    return this.#actions.resize(this, size.columns, size.rows);
  }

  delete(): Promise<ProcessExit> {
    return this.#actions.delete(this);
  }

  /** Its ports are plugged: from here it has streams. */
  usePorts(ports: ProcessPorts): void {
    this.ports = ports;
    const all = this.#actions.ports;
    const output = (nr: number): PortReader | undefined => {
      const path = all.get(nr)?.outputPath;
      return path === undefined ? undefined : ownErrors(new PortReader(path, this.token, all.budget?.stream));
    };
    this.#stdout = output(this.terminal ? ports.terminal : ports.stdout);
    this.#stderr = output(ports.stderr);
    const input = this.terminal ? ports.terminal : ports.stdin;
    const path = all.get(input)?.inputPath;
    if (path !== undefined) {
      const end = (): Promise<void> => (this.terminal ? Promise.resolve() : all.endInput(input));
      this.#stdin = ownErrors(new PortWriter(path, end));
    }
  }

  /** It has ended. The first news counts. */
  settle(exit: ProcessExit): void {
    if (this.#exit !== undefined) return;
    this.#exit = exit;
    if (this.phase !== 'deleting') this.phase = 'stopped';
    this.#exited.resolve(exit);
    this.#stdout?.processEnded();
    this.#stderr?.processEnded();
  }

  /** Waits, within a bound, until what was begun to be read has been read. */
  async drain(): Promise<void> {
    const streams = [this.#stdout, this.#stderr].filter((stream) => stream !== undefined);
    const open = streams.filter((stream) => stream.readableDidRead && !stream.readableEnded && !stream.destroyed);
    await Promise.allSettled(open.map((stream) => waitFor(once(stream, 'close'), { milliseconds: DRAIN_MS })));
  }

  /** `oomScoreAdj` of an exec's process; undefined: as the container's init. */
  get oomScoreAdj(): number | undefined {
    const { execProcess } = this;
    const asked = execProcess !== undefined && 'oomScoreAdj' in execProcess ? execProcess.oomScoreAdj : undefined;
    return typeof asked === 'number' ? asked : undefined;
  }

  /** `process` of an exec for crun, with the size that its terminal begins with. */
  execJson(): string {
    const { execProcess, size } = this;
    return JSON.stringify({
      ...execProcess,
      ...(size && { consoleSize: { width: size.columns, height: size.rows } }),
    });
  }

  /** Its ports are gone: nothing can be written any more. What was written by it may still be read. */
  closeInput(): void {
    this.#stdin?.destroy();
  }

  /** Closes this side of the streams; the process notices nothing. */
  release(): void {
    for (const stream of [this.#stdin, this.#stdout, this.#stderr]) stream?.destroy();
  }

  /** @throws ShimError FAILED_PRECONDITION / CONTAINER_STATE */
  refuse(what: string): never {
    throw new ShimError('FAILED_PRECONDITION', `process ${this.key} is ${this.state}: ${what}`, {
      reason: 'CONTAINER_STATE',
      metadata: { containerId: this.containerId, execId: this.execId ?? '', state: this.state },
    });
  }

  record(): ProcessRecord {
    return {
      containerId: this.containerId,
      execId: this.execId,
      state: this.phase,
      paused: this.frozen,
      ran: this.ran,
      pid: this.pid,
      token: this.token,
      streams: this.streams,
      ports: this.ports,
      process: this.execProcess && JSON.stringify(this.execProcess),
      exit: this.#exit,
    };
  }
}

/** A stream that fails while nobody listens must not end the daemon; whoever uses it hears of it all the same. */
function ownErrors<T extends Readable | Writable>(stream: T): T {
  stream.on('error', () => undefined);
  return stream;
}
