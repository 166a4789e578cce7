import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { errnoOf } from '../../src/base/errors.ts';
import { descriptorOf } from '../../src/base/native.ts';
import { receiveDescriptor, sendWithDescriptor } from '../../src/files/native.ts';
import { until } from '../support/until.ts';

const NEWLINE = 0x0a;
/** The agent's protocol puts it before the answer to a sync. */
const SENTINEL = 0xff;
/** Ids of requests that the wire itself sends; their answers never reach the daemon. */
const OWN_ID = 'wire-';
const MARK = '/mem/null/uevent';
const CHUNK_BYTES = 64 * 1024;
/** Node would throw descriptors away: the daemon's side is read past it, and nobody is woken for that. */
const POLL_MS = 2;
/** The command that has a descriptor beside it. */
const WITH_DESCRIPTOR = 'add-fd';

type Direction = 'up' | 'down';

/** One line on its way, up to QEMU (or the guest's agent) or down to the daemon. */
export interface Line {
  readonly direction: Direction;
  readonly bytes: Buffer;
  readonly message: Readonly<Record<string, unknown>>;
  /** The command: of a request its own, of a reply the one that it answers. */
  readonly command: string | undefined;
  readonly event: string | undefined;
}

export type LineTest = (line: Line) => boolean;

/** Gives what goes on in place of a line: itself, others, nothing. */
export type LineFilter = (line: Line, wire: Wire) => readonly (Buffer | string)[] | undefined;

/** A line that waits on the wire. */
export interface Held {
  readonly line: Line;
  /** Lets it, and what queued up behind it, go on; without effect once its connection has ended. */
  pass(): void;
  /** Throws it away and lets the rest go on. */
  drop(): void;
}

interface Hold {
  readonly test: LineTest;
  readonly overtaking: boolean;
  readonly taken: PromiseWithResolvers<Held>;
}

/**
 * A unix socket between the daemon and a real QEMU (monitor or guest agent) on which lines can be held, dropped,
 * changed, put in, and which can be cut. Everything else passes as it is, so QEMU and guest stay the real ones and a
 * fault still strikes at an exact point.
 */
export class Wire implements AsyncDisposable {
  readonly #server: Server;
  readonly #upstream: string;
  readonly #filters = new Set<LineFilter>();
  readonly #links = new Set<Link>();
  #holds: Hold[] = [];
  #ownIds = 0;

  private constructor(server: Server, upstream: string) {
    this.#server = server;
    this.#upstream = upstream;
    server.on('connection', (socket) => {
      const link = new Link(this, socket, createConnection(this.#upstream), () => this.#links.delete(link));
      this.#links.add(link);
    });
  }

  /** Listens on `path`; each connection is joined to one of its own to `upstream`. */
  static async listen(path: string, upstream: string): Promise<Wire> {
    const server = createServer({ pauseOnConnect: true });
    const wire = new Wire(server, upstream);
    server.listen(path);
    await once(server, 'listening');
    return wire;
  }

  /**
   * Holds the next line that fits. Lines behind it in the same direction wait too, as in a peer that has stopped to
   * read; with `overtaking` they pass it.
   */
  hold(test: LineTest, options: { readonly overtaking?: boolean } = {}): Promise<Held> & Disposable {
    const hold: Hold = { test, overtaking: options.overtaking ?? false, taken: Promise.withResolvers<Held>() };
    this.#holds.push(hold);
    const dispose = (): void => {
      this.#holds = this.#holds.filter((one) => one !== hold);
    };
    return Object.assign(hold.taken.promise, { [Symbol.dispose]: dispose });
  }

  /** Puts a filter on every line until it is disposed of. */
  filter(filter: LineFilter): Disposable {
    this.#filters.add(filter);
    return { [Symbol.dispose]: () => this.#filters.delete(filter) };
  }

  /** Sends bytes to the daemon as if QEMU or the guest had. */
  sendDown(bytes: Buffer | string): void {
    for (const link of this.#links) link.down.write(bytes);
  }

  /** Sends a request of the test's own past everything that is held; the daemon does not see its answer. */
  sendUp(execute: string, args: Readonly<Record<string, unknown>>): void {
    this.#ownIds += 1;
    const text = `${JSON.stringify({ execute, arguments: args, id: `${OWN_ID}${this.#ownIds}` })}\n`;
    for (const link of this.#links) link.up.write(text);
  }

  /** Breaks every connection at once; new ones are served. */
  cut(): void {
    for (const link of this.#links) link.end();
  }

  /** Waits until the daemon is connected. */
  async connected(): Promise<void> {
    await until('the daemon is connected', () => this.#links.size > 0);
  }

  /** For a link: what becomes of a line. */
  route(line: Line): { readonly bytes: readonly (Buffer | string)[]; readonly hold: Hold | undefined } {
    const { id } = line.message;
    if (line.direction === 'down' && typeof id === 'string' && id.startsWith(OWN_ID)) {
      return { bytes: [], hold: undefined };
    }
    const hold = this.#holds.find((one) => one.test(line));
    if (hold !== undefined) this.#holds = this.#holds.filter((one) => one !== hold);
    for (const filter of this.#filters) {
      const changed = filter(line, this);
      if (changed !== undefined) return { bytes: changed, hold };
    }
    return { bytes: [line.bytes], hold };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.cut();
    await closed;
  }
}

/** One connection of the daemon, joined to one of QEMU's. */
class Link {
  readonly down: Socket;
  readonly up: Socket;
  readonly #wire: Wire;
  readonly #commands = new Map<unknown, string>();
  /** Lines behind a held one, for each direction; undefined while nothing is held. */
  readonly #queued: Record<Direction, Buffer[] | undefined> = { up: undefined, down: undefined };
  #lastCommand: string | undefined;
  /** Descriptors that came from the daemon, for the commands that are still on their way. */
  readonly #descriptors: number[] = [];
  readonly #poll: NodeJS.Timeout;

  constructor(wire: Wire, down: Socket, up: Socket, onEnd: () => void) {
    this.#wire = wire;
    this.down = down;
    this.up = up;
    for (const socket of [down, up]) {
      socket.on('error', () => undefined);
      socket.once('close', () => {
        onEnd();
        this.end();
      });
    }
    const onBytes = lines((bytes) => this.#onLine('up', bytes));
    this.#poll = setInterval(() => this.#take(onBytes), POLL_MS);
    read(up, (bytes) => this.#onLine('down', bytes));
  }

  end(): void {
    clearInterval(this.#poll);
    this.down.destroy();
    this.up.destroy();
    for (const descriptor of this.#descriptors.splice(0)) closeSync(descriptor);
  }

  /** Takes what the daemon has sent, with the descriptors beside it. */
  #take(onBytes: (bytes: Buffer) => void): void {
    try {
      for (let down = descriptorOf(this.down); down !== undefined; down = descriptorOf(this.down)) {
        const { bytes, descriptor } = receiveDescriptor(down, CHUNK_BYTES);
        if (descriptor !== undefined) this.#descriptors.push(descriptor);
        if (bytes.length === 0) this.end();
        else onBytes(bytes);
      }
    } catch (error) {
      if (errnoOf(error) !== 'EAGAIN') this.end();
    }
  }

  #write(direction: Direction, part: Buffer | string, command: string | undefined): void {
    const socket = direction === 'up' ? this.up : this.down;
    if (socket.destroyed) return;
    const descriptor = direction === 'up' && command === WITH_DESCRIPTOR ? this.#descriptors.shift() : undefined;
    if (descriptor === undefined) {
      socket.write(part);
      return;
    }
    try {
      const bytes = Buffer.from(part);
      // All that came before has gone: these are few and short.
      const to = descriptorOf(socket);
      const sent = to !== undefined && socket.writableLength === 0 ? sendWithDescriptor(to, bytes, descriptor) : 0;
      socket.write(bytes.subarray(sent));
    } finally {
      closeSync(descriptor);
    }
  }

  #onLine(direction: Direction, bytes: Buffer): void {
    const queue = this.#queued[direction];
    if (queue !== undefined) queue.push(bytes);
    else this.#forward(direction, bytes);
  }

  #forward(direction: Direction, bytes: Buffer): void {
    const line = this.#parse(direction, bytes);
    const { bytes: out, hold } = this.#wire.route(line);
    const write = (): void => {
      for (const part of out) this.#write(direction, part, line.command);
      if (out.length === 0 && direction === 'up' && line.command === WITH_DESCRIPTOR) this.#forget();
    };
    if (hold === undefined) {
      write();
      return;
    }
    if (!hold.overtaking) this.#queued[direction] = [];
    const goOn = (): void => {
      const queue = this.#queued[direction] ?? [];
      this.#queued[direction] = undefined;
      // One of those may be held in its turn; the rest then waits again.
      for (const waiting of queue) this.#onLine(direction, waiting);
    };
    hold.taken.resolve({
      line,
      pass: () => {
        write();
        if (!hold.overtaking) goOn();
      },
      drop: () => {
        if (direction === 'up' && line.command === WITH_DESCRIPTOR) this.#forget();
        if (!hold.overtaking) goOn();
      },
    });
  }

  /** The descriptor of a command that goes no further. */
  #forget(): void {
    const descriptor = this.#descriptors.shift();
    if (descriptor !== undefined) closeSync(descriptor);
  }

  #parse(direction: Direction, bytes: Buffer): Line {
    const message = parseObject(bytes);
    const { execute, event, id } = message;
    if (direction === 'up') {
      const name = typeof execute === 'string' ? execute : undefined;
      // The daemon's look whether the guest's announcements come is no step of a plan.
      const command = name !== undefined && bytes.includes(MARK) ? `${name} for a mark` : name;
      if (command !== undefined) {
        this.#commands.set(id, command);
        this.#lastCommand = command;
      }
      return { direction, bytes, message, command, event: undefined };
    }
    const isReply = 'return' in message || 'error' in message;
    // The agent answers in order, one at a time; syncs carry no id.
    const command = isReply ? (this.#commands.get(id) ?? this.#lastCommand) : undefined;
    return { direction, bytes, message, command, event: typeof event === 'string' ? event : undefined };
  }
}

function parseObject(bytes: Buffer): Readonly<Record<string, unknown>> {
  const start = bytes.lastIndexOf(SENTINEL) + 1;
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8', start));
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

function read(socket: Socket, onLine: (bytes: Buffer) => void): void {
  socket.on('data', lines(onLine));
}

/** Cuts a stream into lines, their ends included. */
function lines(onLine: (bytes: Buffer) => void): (chunk: Buffer) => void {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(NEWLINE); end !== -1; end = rest.indexOf(NEWLINE)) {
      const line = rest.subarray(0, end + 1);
      rest = rest.subarray(end + 1);
      onLine(line);
    }
  };
}
