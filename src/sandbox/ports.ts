import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { chmod, chown, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Backoff } from '../base/backoff.ts';
import type { GuestBudget } from '../base/budget.ts';
import { monotonicMs, sleep } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import { BoundedMutex } from '../base/mutex.ts';
import { run } from '../base/run.ts';
import type { VolumeHost } from '../volume/host.ts';
import type { Port, PortKind, PortRecord, Ports } from '../guest/containers/port.ts';
import { AGENT_PORT_NR, IDENTITY_PORT_NR, SERIAL_BUS, UEVENT_PORT_NR } from '../qemu/argv.ts';
import { listed } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import { asShimError, isQmpError } from '../qmp/errors.ts';

/** What the ports need to know of the VM. */
export type PortHost = Pick<VolumeHost, 'log' | 'config' | 'link' | 'gone' | 'commit' | 'commitSoon'> & {
  /** What the guest may cost. */
  readonly budget?: GuestBudget;
  readonly files: { readonly directory: string };
  /** The user that QEMU has for itself; 0: it has the daemon's. */
  readonly qemuUid: number;
};

const PORTS_DIRECTORY = 'ports';
const CONFINED_MODE = 0o711;
const FIRST_NR = Math.max(AGENT_PORT_NR, IDENTITY_PORT_NR, UEVENT_PORT_NR) + 1;
/** Linux 6.1 loses some of a burst of additions; with this between two of them it lost none in 500. */
const ADDITION_SPACING_MS = 10;
const ADD_QUEUE_MAX = 256;
const UNPLUG_PATIENCE_MS = 2000;
const QUIET_LABEL = /^port-([0-9]+)(?:-chr|-hold)?$/;

/**
 * The virtio-serial ports of one VM beside the agent's, hot-plugged for the streams of containers.
 *
 * Behind a port lie FIFOs in the sandbox's directory. QEMU opens them for reading and writing (chardev `pipe`), so that
 * no bytes are lost and no process in the guest sees an end of file while no daemon runs. An input has to be able to
 * end: there QEMU reads through a chardev `file`, and a second chardev without a device (`hold`) keeps a writer open
 * until the end is asked for; then the last writer goes, and the guest reads end of file after the last byte.
 *
 * INVARIANT: a port is in `#ports`, and in the journal, before QEMU hears of it, and until QEMU was seen not to have
 * it.
 */
export class SerialPorts implements Ports {
  readonly #host: PortHost;
  readonly #ports = new Map<number, PortState>();
  /** One addition at a time; held over QMP calls that QEMU answers by itself, never over a wait for the guest. */
  readonly #additions = new BoundedMutex('the addition of ports', ADD_QUEUE_MAX);
  #addedAtMs = 0;
  #lastNr = FIRST_NR - 1;

  constructor(host: PortHost) {
    this.#host = host;
  }

  get budget(): GuestBudget | undefined {
    return this.#host.budget;
  }

  records(): readonly PortRecord[] {
    return [...this.#ports.values()].map(({ nr, kind, ended }) => ({ nr, kind, ended }));
  }

  restore(records: readonly PortRecord[]): void {
    for (const record of records) this.#ports.set(record.nr, this.#state(record));
  }

  get(nr: number): Port | undefined {
    return this.#ports.get(nr);
  }

  all(): readonly Port[] {
    return [...this.#ports.values()];
  }

  async add(kinds: readonly PortKind[]): Promise<readonly Port[]> {
    this.#host.gone.throwIfAborted();
    const ports = this.#take(kinds);
    if (ports.length === 0) return [];
    try {
      await this.#host.commit();
      await this.#makeFifos(ports.flatMap((port) => this.#fifos(port)));
      for (const port of ports) await this.#plug(port);
      return ports;
    } catch (error) {
      await this.remove(ports.map((port) => port.nr)).catch((problem: unknown) => {
        this.#host.log.warn({ problem: messageOf(problem) }, 'ports of a failed addition not removed');
      });
      throw asShimError(error);
    }
  }

  async renew(nr: number): Promise<void> {
    const port = this.#find(nr);
    this.#host.log.info({ port: nr }, 'the guest has missed a port, plugging it again');
    // The same FIFOs: whoever reads or writes them already notices nothing.
    await this.#makeFifos(this.#fifos(port).filter((path) => !existsSync(path)));
    using _held = holdOpen(this.#fifos(port));
    await this.#unplug(await this.#host.link.ready(), port);
    await this.#plug(port);
    if (port.ended) await removeChardev(await this.#host.link.ready(), holdOf(nr));
  }

  async endInput(nr: number): Promise<void> {
    const port = this.#find(nr);
    if (port.kind !== 'input') return;
    port.ended = true;
    await this.#host.commit();
    await removeChardev(await this.#host.link.ready(), holdOf(nr));
  }

  async remove(numbers: readonly number[]): Promise<void> {
    await Promise.all(
      numbers.map(async (nr) => {
        const port = this.#ports.get(nr);
        if (port === undefined) return;
        port.removal ??= this.#removeFully(port);
        await port.removal;
      }),
    );
  }

  /** Removes ports that QEMU has and nobody knows of: the journal was lost, or is older than they are. */
  async clearStrays(): Promise<void> {
    const found = await lookOver(await this.#host.link.ready());
    const numbers = [...found].flatMap((name) => QUIET_LABEL.exec(name)?.[1] ?? []).map(Number);
    const strays = [...new Set(numbers)].filter((nr) => !this.#ports.has(nr));
    for (const nr of strays) this.#ports.set(nr, this.#state({ nr, kind: 'duplex', ended: false }));
    await this.remove(strays);
  }

  /** The VM is gone, and with it every port. */
  async forget(): Promise<void> {
    this.#ports.clear();
    await rm(this.#directory, { recursive: true, force: true });
  }

  get #directory(): string {
    return join(this.#host.files.directory, PORTS_DIRECTORY);
  }

  #find(nr: number): PortState {
    const port = this.#ports.get(nr);
    if (port === undefined) throw new ShimError('NOT_FOUND', `there is no port ${nr}`, { reason: 'PORT_NOT_FOUND' });
    return port;
  }

  /** Numbers go round, so that one is used again as late as possible. Without an await: all or none. */
  #take(kinds: readonly PortKind[]): readonly PortState[] {
    const last = this.#host.config.guest_ports_max - 1;
    const size = last - FIRST_NR + 1;
    const free = Array.from(
      { length: size },
      (_, index) => FIRST_NR + ((this.#lastNr + 1 - FIRST_NR + index) % size),
    ).filter((nr) => !this.#ports.has(nr));
    if (free.length < kinds.length) {
      throw new ShimError('RESOURCE_EXHAUSTED', `the sandbox has no port left (guest_ports_max = ${last + 1})`, {
        reason: 'NO_PORT',
        metadata: { max: String(last + 1), inUse: String(this.#ports.size) },
      });
    }
    return kinds.map((kind, index) => {
      const nr = free[index] ?? 0;
      const port = this.#state({ nr, kind, ended: false });
      this.#ports.set(nr, port);
      this.#lastNr = nr;
      return port;
    });
  }

  #state({ nr, kind, ended }: PortRecord): PortState {
    const base = join(this.#directory, String(nr));
    if (kind === 'input') return new PortState(nr, kind, ended, undefined, `${base}.stdin`);
    return new PortState(nr, kind, ended, `${base}.out`, kind === 'duplex' ? `${base}.in` : undefined);
  }

  /** Node has no mkfifo; one call of the host's makes them all. */
  async #makeFifos(paths: readonly string[]): Promise<void> {
    if (paths.length === 0) return;
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    for (const path of paths) await rm(path, { force: true });
    await run('mkfifo', ['-m', '600', '--', ...paths]);
    const { qemuUid } = this.#host;
    if (qemuUid === 0) return;
    // It can open those that are there, and make none.
    await chmod(this.#directory, CONFINED_MODE);
    for (const path of paths) await chown(path, qemuUid, qemuUid);
  }

  #fifos({ nr, kind }: PortState): readonly string[] {
    const base = join(this.#directory, String(nr));
    return kind === 'input' ? [`${base}.stdin`] : [`${base}.in`, `${base}.out`];
  }

  async #plug(port: PortState): Promise<void> {
    const { nr, kind } = port;
    const base = join(this.#directory, String(nr));
    using _held = await this.#additions.acquire();
    const pauseMs = this.#addedAtMs + ADDITION_SPACING_MS - monotonicMs();
    if (pauseMs > 0) await sleep(pauseMs, this.#host.gone);
    const qmp = await this.#host.link.ready();
    if (kind === 'input') {
      const fifo = `${base}.stdin`;
      // First the holder: QEMU's opening of the FIFO for reading would wait for a writer.
      await qmp.run('chardev-add', { id: holdOf(nr), backend: { type: 'pipe', data: { device: fifo } } });
      const data = { in: fifo, out: '/dev/null' };
      await qmp.run('chardev-add', { id: chardevOf(nr), backend: { type: 'file', data } });
    } else {
      await qmp.run('chardev-add', { id: chardevOf(nr), backend: { type: 'pipe', data: { device: base } } });
    }
    const chardev = chardevOf(nr);
    try {
      await qmp.run('device_add', { driver: 'virtserialport', id: deviceOf(nr), bus: SERIAL_BUS, nr, chardev });
    } finally {
      this.#addedAtMs = monotonicMs();
    }
  }

  async #removeFully(port: PortState): Promise<void> {
    const { gone, log, config } = this.#host;
    const backoff = new Backoff(config.unplug_retry_ms, config.unplug_retry_max_ms);
    for (;;) {
      gone.throwIfAborted();
      try {
        await this.#unplug(await this.#host.link.ready(), port);
        for (const path of this.#fifos(port)) await rm(path, { force: true });
        this.#ports.delete(port.nr);
        this.#host.commitSoon();
        return;
      } catch (error) {
        gone.throwIfAborted();
        log.warn({ port: port.nr, problem: messageOf(error) }, 'port not removed, trying again');
      }
      await backoff.pause(gone);
    }
  }

  /** Front end, back ends, and the look that finds none of them. @throws when something is left */
  async #unplug(qmp: QmpClient, { nr }: PortState): Promise<void> {
    const device = deviceOf(nr);
    {
      using deleted = qmp.listen('DEVICE_DELETED', (event) => event.data.device === device);
      if (await askUnplug(qmp, device)) {
        await deleted.next({ timeoutMs: UNPLUG_PATIENCE_MS, signal: this.#host.gone }).catch((error: unknown) => {
          this.#host.gone.throwIfAborted();
          // The look below decides.
          if (!isShimError(error, 'DEADLINE_EXCEEDED')) throw error;
        });
      }
    }
    await removeChardev(qmp, chardevOf(nr));
    await removeChardev(qmp, holdOf(nr));
    const left = await lookOver(qmp);
    const names = [device, chardevOf(nr), holdOf(nr)].filter((name) => left.has(name));
    if (names.length > 0) throw new Error(`QEMU still has ${names.join(', ')}`);
  }
}

class PortState implements Port {
  readonly nr: number;
  readonly kind: PortKind;
  ended: boolean;
  readonly outputPath: string | undefined;
  readonly inputPath: string | undefined;
  removal: Promise<void> | undefined;

  constructor(
    nr: number,
    kind: PortKind,
    ended: boolean,
    outputPath: string | undefined,
    inputPath: string | undefined,
  ) {
    this.nr = nr;
    this.kind = kind;
    this.ended = ended;
    this.outputPath = outputPath;
    this.inputPath = inputPath;
  }
}

/**
 * Opens FIFOs for reading and writing, which waits for nobody (fifo(7)). While QEMU lets go of them, a reader sees no
 * end of file so, a writer no broken pipe, and what is in them stays.
 */
function holdOpen(paths: readonly string[]): Disposable {
  using undo = new DisposableStack();
  for (const path of paths) undo.adopt(openSync(path, constants.O_RDWR | constants.O_NONBLOCK), closeSync);
  return undo.move();
}

function deviceOf(nr: number): string {
  return `port-${nr}`;
}

function chardevOf(nr: number): string {
  return `port-${nr}-chr`;
}

function holdOf(nr: number): string {
  return `port-${nr}-hold`;
}

/**
 * False only when QEMU has no such device; other refusals ("already in the process of unplug") leave an earlier
 * request.
 */
async function askUnplug(qmp: QmpClient, id: string): Promise<boolean> {
  try {
    await qmp.run('device_del', { id });
    return true;
  } catch (error) {
    if (isQmpError(error, 'DeviceNotFound')) return false;
    if (isQmpError(error)) return true;
    throw error;
  }
}

/** That it is not there, or still in use, is no error here: the look decides. */
async function removeChardev(qmp: QmpClient, id: string): Promise<void> {
  await qmp.run('chardev-remove', { id }).catch((error: unknown) => {
    if (!isQmpError(error)) throw error;
  });
}

/** Names of devices and chardevs that QEMU has. */
async function lookOver(qmp: QmpClient): Promise<ReadonlySet<string>> {
  const [devices, chardevs] = await Promise.all([listed(qmp, 'device'), listed(qmp, 'chardev')]);
  return new Set([...devices, ...chardevs]);
}
