import { once } from 'node:events';
import type { Socket } from 'node:net';
import { UNMETERED, type Meter } from '../base/budget.ts';
import { Deadline, sleep, waitFor } from '../base/deadline.ts';
import { errnoOf, isShimError, messageOf, ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { connectMetered } from '../base/metered-socket.ts';
import { descriptorOf } from '../base/native.ts';
import { PendingCalls } from './calls.ts';
import { QMP_CONTRACT } from './contract.ts';
import { qmpLost } from './errors.ts';
import { LINE_BYTES_MAX, LineSplitter } from './framing.ts';
import { EventQueue, type QmpListener } from './listener.ts';
import { eventNameOf, parseMessage, type QmpMessage } from './message.ts';
import type { ArgumentsOf, QmpCommandName, QmpEvent, QmpEventName, QmpGreeting, ReturnsOf } from './protocol.ts';

/**
 * One connection to one QEMU:
 *
 *     run ─▶ calls.ts: an id, a time limit ─▶ socket ─▶ QEMU
 *     QEMU ─▶ framing.ts: lines ─▶ message.ts ─┬─ reply ─▶ calls.ts: the call of that id
 *                                              └─ event ─▶ listener.ts: each that listens for it
 *                                                 (one that nobody here knows is passed over, and not parsed)
 *     link.ts makes the next connection when this one breaks; protocol.ts has the types, contract.ts the same as data
 */

const PENDING_MAX = 512;
const LISTENERS_MAX = 4096;
const QUEUE_MAX = 1024;
const HANDSHAKE_TIMEOUT_MS = 5000;
const REFUSED_PAUSE_MS = 5;
const REPLY_TIMEOUT_MS = 30_000;
/** How long a close waits for a server that does not take our last bytes. */
const CLOSE_GRACE_MS = 1000;
/** Messages that belong to nothing. QEMU sends none: with more than these, whatever sends them is no QEMU. */
const STRANGE_MAX = 64;
/** What it costs to pass over an event that nobody knows, and what a read costs, in lines that are parsed. */
const PASSED_OVER_LINES = 1 / 16;

export interface QmpConnectOptions {
  /** Path of the monitor's unix socket. */
  readonly path: string;
  readonly log: Logger;
  /** Bytes; a longer line ends the connection. 16 MiB. */
  readonly lineBytesMax?: number;
  /** Calls that QEMU owes a reply, those that timed out included. 512. */
  readonly pendingMax?: number;
  /** For connecting, greeting and capability negotiation together. 5000. */
  readonly handshakeTimeoutMs?: number;
  /** For each call that sets no limit of its own. 30000. */
  readonly replyTimeoutMs?: number;
  /**
   * QEMU was just started: it binds its socket a moment before it listens, so a refusal is tried again until the limit.
   */
  readonly startingUp?: boolean;
  /**
   * Counts what was not asked for: a guest can cause events. The connection rests when there are too many, and is never
   * ended for that. None: nobody counts.
   */
  readonly meter?: Meter;
  /** Ends the connecting only, not the client. */
  readonly signal?: AbortSignal;
}

export interface RunOptions {
  readonly timeoutMs?: number;
}

/** Puts bytes on a socket, given as a descriptor, with a descriptor beside them (SCM_RIGHTS). */
export type DescriptorSender = (socket: number, bytes: Uint8Array) => Promise<void>;

export interface ListenOptions {
  /** Events that may wait to be taken. 1024. */
  readonly queueMax?: number;
}

type RunParameters<C extends QmpCommandName> =
  undefined extends ArgumentsOf<C>
    ? [args?: ArgumentsOf<C>, options?: RunOptions]
    : [args: ArgumentsOf<C>, options?: RunOptions];

interface EventSink {
  offer(event: QmpEvent): void;
  end(cause: Error): void;
}

/**
 * A QMP client on one unix socket. Calls are pipelined and matched by id; events reach listeners in wire order, before
 * any reply that came after them. Events are not replayed: whoever connects anew compares with what QEMU lists.
 *
 * INVARIANT: every call and every wait ends. When the connection does, all of them fail with UNAVAILABLE / QMP_LOST.
 */
export class QmpClient implements AsyncDisposable {
  /** Resolves (never rejects) with the cause once the connection has ended and its descriptor is free. */
  readonly closed: Promise<ShimError>;
  readonly #closed = Promise.withResolvers<ShimError>();
  readonly #greeted = Promise.withResolvers<QmpGreeting>();
  readonly #socket: Socket;
  readonly #log: Logger;
  readonly #splitter: LineSplitter;
  readonly #calls: PendingCalls;
  readonly #sinks = new Set<EventSink>();
  #greeting: QmpGreeting | undefined;
  #cause: ShimError | undefined;
  #released = false;
  #strange = 0;

  private constructor(socket: Socket, options: QmpConnectOptions) {
    this.closed = this.#closed.promise;
    // It may end before anyone waits for the greeting.
    this.#greeted.promise.catch(() => undefined);
    this.#socket = socket;
    this.#log = options.log;
    this.#splitter = new LineSplitter(options.lineBytesMax ?? LINE_BYTES_MAX);
    this.#calls = new PendingCalls({
      pendingMax: options.pendingMax ?? PENDING_MAX,
      replyTimeoutMs: options.replyTimeoutMs ?? REPLY_TIMEOUT_MS,
      log: options.log,
      write: (text) => socket.write(text, () => this.#calls.written()),
      isIdle: () => socket.writableLength === 0,
    });
    socket.on('drain', () => this.#calls.flush());
    socket.on('end', () => this.#fail(qmpLost('QEMU closed the QMP connection')));
    socket.on('error', (error) => this.#fail(qmpLost(`the QMP connection broke: ${error.message}`, error)));
    socket.once('close', () => this.#onClose());
  }

  /**
   * Connects, reads the greeting and negotiates (qmp_capabilities, without out-of-band execution).
   * QMP serves one client at a time and lets a second one hang without a greeting, hence the limit.
   * @throws ShimError UNAVAILABLE / QMP_CONNECT_FAILED (metadata.errno), QMP_NO_GREETING or QMP_LOST
   * @throws the signal's reason when aborted
   */
  static async connect(options: QmpConnectOptions): Promise<QmpClient> {
    const deadline = Deadline.after(options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS);
    for (;;) {
      try {
        return await QmpClient.#attempt(options, deadline);
      } catch (error) {
        const refused = isShimError(error) && error.metadata['errno'] === 'ECONNREFUSED';
        if (options.startingUp !== true || !refused || deadline.expired) throw error;
        await sleep(REFUSED_PAUSE_MS, options.signal);
      }
    }
  }

  static async #attempt(options: QmpConnectOptions, deadline: Deadline): Promise<QmpClient> {
    const limits = (): Parameters<typeof waitFor>[1] => ({
      milliseconds: deadline.remainingMs,
      onTimeout: () => noGreeting(options.path, deadline.totalMs),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    options.signal?.throwIfAborted();
    let client: QmpClient | undefined;
    const socket = connectMetered({
      path: options.path,
      meter: options.meter ?? UNMETERED,
      take: (chunk) => client?.read(chunk) ?? { bytes: 0, lines: 1 },
    });
    // Made as soon as it is connected: the greeting comes at once.
    socket.once('connect', () => {
      client = new QmpClient(socket, options);
    });
    try {
      await waitFor(connected(socket, options.path), limits());
      if (client === undefined) throw qmpLost('the QMP connection was closed');
      await waitFor(client.#greeted.promise, limits());
      // The deadline ends this wait; the call's own limit must not get ahead of it with another error.
      await waitFor(client.run('qmp_capabilities', undefined, { timeoutMs: 2 * deadline.totalMs }), limits());
      options.log.debug({ path: options.path, version: client.greeting.version }, 'qmp connected');
      return client;
    } catch (error) {
      socket.destroy();
      if (!socket.closed) await once(socket, 'close');
      throw isShimError(error) || options.signal?.aborted === true
        ? error
        : qmpLost(`the QMP handshake failed: ${messageOf(error)}`, error);
    }
  }

  get greeting(): QmpGreeting {
    if (this.#greeting === undefined) throw new Error('a client is handed out only after its greeting');
    return this.#greeting;
  }

  get state(): 'ready' | 'closing' | 'closed' {
    if (this.#released) return 'closed';
    return this.#cause === undefined ? 'ready' : 'closing';
  }

  /** What has come that nobody waited for, since the connection began. */
  get statistics(): { readonly lateReplies: number; readonly unknownReplies: number } {
    return { lateReplies: this.#calls.lateReplies, unknownReplies: this.#calls.unknownReplies };
  }

  /** For how long QEMU has owed its oldest reply. */
  get owedMs(): number {
    return this.#calls.owedMs;
  }

  /**
   * Sends one command and gives its answer. A reply is not an outcome: what device_del begins, an event ends.
   * @throws QmpError when QEMU refuses: branch on `errorClass`
   * @throws ShimError DEADLINE_EXCEEDED / QMP_REPLY_TIMEOUT: whether QEMU did it is unknown unless metadata.sent is
   *   "false"
   * @throws ShimError UNAVAILABLE / QMP_LOST, also at once when the connection has ended
   * @throws ShimError RESOURCE_EXHAUSTED / QMP_QUEUE_FULL: nothing was sent
   */
  async run<C extends QmpCommandName>(command: C, ...parameters: RunParameters<C>): Promise<ReturnsOf<C>> {
    const [args, options] = parameters;
    const value = await this.#calls.send(command, args, options?.timeoutMs);
    // The wire is not checked against the type here: the contract test holds each member that is read against the
    // binary.
    return value;
  }

  /**
   * Gives QEMU an open file, as a set of its own that /dev/fdset/N opens. It goes in its turn among the commands.
   * @param send puts the command on the connection's socket, with the descriptor beside it; an error with `sent` true
   *   says that it is not known how much went, and ends the connection
   * @throws as run; what `send` throws
   */
  async addDescriptor(args: ArgumentsOf<'add-fd'>, send: DescriptorSender): Promise<ReturnsOf<'add-fd'>> {
    const value = await this.#calls.send('add-fd', args, undefined, async (text) => {
      try {
        const socket = descriptorOf(this.#socket);
        if (socket === undefined) throw qmpLost('the QMP connection was closed');
        await send(socket, Buffer.from(text));
      } catch (error) {
        if (error instanceof Error && 'sent' in error) {
          this.#fail(qmpLost(`a command with a descriptor was not sent whole: ${messageOf(error)}`, error));
        }
        throw error;
      }
    });
    return value as ReturnsOf<'add-fd'>;
  }

  /**
   * Opens a listener: do it before the command whose effect it waits for, with `using`. On an ended connection its
   * `next` fails at once.
   * @param predicate picks among the events; it must be quick and must not throw
   * @throws ShimError RESOURCE_EXHAUSTED / QMP_LISTENERS_FULL
   */
  listen<E extends QmpEventName>(
    events: E | readonly E[],
    predicate: (event: QmpEvent<E>) => boolean = () => true,
    options: ListenOptions = {},
  ): QmpListener<E> {
    if (this.#sinks.size >= LISTENERS_MAX) {
      throw new ShimError('RESOURCE_EXHAUSTED', `${LISTENERS_MAX} QMP listeners are open already`, {
        reason: 'QMP_LISTENERS_FULL',
      });
    }
    const listener = new EventQueue<E>({
      names: typeof events === 'string' ? [events] : events,
      predicate,
      queueMax: options.queueMax ?? QUEUE_MAX,
      onDispose: () => this.#sinks.delete(listener),
    });
    this.#sinks.add(listener);
    if (this.#cause !== undefined) listener.end(this.#cause);
    return listener;
  }

  /** Closes the connection; calls and waits under way fail with QMP_LOST. Safe to repeat. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(qmpLost('the QMP client was closed'));
    await this.closed;
  }

  /** Takes what was read from the socket. @returns what of it nobody has asked for */
  read(chunk: Buffer): { readonly bytes: number; readonly lines: number } {
    const cost = { bytes: 0, lines: PASSED_OVER_LINES };
    try {
      const isWhole = this.#splitter.push(chunk, (line) => {
        // After a fatal line nothing more is believed.
        if (this.#cause !== undefined || line.length === 0) return;
        const event = eventNameOf(line);
        if (event !== undefined) {
          const isKnown = Object.hasOwn(QMP_CONTRACT.events, event);
          cost.bytes += line.length;
          cost.lines += isKnown ? 1 : PASSED_OVER_LINES;
          if (!isKnown) return;
        }
        const message = parseMessage(line.toString('utf8'));
        if (event === undefined && message.kind === 'event') cost.lines += 1;
        this.#onMessage(message);
      });
      if (!isWhole) throw qmpLost('QMP sent a line longer than the limit');
    } catch (error) {
      this.#fail(
        isShimError(error) ? error : qmpLost(`a QMP message could not be handled: ${messageOf(error)}`, error),
      );
    }
    return cost;
  }

  #onMessage(message: QmpMessage): void {
    if (this.#greeting === undefined && message.kind !== 'greeting') throw qmpLost('QMP did not begin with a greeting');
    switch (message.kind) {
      case 'greeting':
        if (this.#greeting !== undefined) throw qmpLost('QMP greeted a second time');
        this.#greeting = message.greeting;
        this.#greeted.resolve(message.greeting);
        break;
      case 'event':
        this.#onEvent(message.event, message.data, message.timestampMs);
        break;
      case 'return':
      case 'error':
        if (!this.#calls.settle(message)) this.#onStrange();
        break;
      case 'unknown':
        this.#log.warn({ members: message.members.slice(0, 8) }, 'qmp message of an unknown kind ignored');
        this.#onStrange();
        break;
    }
  }

  #onStrange(): void {
    this.#strange += 1;
    if (this.#strange > STRANGE_MAX) throw qmpLost(`QMP sent ${this.#strange} messages that belong to nothing`);
  }

  #onEvent(name: string, data: unknown, timestampMs: number): void {
    if (!Object.hasOwn(QMP_CONTRACT.events, name)) {
      this.#log.debug({ event: name }, 'unknown qmp event ignored');
      return;
    }
    this.#log.trace({ event: name, data }, 'qmp event');
    // The name is one of ours, and the contract test holds the members against the binary.
    const event = { event: name, data, timestampMs } as QmpEvent;
    for (const sink of this.#sinks) sink.offer(event);
  }

  /** Ends everything at once; the first cause stays. The descriptor follows, see `closed`. */
  #fail(cause: ShimError): void {
    if (this.#cause !== undefined) return;
    this.#cause = cause;
    this.#log.debug({ cause: cause.message }, 'qmp connection ends');
    this.#greeted.reject(cause);
    this.#calls.fail(cause);
    for (const sink of this.#sinks) sink.end(cause);
    this.#sinks.clear();
    this.#socket.destroySoon();
    const grace = setTimeout(() => this.#socket.destroy(), CLOSE_GRACE_MS);
    this.#socket.once('close', () => clearTimeout(grace));
  }

  #onClose(): void {
    this.#fail(qmpLost('the QMP connection was closed'));
    this.#released = true;
    this.#closed.resolve(this.#cause ?? qmpLost('the QMP connection was closed'));
  }
}

async function connected(socket: Socket, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  const onError = (error: Error): void => {
    const errno = errnoOf(error) ?? 'unknown';
    reject(
      new ShimError('UNAVAILABLE', `cannot connect to the QMP socket ${path}: ${error.message}`, {
        reason: 'QMP_CONNECT_FAILED',
        metadata: { path, errno },
        cause: error,
      }),
    );
  };
  socket.once('connect', () => resolve(undefined));
  socket.on('error', onError);
  try {
    await promise;
  } finally {
    socket.off('error', onError);
  }
}

function noGreeting(path: string, timeoutMs: number): ShimError {
  return new ShimError(
    'UNAVAILABLE',
    `the QMP server at ${path} did not complete its greeting within ${timeoutMs} ms; it may be serving another client`,
    { reason: 'QMP_NO_GREETING', metadata: { path, timeoutMs: String(timeoutMs) } },
  );
}
