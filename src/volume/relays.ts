import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { sleep, waitFor } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { NODE_FLAGS, nodeEnvironment } from '../base/node-flags.ts';
import { QemuProcess, argumentsOf, identify, type ExitInfo, type ProcessIdentity } from '../qemu/process.ts';
import { relayArguments, relayOfCommandLine, type RelayPlace, type ServerAddress } from './relay-arguments.ts';

/**
 * The relays of one confined QEMU, a process for each volume on a server (nbd-relay-main.ts):
 *
 *     add.ts ─▶ start ─▶ relay ◀─ connects ─ QEMU          removal.ts, the end of QEMU ─▶ end
 *     a new daemon ─▶ adopt: those that run, by their command lines ─▶ ensure: those that are missing
 *
 * A relay that ends before it is told to is started again where it was: QEMU connects once more, as it does when a
 * server comes back.
 */

const PROGRAM = join(import.meta.dirname, '../nbd-relay-main.ts');
const START_TIMEOUT_MS = 20_000;
/** Longer than a relay takes to let its last bytes go. */
const END_TIMEOUT_MS = 3000;
const RESTART_PAUSE_MS = 500;
const SAID_MAX = 500;
const SOCKET_PREFIX = 'nbd-';
const NO_DESCRIPTOR: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENFILE']);

/** What relays need to know of their sandbox. */
export interface RelayHost {
  readonly log: Logger;
  /** The sandbox's directory, where they listen. */
  readonly directory: string;
  /** Its QEMU; undefined while there is none. */
  qemu(): ProcessIdentity | undefined;
  /** QEMU's user; 0: the daemon's own. */
  uid(): number;
  /** Aborted when QEMU has ended or the daemon leaves it. */
  readonly ended: AbortSignal;
}

/** Where QEMU connects for the volume of a generation. As long a name as the longest of QEMU's own sockets has. */
export function relaySocket(directory: string, generation: number): string {
  return join(directory, `${SOCKET_PREFIX}${generation}`);
}

/** A relay that runs, or is being started. */
interface Running {
  readonly server: ServerAddress;
  /** Its last process, once that takes connections; rejects where it could not be started. */
  process: Promise<QemuProcess>;
  /** Aborted when it is told to end. */
  readonly told: AbortController;
}

export class Relays {
  readonly #host: RelayHost;
  /** By their sockets, from before their first processes begin: whoever ends one finds it. */
  readonly #running = new Map<string, Running>();
  #adopted: Promise<void> | undefined;

  constructor(host: RelayHost) {
    this.#host = host;
  }

  /**
   * Starts a relay, if it does not run.
   * @param socket where it listens (`relaySocket`)
   * @throws ShimError UNAVAILABLE / NBD_RELAY_NOT_STARTED, RESOURCE_EXHAUSTED / OUT_OF_DESCRIPTORS
   */
  async start(socket: string, server: ServerAddress): Promise<void> {
    const there = this.#running.get(socket);
    if (there !== undefined) {
      await there.process;
      return;
    }
    const running = this.#enter(socket, server);
    try {
      await running.process;
    } catch (error) {
      if (this.#running.get(socket) === running) this.#running.delete(socket);
      throw error;
    }
    if (running.told.signal.aborted) throw notStarted(socket, 'it was ended meanwhile');
    this.#keep(socket, running);
  }

  /** Has a relay run, from when it can be started on; returns at once. Does nothing where there is one. */
  ensure(socket: string, server: ServerAddress): void {
    if (this.#running.has(socket)) return;
    this.#keep(socket, this.#enter(socket, server));
  }

  /**
   * Ends a relay, also one that is being started, and returns once it has ended and its socket is gone; does nothing
   * where there is none.
   */
  async end(socket: string): Promise<void> {
    const running = this.#running.get(socket);
    if (running !== undefined) {
      this.#running.delete(socket);
      running.told.abort(new Error('it was ended meanwhile'));
      const process = await running.process.catch(() => undefined);
      if (process !== undefined) await endProcess(process);
    }
    await rm(socket, { force: true });
  }

  /**
   * Ends the relays that nobody needs: no volume, and no block node of QEMU's. A volume that could not be recovered
   * without a journal stays in QEMU, and its guest goes on with it.
   * @param needed sockets of volumes
   * @param nodeFiles what QEMU says that its block nodes are (query-named-block-nodes, `file`)
   */
  async endUnused(needed: ReadonlySet<string | undefined>, nodeFiles: readonly string[]): Promise<void> {
    const isUsed = (socket: string): boolean => needed.has(socket) || nodeFiles.some((file) => file.includes(socket));
    await Promise.all(this.sockets.filter((socket) => !isUsed(socket)).map((socket) => this.end(socket)));
  }

  /** QEMU has ended. Never rejects. */
  async endAll(): Promise<void> {
    const ends = await Promise.allSettled([...this.#running.keys()].map((socket) => this.end(socket)));
    for (const end of ends) {
      if (end.status === 'rejected') {
        this.#host.log.warn({ problem: messageOf(end.reason) }, 'relay of a volume not ended');
      }
    }
  }

  /**
   * Takes over the relays that an earlier daemon started, once.
   * @param expected whether there may be one that does not listen yet, and so has no name in the directory
   * @throws the system error (no descriptor left); it may be tried again
   */
  async adopt(expected: boolean): Promise<void> {
    this.#adopted ??= this.#adopt(expected).catch((error: unknown) => {
      this.#adopted = undefined;
      throw error;
    });
    await this.#adopted;
  }

  /**
   * Which server is behind a socket; undefined when that is no relay's.
   * @throws Error when it is a relay's, and nobody knows its server: the socket itself is none
   */
  serverOf(socket: string): ServerAddress | undefined {
    const server = this.#running.get(socket)?.server;
    if (server === undefined ? !this.#isOurs(socket) : server.type !== 'unix' || !this.#isOurs(server.path)) {
      return server;
    }
    throw new Error(`the relay at ${socket} has ended, and with it who knew its server`);
  }

  /** Sockets of all relays. */
  get sockets(): readonly string[] {
    return [...this.#running.keys()];
  }

  #isOurs(socket: string): boolean {
    return dirname(socket) === this.#host.directory && basename(socket).startsWith(SOCKET_PREFIX);
  }

  async #adopt(expected: boolean): Promise<void> {
    const { directory, log } = this.#host;
    const names = await readdir(directory).catch(() => []);
    // The look at all processes of the host is for those sandboxes alone that have had one.
    if (!expected && !names.some((name) => name.startsWith(SOCKET_PREFIX))) return;
    for (const { identity, place } of await relaysBelow(directory)) {
      const { socket, server } = place;
      const isOurs = (args: readonly string[]): boolean => relayOfCommandLine(args)?.socket === socket;
      const process = await QemuProcess.adopt(identity, isOurs);
      if (process === undefined || this.#running.has(socket)) continue;
      log.info({ socket, pid: process.pid }, 'relay of a volume adopted');
      this.#keep(socket, this.#enter(socket, server, process));
    }
  }

  /** @param process one that runs; left out: one is started */
  #enter(socket: string, server: ServerAddress, process?: QemuProcess): Running {
    const told = new AbortController();
    const begun = process === undefined ? this.#spawn(socket, server, told.signal) : Promise.resolve(process);
    const running: Running = { server, process: begun, told };
    this.#running.set(socket, running);
    return running;
  }

  /** Starts it again whenever it has ended, or could not be started, until it is told to end. */
  #keep(socket: string, running: Running): void {
    const { ended, log } = this.#host;
    const { signal } = running.told;
    const isWanted = (): boolean => !signal.aborted && !ended.aborted;
    const keep = async (): Promise<void> => {
      for (;;) {
        try {
          const exit = await (await running.process).exited;
          if (isWanted()) log.error({ socket, ...exit }, 'the relay of a volume has ended; starting another');
        } catch (error) {
          if (isWanted()) log.error({ socket, problem: messageOf(error) }, 'no relay for a volume; trying again');
        }
        if (isWanted()) await sleep(RESTART_PAUSE_MS, ended).catch(() => undefined);
        if (!isWanted()) return;
        running.process = this.#spawn(socket, running.server, signal);
      }
    };
    void keep();
  }

  /** In a session of its own: it outlives the daemon as QEMU does. */
  async #spawn(socket: string, server: ServerAddress, told: AbortSignal): Promise<QemuProcess> {
    const qemu = this.#host.qemu();
    if (qemu === undefined) throw notStarted(socket, 'there is no QEMU to start it for');
    const place: RelayPlace = { socket, uid: this.#host.uid(), qemu, server };
    const child: ChildProcess = spawn(process.execPath, [...NODE_FLAGS, PROGRAM, ...relayArguments(place)], {
      ...{ cwd: '/', detached: true, stdio: ['ignore', 'pipe', 'pipe'], env: nodeEnvironment() },
    });
    // Before all else: with no descriptor left the child has no streams, and fails once this has returned.
    const failed = failureOf(child);
    const exited = exitOf(child);
    child.unref();
    let said = '';
    const { stdout, stderr } = streamsOf(child);
    try {
      stderr?.setEncoding('utf8').on('data', (text: string) => (said = `${said}${text}`.slice(-SAID_MAX)));
      const ended = exited.then(() => false);
      if (stdout === undefined || child.pid === undefined) throw await failed;
      const ready = once(stdout, 'data').then(() => true);
      if (!(await waitFor(Promise.race([ready, ended]), { milliseconds: START_TIMEOUT_MS, signal: told }))) {
        throw new Error(`it ended${said === '' ? '' : `: ${said.trim()}`}`);
      }
      return await QemuProcess.launched(child.pid, exited);
    } catch (error) {
      child.kill('SIGKILL');
      // It makes no socket after this.
      await exited;
      throw notStarted(socket, messageOf(error), error);
    } finally {
      // It says nothing more; nobody waits for it.
      stdout?.destroy();
      stderr?.destroy();
    }
  }
}

/** Its output; undefined where there was no descriptor for it, which Node's types do not tell. */
function streamsOf(child: ChildProcess): {
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
} {
  const { stdout, stderr } = child as Partial<ChildProcess>;
  return { stdout: stdout ?? undefined, stderr: stderr ?? undefined };
}

/** Why it could not be run; never settles where it could. */
async function failureOf(child: ChildProcess): Promise<Error> {
  const { promise, resolve } = Promise.withResolvers<Error>();
  child.on('error', resolve);
  return await promise;
}

async function exitOf(child: ChildProcess): Promise<ExitInfo> {
  const { promise, resolve } = Promise.withResolvers<ExitInfo>();
  child.once('exit', (code, signal) => resolve({ code: code ?? undefined, signal: signal ?? undefined }));
  child.once('error', () => {
    if (child.pid === undefined) resolve({ code: undefined, signal: undefined });
  });
  return await promise;
}

/** Lets it pass on what it has, then ends it. */
async function endProcess(relay: QemuProcess): Promise<void> {
  await relay.kill('SIGTERM');
  await waitFor(relay.exited, { milliseconds: END_TIMEOUT_MS }).catch(async () => {
    await relay.kill('SIGKILL');
    await relay.exited;
  });
}

/** Relays whose sockets lie in a directory. Only those of this user count: anybody may have any command line. */
async function relaysBelow(
  directory: string,
): Promise<readonly { readonly identity: ProcessIdentity; readonly place: RelayPlace }[]> {
  const found: { identity: ProcessIdentity; place: RelayPlace }[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    // Processes end while they are looked at.
    const place = relayOfCommandLine(await argumentsOf(Number(name)).catch(() => []));
    if (place === undefined || dirname(place.socket) !== directory) continue;
    const owner = await stat(`/proc/${name}`).catch(() => undefined);
    const identity = await identify(Number(name));
    if (identity !== undefined && owner?.uid === process.geteuid?.()) found.push({ identity, place });
  }
  return found;
}

function notStarted(socket: string, why: string, cause?: unknown): ShimError {
  if (NO_DESCRIPTOR.has(errnoOf(cause))) {
    return new ShimError(
      'RESOURCE_EXHAUSTED',
      'the relay between QEMU and an NBD server was not started: no file descriptors are left',
      { reason: 'OUT_OF_DESCRIPTORS', metadata: { socket }, cause },
    );
  }
  return new ShimError('UNAVAILABLE', `the relay between QEMU and an NBD server was not started: ${why}`, {
    reason: 'NBD_RELAY_NOT_STARTED',
    metadata: { socket },
    cause,
  });
}
