import { randomInt } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import { errnoOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { LineSplitter, parseReply, syncLine, type AgentLine } from './wire.ts';

/** The reply to guest-sync-delimited is an object with a number and an id. */
const SYNC_REPLY_BYTES_MAX = 256;
/** What a line costs at least, in bytes of a long one. */
const LINE_BYTES = 1024;

/** Who is told what happens on a link. There is one at a time: the exchange that is under way. */
export interface LinkListener {
  line(line: AgentLine): void;
  gone(): void;
}

/**
 * One connection to the chardev socket of QEMU behind which the agent's virtio-serial port lies, and the syncs that
 * are unanswered on it.
 *
 * QEMU reads this socket only while the guest has the port open, so what is written before stays in the socket and is
 * delivered when the agent opens its port. Closing the connection throws away what QEMU has not read yet: this is
 * how a request that timed out is kept from being run later.
 */
export class AgentLink {
  readonly #socket: Socket;
  readonly #splitter: LineSplitter;
  readonly #lineBytesMax: number;
  readonly #log: Logger;
  readonly #closed = Promise.withResolvers<void>();
  #listener: LinkListener | undefined;
  #syncs: number[] = [];
  /** What came since the last answer to a sync and answered none, in bytes; a line weighs LINE_BYTES at least. */
  #idleBytes = 0;

  private constructor(socket: Socket, lineBytesMax: number, log: Logger) {
    this.#socket = socket;
    this.#splitter = new LineSplitter(lineBytesMax);
    this.#lineBytesMax = lineBytesMax;
    this.#log = log;
    socket.on('data', (chunk: Buffer) => {
      for (const line of this.#splitter.push(chunk)) this.#take(line);
    });
    socket.on('error', (error) => {
      log.debug({ errno: errnoOf(error) }, 'guest agent socket failed');
    });
    socket.once('close', () => {
      this.#closed.resolve();
      this.#listener?.gone();
    });
  }

  /** Connects once. Rejects with the system error (ENOENT and ECONNREFUSED: QEMU does not listen). */
  static async connect(path: string, lineBytesMax: number, log: Logger): Promise<AgentLink> {
    const { promise, resolve, reject } = Promise.withResolvers<AgentLink>();
    const socket = createConnection(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(new AgentLink(socket, lineBytesMax, log));
    });
    return promise;
  }

  get open(): boolean {
    return !this.#socket.destroyed;
  }

  /** Syncs that were sent here and not answered. */
  get syncsOutstanding(): number {
    return this.#syncs.length;
  }

  listen(listener: LinkListener): Disposable {
    this.#listener = listener;
    return {
      [Symbol.dispose]: () => {
        if (this.#listener === listener) this.#listener = undefined;
      },
    };
  }

  /** Sends bytes; with `wipe`, zeroes them once they are written or the socket is gone. */
  send(bytes: Buffer, wipe: boolean): void {
    this.#socket.write(bytes, () => {
      if (wipe) bytes.fill(0);
    });
  }

  sendSync(): void {
    const id = randomInt(2 ** 47);
    this.#syncs.push(id);
    this.send(syncLine(id), false);
  }

  /**
   * Takes the answer to a sync off the books. The agent answers in order, so `last` means that nothing that was sent
   * before can be answered any more.
   */
  answered(line: AgentLine): 'last' | 'earlier' | 'none' {
    const isShort = line.delimited && line.kind === 'text' && line.bytes.length <= SYNC_REPLY_BYTES_MAX;
    const reply = isShort ? parseReply(line.bytes) : undefined;
    const position = reply?.kind === 'return' ? this.#syncs.findIndex((id) => id === reply.value) : -1;
    if (position === -1) {
      this.#countIdle(line.bytes.length);
      return 'none';
    }
    this.#idleBytes = 0;
    this.#syncs = this.#syncs.slice(position + 1);
    return this.#syncs.length === 0 ? 'last' : 'earlier';
  }

  /**
   * Late replies to requests that were given up may come before the answer to a sync, one of them as long as a line may
   * be. More than that is a guest which floods its port: the link ends.
   */
  #countIdle(bytes: number): void {
    this.#idleBytes += Math.max(bytes, LINE_BYTES);
    if (this.#idleBytes <= this.#lineBytesMax * 2) return;
    this.#log.debug({ bytes: this.#idleBytes }, 'guest agent sends and does not answer');
    this.drop();
  }

  /** Closes now; the listener hears `gone`. */
  drop(): void {
    this.#socket.destroy();
  }

  async closed(): Promise<void> {
    await this.#closed.promise;
  }

  #take(line: AgentLine): void {
    if (this.#listener !== undefined) {
      this.#listener.line(line);
      return;
    }
    // Between requests only the answer to an earlier probe may come. Whatever else the guest sends unasked ends the
    // link, so that a guest which floods its port costs the daemon nothing.
    if (this.answered(line) !== 'none' || this.#isSyncNoise(line)) return;
    this.#log.debug({ bytes: line.bytes.length }, 'guest agent sent something unasked');
    this.drop();
  }

  /** The agent answers the 0xFF byte of a sync with an error line, right before the sync's own reply. */
  #isSyncNoise(line: AgentLine): boolean {
    return this.#syncs.length > 0 && line.kind === 'text' && parseReply(line.bytes)?.kind === 'error';
  }
}
