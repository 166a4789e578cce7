import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { Deadline, sleep, waitFor } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import { eachLine } from '../base/lines.ts';
import type { Logger } from '../base/log.ts';
import { NODE_FLAGS } from '../base/node-flags.ts';
import { RELAY_VERSION, responseSchema, type RelayRequest, type RelayResponse } from '../relay/control.ts';
import type { HeldFifo } from '../relay/holds.ts';

const START_TIMEOUT_MS = 20_000;
const ANSWER_TIMEOUT_MS = 5000;
const LOOK_MS = 20;
const RESTART_MS = 500;

interface RelayPlace {
  /** Where containerd connects. */
  readonly socket: string;
  /** Where the daemon listens. */
  readonly backend: string;
  /** The daemon's directory for containerd's affairs. */
  readonly directory: string;
  /** There are pods: containerd's connections for them end with the relay that has them, and so do their FIFOs. */
  readonly inUse: () => boolean;
  /**
   * Called when the relay cannot be reached any more. What it gives is called once it is known that this relay has
   * ended, and another serves in its place: containerd has lost all that it had there.
   */
  readonly gone: () => () => void;
  readonly log: Logger;
}

/**
 * The daemon's side of its relay (relay-main.ts): finds the one that runs, or starts one, and again should it ever die.
 */
export class RelayLink {
  readonly #place: RelayPlace;
  readonly #held = new Map<string, readonly HeldFifo[]>();
  readonly #leaving = new AbortController();
  /** No relay was there: containerd has had none since the last one ended. */
  readonly isNew: boolean;
  #connection: Connection;
  #socket: string;
  /** Another relay is looked for or started; never rejects. */
  #replacing: Promise<void> = Promise.resolve();

  private constructor(place: RelayPlace, { connection, socket, isNew }: Found) {
    this.#place = place;
    this.#connection = connection;
    this.#socket = socket;
    this.isNew = isNew;
    this.#watch(connection);
  }

  /** @throws ShimError UNAVAILABLE / RELAY_NOT_STARTED with the end of its log */
  static async open(place: RelayPlace): Promise<RelayLink> {
    return new RelayLink(place, await findOrStart(place));
  }

  /** Where containerd is served: as an earlier configuration has it while the relay of that time has pods. */
  get socket(): string {
    return this.#socket;
  }

  /**
   * Holds a process's FIFOs open beyond this daemon's life. Best effort: without it only a restart would be noticed.
   */
  async hold(key: string, fifos: readonly HeldFifo[]): Promise<void> {
    this.#held.set(key, fifos);
    await this.#say({ do: 'hold', key, fifos: [...fifos] });
  }

  /** Also of what an earlier daemon had it hold: a FIFO that stays held never ends for its reader. */
  async release(key: string): Promise<void> {
    this.#held.delete(key);
    await this.#say({ do: 'release', key });
  }

  async #say(request: RelayRequest): Promise<void> {
    try {
      await this.#connection.ask(request);
    } catch (error) {
      this.#place.log.warn({ request: request.do, problem: messageOf(error) }, 'relay does not answer');
    }
  }

  /** A relay that dies takes containerd's connections with it; the next one serves where it did. */
  #watch(connection: Connection): void {
    void connection.closed.then(() => {
      this.#replacing = this.#replace();
    });
  }

  async #replace(): Promise<void> {
    const { signal } = this.#leaving;
    const { log, inUse, gone } = this.#place;
    const lost = signal.aborted ? undefined : gone();
    while (!signal.aborted) {
      log.error('the relay cannot be reached; looking for it, or starting another');
      try {
        // Where containerd knows it from its pods, whatever the configuration says by now.
        const place = inUse() ? { ...this.#place, socket: this.#socket } : this.#place;
        const { connection, socket, isNew } = await findOrStart(place);
        this.#connection = connection;
        this.#socket = socket;
        for (const [key, fifos] of this.#held) await this.#say({ do: 'hold', key, fifos: [...fifos] });
        this.#watch(this.#connection);
        if (isNew) lost?.();
        return;
      } catch (error) {
        log.error({ problem: messageOf(error) }, 'no relay');
        await sleep(RESTART_MS, signal).catch(() => undefined);
      }
    }
  }

  /** Lets go of the relay. @param end it has nothing left to hold: it ends too */
  async close(end: boolean): Promise<void> {
    this.#leaving.abort();
    // One that is being started would stay with nobody, or without what it is to hold.
    await this.#replacing;
    if (end) {
      await this.#say({ do: 'end' });
      await Promise.race([this.#connection.closed, sleep(ANSWER_TIMEOUT_MS)]);
    }
    this.#connection.close();
  }
}

interface Found {
  readonly connection: Connection;
  readonly socket: string;
  /** None was there, and it was started. */
  readonly isNew: boolean;
}

/**
 * A relay that differs makes room, but never for as long as there are pods: every version knows what is asked of it
 * here.
 */
async function findOrStart(place: RelayPlace): Promise<Found> {
  const control = join(place.directory, 'relay.sock');
  const found = await Connection.open(control).catch(() => undefined);
  if (found !== undefined) {
    const about = await found.ask({ do: 'hello' });
    const differs = about.socket !== place.socket || about.version !== RELAY_VERSION;
    if (about.backend === place.backend && (!differs || place.inUse())) {
      const { socket, version } = about;
      if (differs) place.log.warn({ socket, version }, 'the relay stays as it is while there are pods');
      return { connection: found, socket, isNew: false };
    }
    await found.ask({ do: 'end' });
    await waitFor(found.closed, { milliseconds: ANSWER_TIMEOUT_MS });
  }
  await start(place, control);
  const deadline = Deadline.after(START_TIMEOUT_MS);
  while (!deadline.expired) {
    const connection = await Connection.open(control).catch(() => undefined);
    if (connection !== undefined) return { connection, socket: place.socket, isNew: true };
    await sleep(LOOK_MS);
  }
  throw new ShimError('UNAVAILABLE', `the relay has not come up within ${START_TIMEOUT_MS} ms; see its relay.log`, {
    reason: 'RELAY_NOT_STARTED',
    metadata: { socket: place.socket },
  });
}

/** In a session of its own, so that it outlives the daemon and the daemon's terminal. */
async function start({ socket, backend, directory }: RelayPlace, control: string): Promise<void> {
  await using log = await open(join(directory, 'relay.log'), 'a', 0o600);
  const program = join(import.meta.dirname, '../relay-main.ts');
  const args = [...NODE_FLAGS, program, socket, backend, control];
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', log.fd, log.fd], cwd: '/' });
  child.on('error', () => undefined); // Then it does not come up, which is told.
  child.unref();
}

/** One conversation with the relay: requests are answered in order. */
class Connection {
  readonly #socket: Socket;
  readonly #waiting: PromiseWithResolvers<RelayResponse>[] = [];
  readonly closed: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        for (const { reject } of this.#waiting) reject(new Error('the relay has closed the connection'));
        resolve();
      });
    });
    socket.on('error', () => socket.destroy());
    eachLine(socket, (line) => {
      try {
        // Before anybody is taken off the list: what is no answer fails them all, with the connection.
        const answer = responseSchema.parse(JSON.parse(line));
        this.#waiting.shift()?.resolve(answer);
      } catch {
        socket.destroy();
      }
    });
  }

  static async open(path: string): Promise<Connection> {
    const socket = connect({ path });
    const connection = new Connection(socket);
    await once(socket, 'connect');
    return connection;
  }

  async ask(request: RelayRequest): Promise<RelayResponse> {
    const answer = Promise.withResolvers<RelayResponse>();
    this.#waiting.push(answer);
    this.#socket.write(`${JSON.stringify(request)}\n`);
    return await waitFor(answer.promise, { milliseconds: ANSWER_TIMEOUT_MS });
  }

  close(): void {
    this.#socket.destroy();
  }
}
