import type { Socket } from 'node:net';
import { UNMETERED, type GuestBudget } from '../base/budget.ts';
import { waitFor } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import { GrowingBuffer } from '../base/growing-buffer.ts';
import type { Logger } from '../base/log.ts';
import { connectMetered } from '../base/metered-socket.ts';

/**
 * What the guest's kernel announces of its devices (Linux, lib/kobject_uevent.c), as it comes through a virtio-serial
 * port: one message is "ACTION@DEVPATH" and then "NAME=value" for each variable, every string with a zero byte behind
 * it. A message on the netlink socket is a datagram; on the port they follow each other without a mark, but SEQNUM is
 * always the last variable.
 */
export interface Uevent {
  /** "add", "remove", "change", ... */
  readonly action: string;
  /** Below /sys. */
  readonly path: string;
  readonly variables: ReadonlyMap<string, string>;
}

/** The kernel's own limits are 2048 bytes and 64 variables a message (UEVENT_BUFFER_SIZE, UEVENT_NUM_ENVP). */
const STRING_BYTES_MAX = 4096;
const VARIABLES_MAX = 128;
const HEADER = /^([a-z]+)@(\/.*)$/s;
/** Twice what a writer without a filter sends of 80 disks; to read it takes a tenth of a CPU. */
const BYTES_PER_SECOND_MAX = 512 * 1024;
const SECOND_MS = 1000;

/**
 * Cuts a byte stream into messages. What does not belong to one (the writer was started anew in the middle) is passed
 * over.
 */
export class UeventSplitter {
  readonly #rest = new GrowingBuffer();
  #header: { readonly action: string; readonly path: string } | undefined;
  #variables = new Map<string, string>();

  /** Nothing of the chunk is kept. @throws Error for what no kernel sends: a string or a message without an end */
  push(chunk: Buffer): readonly Uevent[] {
    const events: Uevent[] = [];
    let from = 0;
    for (let end = chunk.indexOf(0); end !== -1; end = chunk.indexOf(0, from)) {
      const event = this.#take(this.#string(chunk.subarray(from, end)));
      if (event !== undefined) events.push(event);
      from = end + 1;
    }
    if (from < chunk.length) this.#append(chunk.subarray(from));
    return events;
  }

  #string(end: Buffer): string {
    if (this.#rest.length === 0 && end.length <= STRING_BYTES_MAX) return end.toString('latin1');
    this.#append(end);
    const text = this.#rest.bytes.toString('latin1');
    this.#rest.clear();
    return text;
  }

  #append(part: Buffer): void {
    if (this.#rest.length + part.length > STRING_BYTES_MAX) {
      throw new Error(`a string of more than ${STRING_BYTES_MAX} bytes`);
    }
    this.#rest.append(part);
  }

  #take(text: string): Uevent | undefined {
    const [, action, path] = HEADER.exec(text) ?? [];
    if (action !== undefined && path !== undefined) {
      this.#header = { action, path };
      this.#variables = new Map();
      return undefined;
    }
    const equals = text.indexOf('=');
    if (this.#header === undefined || equals === -1) return undefined;
    this.#variables.set(text.slice(0, equals), text.slice(equals + 1));
    if (this.#variables.size > VARIABLES_MAX) throw new Error(`more than ${VARIABLES_MAX} variables`);
    if (!text.startsWith('SEQNUM=')) return undefined;
    const event = { ...this.#header, variables: this.#variables };
    this.#header = undefined;
    this.#variables = new Map();
    return event;
  }
}

export interface UeventListener {
  event(event: Uevent): void;
  /** Once, when nothing more will come. */
  lost(): void;
}

/**
 * One connection to the chardev socket behind the port. The guest is not trusted: one that sends what no kernel does,
 * or floods the port, loses the connection, and with it nothing but speed.
 */
export class UeventStream implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #log: Logger;
  readonly #listener: UeventListener;
  readonly #splitter = new UeventSplitter();
  readonly #budget: GuestBudget | undefined;
  readonly #closed = Promise.withResolvers<void>();
  /** Resolved when a synthetic event with this id (SYNTH_UUID) has come. */
  readonly #marks = new Map<string, PromiseWithResolvers<boolean>>();
  #windowMs = 0;
  #windowBytes = 0;

  private constructor(socket: Socket, log: Logger, listener: UeventListener, budget: GuestBudget | undefined) {
    this.#socket = socket;
    this.#log = log;
    this.#listener = listener;
    this.#budget = budget;
    socket.on('error', (error) => log.debug({ errno: errnoOf(error) }, 'uevent socket failed'));
    socket.once('close', () => {
      for (const mark of this.#marks.values()) mark.resolve(false);
      listener.lost();
      this.#closed.resolve();
    });
  }

  /**
   * Connects once. Rejects with the system error (ENOENT: this VM was started without such a port).
   * @param budget what its guest may cost; none: nobody counts
   */
  static async connect(
    path: string,
    log: Logger,
    listener: UeventListener,
    budget?: GuestBudget,
  ): Promise<UeventStream> {
    const { promise, resolve, reject } = Promise.withResolvers<UeventStream>();
    let stream: UeventStream | undefined;
    const socket = connectMetered({
      path,
      meter: budget?.control('uevents') ?? UNMETERED,
      take: (chunk) => ({ bytes: chunk.length, lines: Math.max(1, stream?.read(chunk) ?? 0) }),
    });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      stream = new UeventStream(socket, log, listener, budget);
      resolve(stream);
    });
    return promise;
  }

  get open(): boolean {
    return !this.#socket.destroyed;
  }

  /**
   * True once the kernel's synthetic event of this id has come, false when it has not in time. Ask before it is caused.
   */
  async marked(
    uuid: string,
    limits: { readonly milliseconds: number; readonly signal: AbortSignal },
  ): Promise<boolean> {
    const mark = Promise.withResolvers<boolean>();
    this.#marks.set(uuid, mark);
    if (!this.open) mark.resolve(false);
    try {
      return await waitFor(mark.promise, limits);
    } catch {
      return false;
    } finally {
      this.#marks.delete(uuid);
    }
  }

  /** Writes to the guest's end of the port. Nothing is known of whether anybody reads it. */
  send(text: string): void {
    if (this.open) this.#socket.write(text);
  }

  /** Closes; the listener hears `lost`. */
  drop(): void {
    this.#socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.drop();
    await this.#closed.promise;
  }

  /** Takes what was read from the socket. @returns how many messages it completed */
  read(chunk: Buffer): number {
    try {
      this.#count(chunk.length);
      const events = this.#splitter.push(chunk);
      for (const event of events) {
        const mark = event.variables.get('SYNTH_UUID');
        if (mark !== undefined) this.#marks.get(mark)?.resolve(true);
        this.#listener.event(event);
      }
      return events.length;
    } catch (error) {
      this.#log.warn({ problem: String(error) }, 'uevents of the guest not listened to any more');
      this.#budget?.over('uevents', `it announces what no kernel does: ${messageOf(error)}`);
      this.drop();
      return 0;
    }
  }

  #count(bytes: number): void {
    const nowMs = performance.now();
    if (nowMs - this.#windowMs > SECOND_MS) {
      this.#windowMs = nowMs;
      this.#windowBytes = 0;
    }
    this.#windowBytes += bytes;
    if (this.#windowBytes > BYTES_PER_SECOND_MAX) throw new Error(`more than ${BYTES_PER_SECOND_MAX} bytes a second`);
  }
}
