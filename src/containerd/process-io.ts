import { once } from 'node:events';
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { sleep } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { GuestProcess } from '../guest/containers/types.ts';
import type { HeldFifo } from '../relay/holds.ts';
import type { ProcessRecord } from './pod-record.ts';

/** When an ended process's outputs have not moved for so long, nobody reads them any more. */
const UNREAD_MS = 5000;
/** How long a daemon that leaves waits for containerd to take what was read. */
const LEAVE_MS = 5000;

/** The FIFO that one of a process's streams goes through; undefined when containerd wants none. */
interface Ends {
  readonly stdin: { readonly reader: Socket; writer: number | undefined } | undefined;
  readonly stdout: Socket | undefined;
  readonly stderr: Socket | undefined;
}

/**
 * Joins a process's streams in the guest to containerd's FIFOs, byte for byte and no faster than either side takes.
 *
 * - Outputs are opened for reading and writing, so that a containerd that restarts breaks no pipe; bytes wait in the FIFO.
 * - The daemon holds a writer of its own on stdin: the process has its end of file once containerd has called CloseIO **and** no
 *   client has the FIFO open for writing.
 */
export class ProcessIo {
  readonly #record: ProcessRecord;
  readonly #log: Logger;
  readonly #ends: Ends;
  readonly #leaving = new AbortController();
  readonly #over = Promise.withResolvers<boolean>();
  #outputs: Promise<unknown> = Promise.resolve();
  #chunks = 0;
  #input: Promise<void> = Promise.resolve();

  private constructor(record: ProcessRecord, ends: Ends, log: Logger) {
    this.#record = record;
    this.#ends = ends;
    this.#log = log;
  }

  /**
   * Opens the FIFOs that containerd has made.
   * @throws ShimError FAILED_PRECONDITION / STREAM_NOT_USABLE; UNIMPLEMENTED / STREAM_NOT_SUPPORTED for logging binaries
   */
  static open(record: ProcessRecord, log: Logger): ProcessIo {
    using undo = new DisposableStack();
    const closing = (socket: Socket): Socket => {
      undo.defer(() => socket.destroy());
      return socket;
    };
    const output = (name: string, path: string): Socket | undefined =>
      path === '' ? undefined : closing(openFifo(name, path, constants.O_RDWR));
    const stdout = output('stdout', record.stdout);
    const stderr = record.terminal ? undefined : output('stderr', record.stderr);
    let stdin: Ends['stdin'];
    if (record.stdin !== '' && !record.stdinClosed) {
      const reader = closing(openFifo('stdin', record.stdin, constants.O_RDONLY));
      stdin = { reader, writer: openSync(record.stdin, constants.O_WRONLY | constants.O_NONBLOCK) };
    }
    undo.move();
    return new ProcessIo(record, { stdin, stdout, stderr }, log);
  }

  /** Resolves when the outputs are delivered to their end; false when the daemon has left them before. */
  get outputs(): Promise<boolean> {
    return this.#over.promise;
  }

  /** What somebody else must hold open for as long as the process may come to another daemon. */
  get fifos(): readonly HeldFifo[] {
    const { stdin, stdout, stderr, terminal } = this.#record;
    return [
      ...(stdin === '' ? [] : [{ path: stdin, mode: 'reader' as const }]),
      ...[stdout, terminal ? '' : stderr].flatMap((path) => (path === '' ? [] : [{ path, mode: 'both' as const }])),
    ];
  }

  /** Begins to carry bytes. */
  join(guest: GuestProcess): void {
    const { stdin, stdout, stderr } = this.#ends;
    const outputs = [this.#output('stdout', guest.stdout, stdout), this.#output('stderr', guest.stderr, stderr)];
    this.#outputs = Promise.all(outputs).finally(() => this.#over.resolve(!this.#leaving.signal.aborted));
    if (stdin !== undefined && guest.stdin !== undefined) this.#input = this.#feed(stdin.reader, guest.stdin);
  }

  /** containerd's CloseIO. */
  closeStdin(): void {
    this.#record.stdinClosed = true;
    this.#closeWriter();
  }

  #closeWriter(): void {
    const { stdin } = this.#ends;
    if (stdin?.writer === undefined) return;
    closeSync(stdin.writer);
    stdin.writer = undefined;
  }

  /**
   * For a process that has ended: waits until containerd has all that it wrote. Not for ever: when nothing has moved for a while,
   * its reader is gone (`unread`). `left`: the daemon leaves, and the next one delivers.
   */
  async delivered(): Promise<'all' | 'unread' | 'left'> {
    for (let before = -1; before !== this.#chunks;) {
      before = this.#chunks;
      const pause = new AbortController();
      const outputs = this.#over.promise.then((over) => (over ? 'all' : 'left'));
      const quiet = sleep(UNREAD_MS, pause.signal).then(() => undefined);
      const outcome = await Promise.race([outputs, quiet]);
      pause.abort();
      if (outcome !== undefined) return outcome;
    }
    return 'unread';
  }

  /**
   * Ends the joining: the process is deleted, or the daemon leaves. What was read of the outputs is delivered first, except
   * when it is known that nobody reads.
   */
  async close(how: 'deliver' | 'drop' = 'deliver'): Promise<void> {
    this.#leaving.abort();
    const { stdin, stdout, stderr } = this.#ends;
    stdin?.reader.destroy();
    this.#closeWriter();
    const destroy = (): void => [stdout, stderr].forEach((output) => output?.destroy());
    if (how === 'drop') destroy();
    await Promise.race([Promise.all([this.#outputs, this.#input]), sleep(LEAVE_MS)]);
    destroy();
  }

  async #output(name: string, from: Readable | undefined, to: Socket | undefined): Promise<void> {
    if (from === undefined || to === undefined) {
      from?.resume();
      to?.destroy();
      return;
    }
    const problem = (error: unknown): void =>
      this.#log.warn({ stream: name, problem: messageOf(error) }, 'stream broken');
    to.on('error', problem);
    from.on('error', problem);
    const leave = (): void => {
      // What waits here was taken out of the guest; the rest stays there for the next daemon. No await in between.
      const rest = from.read() as Buffer | null;
      if (rest !== null) to.write(rest);
      from.destroy();
    };
    this.#leaving.signal.addEventListener('abort', leave, { once: true });
    try {
      const chunks: AsyncIterable<Buffer> = from;
      for await (const chunk of chunks) {
        this.#chunks += 1;
        if (!to.write(chunk)) await once(to, 'drain', { signal: this.#leaving.signal });
      }
    } catch (error) {
      if (!this.#leaving.signal.aborted) problem(error);
    }
    this.#leaving.signal.removeEventListener('abort', leave);
    await flushed(to);
    to.destroy();
  }

  async #feed(from: Socket, to: Writable): Promise<void> {
    const { signal } = this.#leaving;
    const problem = (error: unknown): void => {
      if (!signal.aborted) this.#log.debug({ stream: 'stdin', problem: messageOf(error) }, 'stdin broken');
    };
    from.on('error', problem);
    to.on('error', problem);
    // A process that has ended takes no more.
    to.once('close', () => from.destroy());
    try {
      const chunks: AsyncIterable<Buffer> = from;
      for await (const chunk of chunks) if (!to.write(chunk)) await once(to, 'drain', { signal });
      if (!signal.aborted && !to.destroyed) to.end();
    } catch (error) {
      problem(error);
    }
  }
}

/** Resolves when everything that was written has been taken by the FIFO, or cannot be. */
async function flushed(socket: Socket): Promise<void> {
  if (socket.destroyed) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.once('close', () => resolve());
  socket.write(Buffer.alloc(0), () => resolve());
  await promise;
}

/** A socket over the FIFO: waiting for it uses no thread of the pool. */
function openFifo(name: string, path: string, flags: number): Socket {
  if (!path.startsWith('/')) {
    throw new ShimError('UNIMPLEMENTED', `${name} = ${JSON.stringify(path)}: only paths of FIFOs are supported`, {
      reason: 'STREAM_NOT_SUPPORTED',
      metadata: { stream: name, path },
    });
  }
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
  const readable = flags === constants.O_RDONLY;
  return new Socket({ fd, readable, writable: !readable });
}

function notUsable(name: string, path: string, problem: string, cause?: unknown): ShimError {
  return new ShimError('FAILED_PRECONDITION', `${name}: ${path} ${problem}`, {
    reason: 'STREAM_NOT_USABLE',
    metadata: { stream: name, path },
    cause,
  });
}
