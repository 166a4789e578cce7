import { mkdir, mkdtemp, readFile, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { waitFor } from '../../src/base/deadline.ts';
import type { OptionName } from '../../src/config.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { TestDaemon, type ApiClient } from '../support/daemon.ts';

const SETTLE_PAUSE_MS = 15;
const SETTLE_TIMEOUT_MS = 120_000;
const EXIT_TIMEOUT_MS = 60_000;
/** The KVM probe's own QEMU, which lives for two seconds at most. */
const PROBE_MARK = 'isa-debug-exit';
const PROBE_END_MS = 5000;
const INTERRUPTED = 130;

/** What the daemon says of everything that it knows, at one moment. */
export interface DaemonView {
  readonly sandboxes: readonly Sandbox__Output[];
  readonly volumes: readonly Volume__Output[];
}

/**
 * One directory with volumes and state, and the daemons that come and go on it. Unlike a TestDaemon it expects its
 * daemon to be killed: VMs outlive it, and each daemon has a log of its own (qshimd-N.log, the last is qshimd.log).
 */
export class Rig {
  readonly directory: string;
  readonly #config: Partial<Record<OptionName, string | number>>;
  #daemon: TestDaemon | undefined;
  #daemons = 0;

  private constructor(directory: string, config: Partial<Record<OptionName, string | number>>) {
    this.directory = directory;
    this.#config = config;
  }

  static async start(config: Partial<Record<OptionName, string | number>> = {}): Promise<Rig> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-soak-'));
    // Not among the temporary files, which are counted in the end.
    const rig = new Rig(directory, { cache_dir: join(directory, 'cache'), ...config });
    // Whoever is tired of waiting is left without the VMs, which would outlive this process.
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        void rig.abandon().finally(() => process.exit(INTERRUPTED));
      });
    }
    // The daemon's temporary files lie here and nobody else's do: what is left at the end is a leak.
    await mkdir(rig.temporaryDirectory);
    process.env['TMPDIR'] = rig.temporaryDirectory;
    await rig.startDaemon();
    return rig;
  }

  get temporaryDirectory(): string {
    return join(this.directory, 'tmp');
  }

  get volumeDirectory(): string {
    return join(this.directory, 'volumes');
  }

  get daemon(): TestDaemon {
    if (this.#daemon === undefined) throw new Error('no daemon runs');
    return this.#daemon;
  }

  get client(): ApiClient {
    return this.daemon.client;
  }

  /** Whether this client's daemon is still the one that runs. */
  isServedBy(client: ApiClient): boolean {
    return this.#daemon?.client === client;
  }

  /** Starts the next daemon on the directory; milliseconds from its start to its first answer. */
  async startDaemon(): Promise<number> {
    const started = performance.now();
    if (this.#daemons > 0) {
      await rename(join(this.directory, 'qshimd.log'), join(this.directory, `qshimd-${this.#daemons}.log`));
    }
    this.#daemons += 1;
    this.#daemon = await TestDaemon.start({ directory: this.directory, config: this.#config });
    return performance.now() - started;
  }

  /**
   * Ends the daemon and waits for its end; the VMs go on.
   * @throws when it does not end in time, or ends on SIGTERM with another code than 0
   */
  async endDaemon(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const { daemon } = this;
    if (daemon.child.exitCode !== null || daemon.child.signalCode !== null) {
      throw new Error(`the daemon had ended by itself: ${ending(daemon)}`);
    }
    this.#daemon = undefined;
    await waitFor(daemon.kill(signal), {
      milliseconds: EXIT_TIMEOUT_MS,
      onTimeout: () => new Error(`the daemon did not end within ${EXIT_TIMEOUT_MS} ms after ${signal}`),
    });
    if (signal === 'SIGTERM' && ending(daemon) !== 'exit code 0') {
      throw new Error(`the daemon ended with ${ending(daemon)} on SIGTERM`);
    }
  }

  async view(): Promise<DaemonView> {
    const [sandboxes, volumes] = await Promise.all([this.client.listSandboxes(), this.client.listVolumes()]);
    return { sandboxes, volumes };
  }

  /**
   * Waits until nothing is under way: every sandbox runs, with its agent, or is stopped; every volume is ATTACHED or
   * REMOVED. The two lists of a view are answers to two questions. That nothing changed between them is known when the
   * next view is the same.
   * @throws when that takes longer than two minutes, with what is still under way
   */
  async settle(): Promise<DaemonView> {
    const end = performance.now() + SETTLE_TIMEOUT_MS;
    for (let before: DaemonView | undefined; ;) {
      const view = await this.view();
      const busy = [...view.sandboxes.filter((one) => !isSettledSandbox(one)), ...view.volumes.filter(isMoving)];
      if (busy.length === 0 && isDeepStrictEqual(view, before)) return view;
      before = view;
      if (performance.now() > end) throw new Error(`not settled after ${SETTLE_TIMEOUT_MS} ms: ${describe(busy)}`);
      await sleep(SETTLE_PAUSE_MS);
    }
  }

  /** Pids of the QEMU processes that work in this rig's directory, without those of a KVM probe. */
  async qemuPids(): Promise<readonly number[]> {
    return (await processesNaming(this.directory))
      .filter((one) => !one.command.includes(PROBE_MARK))
      .map(({ pid }) => pid);
  }

  /** Ends what is left, sandboxes through the daemon, and says what should not have been there. */
  async dismantle(): Promise<readonly string[]> {
    const leaks: string[] = [];
    for (const { sandboxId } of await this.client.listSandboxes()) await this.client.deleteSandbox(sandboxId);
    const inState = await this.daemon.leftInState();
    leaks.push(...inState.map((name) => `state directory: ${name}`));
    await this.endDaemon('SIGTERM');
    const end = performance.now() + PROBE_END_MS;
    while ((await processesNaming(this.directory)).length > 0 && performance.now() < end) await sleep(50);
    const processes = await processesNaming(this.directory);
    leaks.push(...processes.map(({ pid, command }) => `process ${pid}: ${command.slice(0, 200)}`));
    leaks.push(...(await readdir(this.temporaryDirectory)).map((name) => `temporary file: ${name}`));
    return leaks;
  }

  /** For the end of a run that failed: kills every QEMU of this rig and its daemon, and keeps the files. */
  async abandon(): Promise<void> {
    if (this.#daemon !== undefined) await this.#daemon.kill('SIGKILL');
    for (const { pid } of await processesNaming(this.directory)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

function ending({ child }: TestDaemon): string {
  return child.signalCode ?? `exit code ${String(child.exitCode)}`;
}

function isSettledSandbox(sandbox: Sandbox__Output): boolean {
  if (sandbox.state === 'SANDBOX_STATE_STOPPED') return true;
  const agent = sandbox.agentReady || sandbox.spec?.readyWhen === 'READY_WHEN_STARTED';
  // The run state is read from QEMU by each daemon anew: it is there once this daemon has looked.
  return sandbox.state === 'SANDBOX_STATE_RUNNING' && sandbox.runState === 'running' && agent;
}

function isMoving(volume: Volume__Output): boolean {
  return volume.state !== 'VOLUME_STATE_ATTACHED' && volume.state !== 'VOLUME_STATE_REMOVED';
}

function describe(busy: readonly (Sandbox__Output | Volume__Output)[]): string {
  return busy
    .map((one) =>
      'volumeId' in one
        ? `${one.sandboxId}/${one.volumeId} is ${one.state}`
        : `${one.sandboxId} is ${one.state}, run state ${JSON.stringify(one.runState)}, agent ${one.agentReady ? 'ready' : 'away'}`,
    )
    .join('; ');
}

async function processesNaming(text: string): Promise<readonly { readonly pid: number; readonly command: string }[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => ({ pid, command: await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '') })),
  );
  return found
    .map(({ pid, command }) => ({ pid, command: command.replaceAll('\0', ' ') }))
    .filter(({ command }) => /^(\S*\/)?qemu-system/.test(command) && command.includes(text));
}
