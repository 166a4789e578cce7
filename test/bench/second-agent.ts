import { join } from 'node:path';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent } from '../../src/guest/agent.ts';
import type { BareDisk, BareScript } from './bare.ts';

const PORT_NAME = 'bench.agent';
const TIMEOUT_MS = 30_000;
const UEVENT_BYTES_MAX = 1024;

/** Starts a second qemu-ga on the port of that name; it finds the port as it would without udev. */
const START = `
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat "$name")" = ${PORT_NAME} ] || continue
  port=$(basename "$(dirname "$name")")
  mkdir -p /run/bench-agent
  exec qemu-ga -d -m virtio-serial -p "/dev/$port" -t /run/bench-agent -f /run/bench-agent/pid </dev/null >/dev/null 2>&1
done
exit 1`;

/**
 * A guest agent for the bare script alone: the sandbox's own has one socket, and the daemon holds it. With it the script learns
 * what qshim tells its caller besides: the guest's name of each disk.
 */
export class SecondAgent implements AsyncDisposable {
  readonly #agent: GuestAgent;

  private constructor(agent: GuestAgent) {
    this.#agent = agent;
  }

  /** @param guest runs a script in the guest */
  static async start(
    script: BareScript,
    stateDir: string,
    guest: (script: string) => Promise<unknown>,
  ): Promise<SecondAgent> {
    const path = join(stateDir, 'second-agent.sock');
    await script.plugSocket(
      { id: 'second-agent', path },
      { driver: 'virtserialport', bus: 'serial0.0', name: PORT_NAME },
    );
    await guest(START);
    const agent = new GuestAgent({ path, log: silentLogger() });
    await agent.waitReady({ timeoutMs: TIMEOUT_MS });
    return new SecondAgent(agent);
  }

  /** Knows the names in its head, as nobody else attaches anything; asks until the guest has them. */
  async untilNamed(disks: readonly BareDisk[]): Promise<void> {
    const end = performance.now() + TIMEOUT_MS;
    while (!(await (disks.length === 1 ? this.#answersTo('vda') : this.#lists(disks.length)))) {
      if (performance.now() > end) throw new Error('the guest does not name its disks');
    }
  }

  /** As qshim would before an attach: an agent that has been idle is asked for a sync first. */
  warmUp(): void {
    this.#agent.warmUp();
  }

  async #answersTo(name: string): Promise<boolean> {
    const uevent = `/sys/block/${name}/device/../uevent`;
    const text = await this.#agent.readFile(uevent, UEVENT_BYTES_MAX).catch(() => Buffer.of());
    return text.includes('PCI_SLOT_NAME=');
  }

  async #lists(count: number): Promise<boolean> {
    const disks = await this.#agent.disks();
    return disks.filter(({ name, partition }) => !partition && name.startsWith('/dev/vd')).length >= count;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent[Symbol.asyncDispose]();
  }
}
