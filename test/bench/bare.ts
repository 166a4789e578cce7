import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { driverEvidence } from '../support/trial.ts';

/** How a bare script would look for the guest's driver: often, and at nothing else. */
const LOOK_PAUSE_MS = 1;
const TIMEOUT_MS = 30_000;
const EVIDENCE = await driverEvidence();

export interface BareDisk {
  readonly id: string;
  readonly bus: string;
  readonly addr: string;
  readonly path: string;
}

/**
 * The floor: QMP spoken by a script that does only what is needed, with no journal, no checks, no proof, and all it
 * knows in its head. On a sandbox of qshim it uses the spare monitor, so that both work on the same VM.
 */
export class BareScript implements AsyncDisposable {
  readonly #qmp: QmpClient;
  readonly #queues: number;

  private constructor(qmp: QmpClient, queues: number) {
    this.#qmp = qmp;
    this.#queues = queues;
  }

  static async connect(stateDir: string, queues: number): Promise<BareScript> {
    const path = join(stateDir, 'spare.sock');
    return new BareScript(await QmpClient.connect({ path, log: silentLogger() }), queues);
  }

  /** Hot-plugs a device of the virtio-serial bus, with a socket for its other end. */
  async plugSocket(
    { id, path }: { id: string; path: string },
    device: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const addr = { type: 'unix', data: { path } };
    const backend = { type: 'socket', data: { addr, server: true, wait: false } };
    // Commands that qshim itself has no use for, so that its client does not know them by type.
    const run = this.#qmp.run.bind(this.#qmp) as unknown as (command: string, args: object) => Promise<unknown>;
    await run('chardev-add', { id, backend });
    await run('device_add', { ...device, id, chardev: id });
  }

  /** Sends all commands at once; resolves when QEMU has done them. */
  async add(disks: readonly BareDisk[]): Promise<void> {
    await Promise.all(disks.flatMap((disk) => this.#add(disk)));
  }

  /** The same; resolves when the guest's drivers are live. */
  async attach(disks: readonly BareDisk[]): Promise<void> {
    await this.add(disks);
    const waiting = new Set(disks);
    while (waiting.size > 0) {
      for (const disk of waiting) {
        if (await this.#isLive(disk)) waiting.delete(disk);
        else await sleep(LOOK_PAUSE_MS);
      }
    }
  }

  /** Resolves when QEMU has told that all devices are gone, and their nodes are removed. */
  async detach(disks: readonly BareDisk[]): Promise<void> {
    await Promise.all(
      disks.map(async ({ id }) => {
        using gone = this.#qmp.listen('DEVICE_DELETED', (event) => event.data.device === id);
        await this.#qmp.run('device_del', { id });
        await gone.next({ timeoutMs: TIMEOUT_MS });
        await this.#qmp.run('blockdev-del', { 'node-name': id });
      }),
    );
  }

  #add({ id, bus, addr, path }: BareDisk): Promise<unknown>[] {
    const common = { discard: 'unmap', cache: { direct: false, 'no-flush': false } } as const;
    const file = { driver: 'file', filename: path, aio: 'io_uring', ...common } as const;
    return [
      this.#qmp.run('blockdev-add', { driver: 'raw', 'node-name': id, ...common, file }),
      this.#qmp.run('device_add', {
        driver: 'virtio-blk-pci',
        id,
        bus,
        addr,
        drive: id,
        serial: id,
        'num-queues': this.#queues,
      }),
    ];
  }

  async #isLive({ id }: BareDisk): Promise<boolean> {
    if (EVIDENCE === 'block-reads') {
      const own = (await this.#qmp.run('query-blockstats')).find(({ qdev }) => qdev?.includes(`/${id}/`) === true);
      return own !== undefined && own.stats.rd_operations > 0;
    }
    const path = `/machine/peripheral/${id}/virtio-backend`;
    const { status } = await this.#qmp.run('x-query-virtio-status', { path });
    return status.statuses.some((text) => text.startsWith('VIRTIO_CONFIG_S_DRIVER_OK'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#qmp[Symbol.asyncDispose]();
  }
}
