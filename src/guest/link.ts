import { randomInt } from 'node:crypto';
import type { Socket } from 'node:net';
import { UNMETERED, type GuestBudget } from '../base/budget.ts';
import { errnoOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { connectMetered } from '../base/metered-socket.ts';
import { LineSplitter, parseReply, syncLine, type AgentLine, type LineLimit } from './wire.ts';

/**
 * The reply to guest-sync-delimited is an object with a number and an id. While nothing else is asked for, no longer
 * line is kept: the agent's complaint about 0xFF has some hundred bytes.
 */
const SYNC_REPLY_BYTES_MAX = 256;
const IDLE_LIMIT: LineLimit = { lineBytesMax: 1024 };
/** What a line costs at least, in bytes of a long one. */
const LINE_BYTES = 1024;
/** What may come unasked between two answers: complaints, late replies to small requests. */
const UNASKED_BYTES_MAX = 64 * 1024;

/** Who is told what happens on a link. There is one at a time: the exchange that is under way. */
export interface LinkListener {
  line(line: AgentLine): void;
  gone(): void;
}

export interface AgentLinkOptions {
  readonly path: string;
  readonly log: Logger;
  readonly budget: GuestBudget | undefined;
}

/**
 * One connection to the chardev socket of QEMU behind which the agent's virtio-serial port lies, and the syncs that
 * are unanswered on it.
 *
 * QEMU reads this socket only while the guest has the port open, so what is written before stays in the socket and is
 * delivered when the agent opens its port. Closing the connection throws away what QEMU has not read yet: this is
 * how a request that timed out is kept from being run later.
 *
 * What is kept of what comes depends on what was asked: of a reply as much as its command may have (`expect`), of all
 * else next to nothing. A guest that sends more than was asked of it loses the connection.
 */
export class AgentLink {
  readonly #socket: Socket;
  readonly #splitter = new LineSplitter(IDLE_LIMIT.lineBytesMax);
  readonly #log: Logger;
  readonly #budget: GuestBudget | undefined;
  readonly #closed = Promise.withResolvers<void>();
  #listener: LinkListener | undefined;
  #syncs: number[] = [];
  /** What came since the last answer to anything, in bytes; a line weighs LINE_BYTES at least. */
  #unasked = 0;
  #unaskedMax = UNASKED_BYTES_MAX;
  #flooded = false;

  private constructor(socket: Socket, { log, budget }: AgentLinkOptions) {
    this.#socket = socket;
    this.#log = log;
    this.#budget = budget;
    socket.on('error', (error) => {
      log.debug({ errno: errnoOf(error) }, 'guest agent socket failed');
    });
    socket.once('close', () => {
      this.#closed.resolve();
      this.#listener?.gone();
    });
  }

  /** Connects once. Rejects with the system error (ENOENT and ECONNREFUSED: QEMU does not listen). */
  static async connect(options: AgentLinkOptions): Promise<AgentLink> {
    const { promise, resolve, reject } = Promise.withResolvers<AgentLink>();
    let link: AgentLink | undefined;
    const socket = connectMetered({
      path: options.path,
      meter: options.budget?.control('agent') ?? UNMETERED,
      take: (chunk) => ({ bytes: chunk.length, lines: Math.max(1, link?.read(chunk) ?? 0) }),
    });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      link = new AgentLink(socket, options);
      resolve(link);
    });
    return promise;
  }

  get open(): boolean {
    return !this.#socket.destroyed;
  }

  /** It was ended because of what came over it. */
  get flooded(): boolean {
    return this.#flooded;
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

  /** A reply of this size may come, until it is disposed of. */
  expect(limit: LineLimit): Disposable {
    this.#splitter.expect(limit);
    this.#unasked = 0;
    this.#unaskedMax = UNASKED_BYTES_MAX + limit.lineBytesMax;
    return {
      [Symbol.dispose]: () => {
        this.#splitter.expect(IDLE_LIMIT);
        this.#unasked = 0;
        this.#unaskedMax = UNASKED_BYTES_MAX;
      },
    };
  }

  /** A reply of so many bytes may still come to a request that was given up. It is passed over. */
  owed(bytes: number): void {
    this.#unaskedMax = UNASKED_BYTES_MAX + bytes;
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
    if (position === -1) return 'none';
    this.#unasked = 0;
    this.#syncs = this.#syncs.slice(position + 1);
    return this.#syncs.length === 0 ? 'last' : 'earlier';
  }

  /** What came is nothing that an agent sends: ends the link, and says so. */
  refuse(what: string): void {
    if (!this.open) return;
    this.#flooded = true;
    this.#log.debug({ problem: what, bytes: this.#unasked }, 'guest agent loses its connection');
    this.#budget?.over('agent', what);
    this.drop();
  }

  /** Closes now; the listener hears `gone`. */
  drop(): void {
    this.#socket.destroy();
  }

  async closed(): Promise<void> {
    await this.#closed.promise;
  }

  /** Takes what was read from the socket. @returns how many lines it completed */
  read(chunk: Buffer): number {
    let lines = 0;
    this.#unasked += chunk.length;
    this.#splitter.push(chunk, (line) => {
      // Of a link that was dropped in the middle of a chunk nothing more is believed.
      if (!this.open) return;
      lines += 1;
      this.#unasked += Math.max(0, LINE_BYTES - line.bytes.length);
      this.#take(line);
      this.#checkUnasked();
    });
    this.#checkUnasked();
    return lines;
  }

  #checkUnasked(): void {
    if (this.#unasked > this.#unaskedMax) this.refuse('it sends what nobody has asked for');
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
