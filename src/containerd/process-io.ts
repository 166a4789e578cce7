import { once } from 'node:events';
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import { Readable, type Writable } from 'node:stream';
import { sleep } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { FifoStream, type LeftBytes } from '../base/fifo.ts';
import type { Logger } from '../base/log.ts';
import type { GuestProcess, ProcessOutput } from '../guest/containers/types.ts';
import type { HeldFifo } from '../relay/holds.ts';
import { handOver, type FifoKeeper } from './hand-over.ts';
import type { ProcessRecord } from './pod-record.ts';
import { Pump, type Leavable } from './pump.ts';

/** When an ended process's outputs have not moved for so long, nobody reads them any more. */
const UNREAD_MS = 5000;
/** How long a daemon that leaves waits for containerd to take what was read. */
const LEAVE_MS = 1000;

type StreamName = 'stdin' | 'stdout' | 'stderr';

interface StdinEnds {
  readonly reader: Leavable;
  writer: number | undefined;
}

/** The FIFOs that a process's outputs go through; undefined when containerd wants none. */
interface Outputs {
  readonly stdout: Socket | undefined;
  readonly stderr: Socket | undefined;
}

/**
 * Joins a process's streams in the guest to containerd's FIFOs, byte for byte and no faster than either side takes.
 *
 * - Outputs are opened for reading and writing, so that a containerd that restarts breaks no pipe; bytes wait in the
 *   FIFO.
 * - stdin is opened when the process is started (`openStdin`), not before: until then its writer waits. A client may
 *   write all it has, and come to its end, before it can say CloseIO of a process (ctr does).
 * - The daemon holds a writer of its own on stdin: the process has its end of file once containerd has called CloseIO
 *   **and** no client has the FIFO open for writing.
 * - What a daemon that leaves has read and cannot deliver is in the process's record, and the first that the next one
 *   delivers.
 */
export class ProcessIo {
  readonly #record: ProcessRecord;
  readonly #log: Logger;
  readonly #outputs: Outputs;
  #stdin: StdinEnds | undefined;
  #guest: GuestProcess | undefined;
  readonly #over = Promise.withResolvers<'all' | 'left'>();
  readonly #nobodyReads = Promise.withResolvers<'unread'>();
  readonly #closed = new AbortController();
  readonly #pumps = new Map<StreamName, { readonly pump: Pump; readonly to: Writable }>();
  #leaving = false;
  #running: Promise<unknown> = Promise.resolve();
  #feeding: Promise<void> = Promise.resolve();
  #moved = 0;

  private constructor(record: ProcessRecord, outputs: Outputs, log: Logger) {
    this.#record = record;
    this.#outputs = outputs;
    this.#log = log;
  }

  /**
   * Opens the FIFOs that containerd has made; stdin only of a process that has been started.
   * @throws ShimError FAILED_PRECONDITION / STREAM_NOT_USABLE; UNIMPLEMENTED / STREAM_NOT_SUPPORTED for logging
   *   binaries
   */
  static open(record: ProcessRecord, log: Logger): ProcessIo {
    using undo = new DisposableStack();
    const output = (name: string, path: string): Socket | undefined => {
      if (path === '') return undefined;
      const socket = new Socket({ fd: openFifo(name, path, constants.O_RDWR), readable: false, writable: true });
      socket.on('error', () => undefined); // Told by the pump.
      undo.defer(() => socket.destroy());
      return socket;
    };
    const stdout = output('stdout', record.stdout);
    const stderr = record.terminal ? undefined : output('stderr', record.stderr);
    if (record.stdin !== '') checkStdin(record);
    const io = new ProcessIo(record, { stdout, stderr }, log);
    if (record.started) io.openStdin();
    undo.move();
    return io;
  }

  /**
   * For a process that is about to be started, or was: its input is taken from here on. A repeat changes nothing.
   * @throws as `open`
   */
  openStdin(): void {
    if (this.#record.stdin === '' || this.#stdin !== undefined || this.#leaving) return;
    this.#stdin = openStdin(this.#record);
    this.#feed();
  }

  /** What somebody else must hold open for as long as the process may come to another daemon. */
  get fifos(): readonly HeldFifo[] {
    const { stdin } = this.#record;
    return [
      ...(this.#stdin === undefined ? [] : [{ path: stdin, mode: 'reader' as const }]),
      ...this.#outputPaths.map((path) => ({ path, mode: 'both' as const })),
    ];
  }

  get #outputPaths(): readonly string[] {
    const { stdout, stderr, terminal } = this.#record;
    return [stdout, terminal ? '' : stderr].filter((path) => path !== '');
  }

  /** Begins to carry bytes. @param keeper holds `fifos` already, and does so until the outputs have been read */
  join(guest: GuestProcess, keeper: FifoKeeper): void {
    const { stdout, stderr } = this.#outputs;
    this.#guest = guest;
    const outputs = [this.#output('stdout', guest.stdout, stdout), this.#output('stderr', guest.stderr, stderr)];
    // It is in the pumps now; what is left of the input waits for the start.
    const stdinLeft = this.#record.left?.stdin;
    this.#record.left = stdinLeft === undefined ? undefined : { stdin: stdinLeft };
    this.#feed();
    const over = Promise.all(outputs).then((ends) => (ends.every(Boolean) ? this.#handOver(keeper) : 'left'));
    this.#running = over.then((end) => this.#over.resolve(end));
  }

  /** Once both sides are there. */
  #feed(): void {
    const to = this.#guest?.stdin;
    if (this.#stdin === undefined || to === undefined || this.#pumps.has('stdin')) return;
    this.#feeding = this.#carryInput(this.#stdin.reader, to);
    this.#record.left = undefined;
  }

  async #handOver(keeper: FifoKeeper): Promise<'all' | 'left'> {
    try {
      await Promise.all([this.#outputs.stdout, this.#outputs.stderr].map(closed));
      await handOver(this.#outputPaths, keeper, this.#closed.signal, () => this.#nobodyReads.resolve('unread'));
    } catch (error) {
      if (this.#leaving) return 'left';
      this.#log.warn({ problem: messageOf(error) }, 'outputs not handed over');
      await keeper.release();
    }
    return 'all';
  }

  /** containerd's CloseIO. */
  closeStdin(): void {
    this.#record.stdinClosed = true;
    this.#closeWriter();
  }

  #closeWriter(): void {
    const stdin = this.#stdin;
    if (stdin?.writer === undefined) return;
    closeSync(stdin.writer);
    stdin.writer = undefined;
  }

  /**
   * For a process that has ended: waits until containerd has read all that it wrote. Not for ever: nobody may have the
   * FIFOs open, or nothing has moved for a while (`unread`). `left`: the daemon leaves, and the next one delivers.
   */
  async delivered(): Promise<'all' | 'unread' | 'left'> {
    for (let before = -1; before !== this.#moved;) {
      before = this.#moved;
      const pause = new AbortController();
      const quiet = sleep(UNREAD_MS, pause.signal).then(() => undefined);
      const outcome = await Promise.race([this.#over.promise, this.#nobodyReads.promise, quiet]);
      pause.abort();
      if (outcome !== undefined) return outcome;
    }
    return 'unread';
  }

  /**
   * Ends the joining: the process is deleted, or the daemon leaves. What was read is delivered first, as far as the
   * other side takes it, and the record names the rest; nothing of that when it is known that nobody reads.
   */
  async close(how: 'deliver' | 'drop' = 'deliver'): Promise<void> {
    this.#leaving = true;
    this.#closed.abort();
    const { stdout, stderr } = this.#outputs;
    for (const { pump } of this.#pumps.values()) pump.leave();
    this.#stdin?.reader.destroy();
    this.#closeWriter();
    const running = Promise.all([this.#running, this.#feeding]);
    if (how === 'deliver') await Promise.race([running, sleep(LEAVE_MS)]);
    const left = [...this.#pumps].map(([name, { pump }]) => [name, inBase64(pump.undelivered)] as const);
    // In the same breath: a write that was in progress has happened as a whole before this, or not at all.
    for (const { to } of this.#pumps.values()) to.destroy();
    stdout?.destroy();
    stderr?.destroy();
    if (how === 'deliver' && left.length > 0) this.#record.left = Object.fromEntries(left);
    await running;
  }

  /** @returns false when there is more to come, for the next daemon */
  async #output(name: 'stdout' | 'stderr', from: ProcessOutput | undefined, to: Socket | undefined): Promise<boolean> {
    if (from === undefined || to === undefined) {
      from?.resume();
      to?.destroy();
      return true;
    }
    try {
      return await this.#pump(name, from, to).run();
    } catch (error) {
      if (this.#leaving) return false;
      this.#log.warn({ stream: name, problem: messageOf(error) }, 'stream broken');
      return true;
    } finally {
      to.destroy();
    }
  }

  async #carryInput(from: Leavable, to: Writable): Promise<void> {
    from.on('error', () => undefined);
    to.on('error', () => undefined);
    try {
      const ended = await this.#pump('stdin', from, to).run();
      if (ended && !this.#leaving) to.end();
    } catch (error) {
      // A process that has ended takes no more.
      if (!this.#leaving) this.#log.debug({ stream: 'stdin', problem: messageOf(error) }, 'stdin broken');
    }
    from.destroy();
  }

  #pump(name: StreamName, from: Leavable, to: Writable): Pump {
    const left = this.#record.left?.[name];
    const before = { bytes: Buffer.from(left?.bytes ?? '', 'base64'), ended: left?.ended ?? false };
    const pump = new Pump(from, to, before, () => {
      if (name !== 'stdin') this.#moved += 1;
    });
    this.#pumps.set(name, { pump, to });
    return pump;
  }
}

/** A socket that was destroyed holds its descriptor for a moment more. */
async function closed(socket: Socket | undefined): Promise<void> {
  if (socket === undefined || socket.closed) return;
  const gone = once(socket, 'close');
  socket.destroy();
  await gone;
}

function inBase64({ bytes, ended }: LeftBytes): { readonly bytes: string; readonly ended: boolean } {
  return { bytes: bytes.toString('base64'), ended };
}

/**
 * After CloseIO without a writer of the daemon's own: the end comes with that of the last client. What cannot be opened
 * any more then has nothing to say.
 */
function openStdin(record: ProcessRecord): StdinEnds {
  const { stdin, stdinClosed, left } = record;
  const over: Leavable = Object.assign(Readable.from([]), { leave: () => ({ bytes: Buffer.alloc(0), ended: true }) });
  if (left?.stdin?.ended === true) return { reader: over, writer: undefined };
  try {
    const reader = new FifoStream(openFifo('stdin', stdin, constants.O_RDONLY));
    const writer = stdinClosed ? undefined : openSync(stdin, constants.O_WRONLY | constants.O_NONBLOCK);
    return { reader, writer };
  } catch (error) {
    if (stdinClosed) return { reader: over, writer: undefined };
    throw error;
  }
}

/** That it can be opened later. Opened already, it would let its writer write. */
function checkStdin({ stdin, stdinClosed }: ProcessRecord): void {
  checkPath('stdin', stdin);
  const stats = statSync(stdin, { throwIfNoEntry: false });
  if (stats === undefined && stdinClosed) return;
  if (stats === undefined) throw notUsable('stdin', stdin, 'does not exist');
  if (!stats.isFIFO()) throw notUsable('stdin', stdin, 'is not a FIFO');
}

function checkPath(name: string, path: string): void {
  if (path.startsWith('/')) return;
  throw new ShimError('UNIMPLEMENTED', `${name} = ${JSON.stringify(path)}: only paths of FIFOs are supported`, {
    reason: 'STREAM_NOT_SUPPORTED',
    metadata: { stream: name, path },
  });
}

function openFifo(name: string, path: string, flags: number): number {
  checkPath(name, path);
  let fd: number;
  try {
    fd = openSync(path, flags | constants.O_NONBLOCK);
  } catch (error) {
    throw notUsable(name, path, errnoOf(error) === 'ENOENT' ? 'does not exist' : messageOf(error), error);
  }
  if (!fstatSync(fd).isFIFO()) {
    closeSync(fd);
    throw notUsable(name, path, 'is not a FIFO');
  }
  return fd;
}

function notUsable(name: string, path: string, problem: string, cause?: unknown): ShimError {
  return new ShimError('FAILED_PRECONDITION', `${name}: ${path} ${problem}`, {
    reason: 'STREAM_NOT_USABLE',
    metadata: { stream: name, path },
    cause,
  });
}
