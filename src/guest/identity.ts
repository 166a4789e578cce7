import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { waitFor } from '../base/deadline.ts';
import { ShimError } from '../base/errors.ts';
import type { GuestAgent } from './agent.ts';
import { PLAYER_HELLO, PlayerMessage, REPLY_BYTES, SYSCALL, readReply } from './player.ts';
import { guestScript } from './programs.ts';

/**
 * What makes a clone a machine of its own. Two guests that were restored from one saved state draw the same random
 * numbers, have the same name and id, and their clocks stand where the template's stood.
 *
 * Entropy: on Linux 6.1 the kernel's generator hands out numbers from a key that it renews once a minute at most. Bytes
 * written to /dev/urandom, virtio-rng and RNDADDENTROPY reach only the pool behind it, and a guest without a vmgenid
 * driver does not notice that it was cloned. RNDRESEEDCRNG makes the key anew from the pool, at once; so fresh bytes
 * are added first, and that call comes second.
 */

const INSTALL = guestScript('install-player');

const SEED_BYTES = 64;
const SAMPLE_BYTES = 16;
const RNDADDENTROPY = 0x4008_5203;
const RNDRESEEDCRNG = 0x5207;
const CLOCK_REALTIME = 0;
const TIMESPEC_BYTES = 16;
const O_WRONLY = 1;
const O_RDWR = 2;

/** The guest's clock is set again while it is off by more than this, a few times. */
const CLOCK_ERROR_MAX_MS = 250;
const CLOCK_TRIES = 3;
/** More than a reply: what comes unasked from a guest is not kept. */
const RECEIVED_BYTES_MAX = 4096;

/** Files of the template's guest that hold an identity, and are written anew in every clone. Absent: there is none. */
export interface IdentityFiles {
  /** Shown in place of /sys/class/dmi/id/product_uuid. */
  readonly productUuid?: string;
  /** Shown in place of /proc/sys/kernel/random/boot_id, which the kernel makes once, when it is first read. */
  readonly bootId?: string;
  /** /etc/machine-id */
  readonly machineId?: string;
}

export interface MachineIdentity {
  /** RFC 4122 text form: the machine's UUID, and without dashes its machine-id. */
  readonly uuid: string;
  /** At most 64 bytes. */
  readonly hostname: string;
}

export interface AssumedIdentity {
  /** Drawn by the guest after its generator was seeded: different in every clone. */
  readonly randomSample: Buffer;
  /** How far the guest's clock lay behind the host's when its answer came, the answer's way included. */
  readonly clockErrorMs: number;
}

interface Limits {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Starts the player in a template's guest. Before: connect to its port, or it ends at once. After: wait for its
 * greeting.
 * @param player the program: playerProgram()
 * @throws ShimError FAILED_PRECONDITION / TEMPLATE_GUEST_UNFIT, or what GuestAgent.exec throws
 */
export async function installPlayer(
  agent: Pick<GuestAgent, 'exec'>,
  player: Uint8Array,
  portName: string,
  { timeoutMs, signal }: Limits,
): Promise<IdentityFiles> {
  const { exitCode, stdout, stderr } = await agent.exec({
    path: '/bin/sh',
    args: ['-c', INSTALL, 'sh', portName],
    input: player,
    timeoutMs,
    outputBytesMax: 4096,
    ...(signal && { signal }),
  });
  const said = stdout.toString('utf8');
  const value = (key: string): string | undefined => new RegExp(`^${key}=(.+)$`, 'm').exec(said)?.[1];
  if (exitCode !== 0) {
    const problem = value('error') ?? stderr.toString('utf8').trim().slice(0, 300);
    throw unfit(`the guest cannot be a template: ${problem}`);
  }
  const [productUuid, bootId, machineId] = [value('productUuid'), value('bootId'), value('machineId')];
  return { ...(productUuid && { productUuid }), ...(bootId && { bootId }), ...(machineId && { machineId }) };
}

/**
 * The host's end of the port on which the player waits. It has to be connected before the player starts, and in a clone
 * before the state is restored: a port without a host reads as ended, and the player would go.
 */
export class IdentityPort implements AsyncDisposable {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #onData: (() => void) | undefined;
  #gone = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      if (this.#received.length > RECEIVED_BYTES_MAX) socket.destroy();
      this.#onData?.();
    });
    // An error is followed by `close`.
    socket.on('error', () => undefined);
    socket.once('close', () => {
      this.#gone = true;
      this.#onData?.();
    });
  }

  /** Connects once to QEMU's socket; it is there when QMP has greeted. @throws the system error */
  static async connect(path: string): Promise<IdentityPort> {
    const socket = createConnection(path);
    const port = new IdentityPort(socket);
    await once(socket, 'connect');
    return port;
  }

  /** Waits until the player has opened its port. @throws ShimError FAILED_PRECONDITION / TEMPLATE_GUEST_UNFIT */
  async greeted(limits: Limits): Promise<void> {
    const greeting = await this.#take(PLAYER_HELLO.length, limits);
    if (greeting.toString('latin1') !== PLAYER_HELLO) throw unfit('something else answered on the identity port');
  }

  /**
   * Gives the guest its identity: entropy, clock, host name, ids; then closes its ears. For a clone, once it runs.
   * @throws ShimError UNAVAILABLE / CLONE_IDENTITY_FAILED; DEADLINE_EXCEEDED / CLONE_IDENTITY_TIMEOUT
   */
  async assume(identity: MachineIdentity, files: IdentityFiles, limits: Limits): Promise<AssumedIdentity> {
    const message = new PlayerMessage();
    addEntropy(message);
    addClock(message);
    const hostname = Buffer.from(identity.hostname);
    message.call(SYSCALL.sethostname, [message.data(hostname), hostname.length]);
    addFile(message, files.productUuid, identity.uuid);
    addFile(message, files.bootId, randomUUID());
    addFile(message, files.machineId, identity.uuid.replaceAll('-', ''));
    const sample = message.reply(SAMPLE_BYTES);
    message.call(SYSCALL.getrandom, [sample.address, SAMPLE_BYTES, 0]);
    const first = await this.#play(message, limits);
    const randomSample = Buffer.from(first.bytes.subarray(sample.offset, sample.offset + SAMPLE_BYTES));
    let { clockErrorMs } = first;
    for (let left = CLOCK_TRIES - 1; left > 0 && Math.abs(clockErrorMs) > CLOCK_ERROR_MAX_MS; left -= 1) {
      const again = new PlayerMessage();
      addClock(again);
      ({ clockErrorMs } = await this.#play(again, limits));
    }
    return { randomSample, clockErrorMs };
  }

  /** Lets go of the port; a player that waits on it ends. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    if (!this.#socket.closed) await once(this.#socket, 'close');
  }

  /** Plays a message, and reads the guest's clock as its last call. */
  async #play(message: PlayerMessage, limits: Limits): Promise<{ bytes: Buffer; clockErrorMs: number }> {
    const clock = message.reply(TIMESPEC_BYTES);
    message.call(SYSCALL.clockGettime, [CLOCK_REALTIME, clock.address]);
    const line = message.bytes();
    this.#received = Buffer.alloc(0);
    this.#socket.write(line, () => line.fill(0));
    const bytes = await this.#take(REPLY_BYTES, limits);
    const receivedAtMs = Date.now();
    const { callsLeft, lastResult } = readReply(bytes);
    if (callsLeft !== 0) {
      throw failed(`a call failed in the guest with ${lastResult}, ${callsLeft} before the end`);
    }
    const seconds = Number(bytes.readBigInt64LE(clock.offset));
    const nanoseconds = Number(bytes.readBigInt64LE(clock.offset + 8));
    return { bytes, clockErrorMs: receivedAtMs - (seconds * 1000 + nanoseconds / 1e6) };
  }

  async #take(bytes: number, { timeoutMs, signal }: Limits): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.#onData = () => {
      if (this.#received.length >= bytes) {
        const taken = this.#received.subarray(0, bytes);
        this.#received = this.#received.subarray(bytes);
        resolve(taken);
      } else if (this.#gone) {
        reject(failed('its port was closed'));
      }
    };
    this.#onData();
    const onTimeout = (): ShimError =>
      new ShimError('DEADLINE_EXCEEDED', `the guest did not answer on its identity port within ${timeoutMs} ms`, {
        reason: 'CLONE_IDENTITY_TIMEOUT',
      });
    try {
      return await waitFor(promise, { milliseconds: timeoutMs, onTimeout, ...(signal && { signal }) });
    } finally {
      this.#onData = undefined;
    }
  }
}

function addEntropy(message: PlayerMessage): void {
  const seed = randomBytes(SEED_BYTES);
  const pool = Buffer.alloc(8 + SEED_BYTES);
  pool.writeInt32LE(SEED_BYTES * 8, 0);
  pool.writeInt32LE(SEED_BYTES, 4);
  pool.set(seed, 8);
  message.open('/dev/urandom', O_RDWR);
  message.call(SYSCALL.ioctl, [0, RNDADDENTROPY, message.data(pool)]);
  message.open('/dev/urandom', O_RDWR);
  message.call(SYSCALL.ioctl, [0, RNDRESEEDCRNG, 0]);
  seed.fill(0);
  pool.fill(0);
}

function addClock(message: PlayerMessage): void {
  const nowMs = Date.now();
  const time = Buffer.alloc(TIMESPEC_BYTES);
  time.writeBigInt64LE(BigInt(Math.floor(nowMs / 1000)), 0);
  time.writeBigInt64LE(BigInt(nowMs % 1000) * 1_000_000n, 8);
  message.call(SYSCALL.clockSettime, [CLOCK_REALTIME, message.data(time)]);
}

/** The file holds a value of the same length already: it is overwritten, never cut. */
function addFile(message: PlayerMessage, path: string | undefined, value: string): void {
  if (path === undefined) return;
  const line = Buffer.from(`${value}\n`);
  message.open(path, O_WRONLY);
  message.call(SYSCALL.write, [0, message.data(line), line.length]);
}

function unfit(message: string): ShimError {
  return new ShimError('FAILED_PRECONDITION', message, { reason: 'TEMPLATE_GUEST_UNFIT' });
}

function failed(problem: string): ShimError {
  return new ShimError('UNAVAILABLE', `the clone has not taken its identity: ${problem}`, {
    reason: 'CLONE_IDENTITY_FAILED',
  });
}
