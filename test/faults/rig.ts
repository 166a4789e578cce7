import { chmod, mkdir, mkdtemp, open, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import type { OptionName } from '../../src/config.ts';
import { TRIAL_VM_NAME } from '../../src/qemu/trial.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { bareQemuBinary } from '../support/bare-qemu.ts';
import { TestDaemon, type ApiClient } from '../support/daemon.ts';
import { qemuInventory, type QemuInventory } from '../support/leaks.ts';
import { Hook } from './hook.ts';
import { exists, mountSmall, processesNaming, whyNoMounts } from './host.ts';
import { Wire } from './wire.ts';
import { until } from '../support/until.ts';

const MIB = 1024 * 1024;
/** The daemon's patience with one QMP reply and one answer of the agent: long for a busy host, short for a test. */
export const REPLY_TIMEOUT_MS = 3000;
export const LINE_BYTES_MAX = 1_048_576;
const SETTLE_TIMEOUT_MS = 60_000;
const POLL_MS = 10;
const STATE_SIZE = '24m';

const SETTINGS: Partial<Record<OptionName, string | number>> = {
  // Always boots: a template's VM has no wires, and its sockets are moved aside like all others.
  template: 'off',
  qmp_reply_timeout_ms: REPLY_TIMEOUT_MS,
  agent_timeout_ms: REPLY_TIMEOUT_MS,
  qmp_line_bytes_max: LINE_BYTES_MAX,
  agent_line_bytes_max: LINE_BYTES_MAX,
  unplug_retry_ms: 500,
  unplug_retry_max_ms: 1000,
  drain_timeout_ms: 1000,
  volume_capacity: 31,
};

export type ReadyWhen = 'READY_WHEN_AGENT' | 'READY_WHEN_STARTED';

interface VmWires {
  readonly qmp: Wire;
  readonly agent: Wire;
}

/** A VM with its wires. */
export interface Vm extends VmWires {
  readonly sandboxId: string;
  readonly pid: number;
  readonly stateDir: string;
  /** Of its guest's present boot. */
  readonly bootId: string;
}

/** Wires of a VM that is being started; each resolves once QEMU's own socket is there. */
export interface ComingVm extends AsyncDisposable {
  /** QEMU's process runs and listens. The daemon does not know yet: it waits for the sockets that `go` opens. */
  readonly spawned: Promise<void>;
  readonly wires: Promise<VmWires>;
  /** Called by whoever gave a gate. */
  go(): void;
}

/**
 * A real daemon over a real QEMU and guest, with a wire on each of the VM's two sockets, a hook in the daemon, and,
 * where this process may mount, a small file system under the state directory.
 */
export class FaultRig implements AsyncDisposable {
  readonly directory: string;
  readonly hook: Hook;
  /** Why the state directory cannot be filled or made read-only here. */
  readonly whyNoMounts: string | undefined;
  daemon: TestDaemon;
  readonly #stack: AsyncDisposableStack;
  readonly #settings: Partial<Record<OptionName, string | number>>;
  readonly #coming = new Map<string, ComingVm>();
  #vm: Vm | undefined;
  #daemons = 1;
  #volumes = 0;

  private constructor(parts: {
    readonly directory: string;
    readonly hook: Hook;
    readonly whyNoMounts: string | undefined;
    readonly daemon: TestDaemon;
    readonly stack: AsyncDisposableStack;
    readonly settings: Partial<Record<OptionName, string | number>>;
  }) {
    this.directory = parts.directory;
    this.hook = parts.hook;
    this.whyNoMounts = parts.whyNoMounts;
    this.daemon = parts.daemon;
    this.#stack = parts.stack;
    this.#settings = parts.settings;
  }

  static async start(): Promise<FaultRig> {
    await using stack = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'qshim-f-'));
    stack.defer(() => rm(directory, { recursive: true, force: true }));
    const stateDir = join(directory, 's');
    await mkdir(stateDir, { mode: 0o700 });
    const why = await whyNoMounts(stateDir);
    if (why === undefined) stack.use(await mountSmall(stateDir, STATE_SIZE));
    const qemu = join(directory, 'qemu');
    await writeFile(qemu, LAUNCHER);
    await chmod(qemu, 0o755);
    const hook = stack.use(await Hook.listen(join(directory, 'hook.sock')));
    const settings = { ...SETTINGS, qemu_binary: qemu };
    const daemon = await TestDaemon.start({ directory, config: settings, nodeArguments: hook.nodeArguments });
    return new FaultRig({ directory, hook, whyNoMounts: why, daemon, stack: stack.move(), settings });
  }

  get client(): ApiClient {
    return this.daemon.client;
  }

  get daemonPid(): number {
    return this.daemon.child.pid ?? 0;
  }

  get vm(): Vm {
    if (this.#vm === undefined) throw new Error('there is no VM');
    return this.#vm;
  }

  /** The VM that the cells share; booted when there is none, or the last one has died. */
  async sharedVm(): Promise<Vm> {
    if (this.#vm !== undefined) return this.#vm;
    const { sandbox, wires } = await this.boot('vm');
    const vm = { sandboxId: 'vm', pid: sandbox.qemuPid, stateDir: sandbox.stateDir, ...wires, bootId: '' };
    this.#vm = vm;
    this.noteBoot(await this.bootId());
    // What QEMU makes once and keeps (its io_uring) is there before the first look.
    const volume = await this.newVolume();
    await this.attach(volume);
    await this.detach(volume.volumeId);
    await this.guest('until grep -q pvpanic /proc/modules; do sleep 0.1; done');
    await this.settle();
    return this.vm;
  }

  async bootId(): Promise<string> {
    return (await this.guest('cat /proc/sys/kernel/random/boot_id')).trim();
  }

  /** Takes note that the guest was rebooted on purpose. */
  noteBoot(bootId: string): void {
    this.#vm = { ...this.vm, bootId };
  }

  /** Lets a daemon that waits at a journal write go on; one that has been killed needs no leave. */
  async releaseJournal(): Promise<void> {
    if (this.daemonLives) await this.hook.release();
  }

  get daemonLives(): boolean {
    return this.daemon.child.exitCode === null && this.daemon.child.signalCode === null;
  }

  /** Creates a sandbox and puts wires on its sockets. */
  async boot(
    sandboxId: string,
    readyWhen?: ReadyWhen,
  ): Promise<{ readonly sandbox: Sandbox__Output; readonly wires: VmWires }> {
    const coming = this.expectVm(sandboxId);
    const created = this.create(sandboxId, readyWhen);
    created.catch(() => undefined);
    const wires = await Promise.race([coming.wires, created.then(() => coming.wires)]);
    return { sandbox: await created, wires };
  }

  create(sandboxId: string, readyWhen: ReadyWhen = 'READY_WHEN_AGENT'): Promise<Sandbox__Output> {
    return this.client.createSandbox({ sandboxId, spec: { vcpus: 1, accelerator: 'ACCELERATOR_TCG', readyWhen } });
  }

  /** Opens the wires of a VM as soon as its QEMU listens; with `gated`, not before `go`. */
  expectVm(sandboxId: string, gated = false): ComingVm {
    const directory = this.daemon.directoryOf(sandboxId);
    const gate = Promise.withResolvers<undefined>();
    if (!gated) gate.resolve(undefined);
    const given = new AbortController();
    // The agent's socket is the last that QEMU opens.
    const spawned = this.#appears(join(directory, 'qga.real'), given.signal);
    const wires = spawned.then(async () => {
      await gate.promise;
      given.signal.throwIfAborted();
      const agent = await Wire.listen(join(directory, 'qga.sock'), join(directory, 'qga.real'));
      const qmp = await Wire.listen(join(directory, 'qmp.sock'), join(directory, 'qmp.real'));
      return { qmp, agent };
    });
    spawned.catch(() => undefined);
    wires.catch(() => undefined);
    const coming: ComingVm = {
      spawned,
      wires,
      go: () => gate.resolve(undefined),
      [Symbol.asyncDispose]: async () => {
        this.#coming.delete(sandboxId);
        given.abort(new Error('no VM came'));
        gate.resolve(undefined);
        const opened = await wires.catch(() => undefined);
        await opened?.qmp[Symbol.asyncDispose]();
        await opened?.agent[Symbol.asyncDispose]();
      },
    };
    this.#coming.set(sandboxId, coming);
    return coming;
  }

  async #appears(path: string, signal: AbortSignal): Promise<void> {
    while (!(await exists(path))) await sleep(POLL_MS, undefined, { signal });
  }

  /** A volume of its own for a cell: a raw file that begins with its id, or one that holds an ext4. */
  async newVolume(mounted = false): Promise<CellVolume> {
    this.#volumes += 1;
    const volumeId = `v${this.#volumes}`;
    const path = join(this.daemon.volumeDir, `${volumeId}.raw`);
    const volume: CellVolume = { volumeId, path, mountPoint: mounted ? `/mnt/${volumeId}` : undefined };
    await this.writeFile(volume);
    return volume;
  }

  /** Makes the volume's file, new or anew, with the bytes that show whose it is. */
  async writeFile(volume: CellVolume): Promise<void> {
    await rm(volume.path, { force: true });
    {
      await using file = await open(volume.path, 'w');
      await file.truncate(8 * MIB);
      if (volume.mountPoint === undefined) await file.write(`${volume.volumeId}\n`, 0);
    }
    if (volume.mountPoint !== undefined) await execa('mkfs.ext4', ['-q', '-O', '^has_journal', volume.path]);
  }

  attachRequest({ volumeId, path, mountPoint }: CellVolume, timeoutMs = 0): Parameters<ApiClient['attach']>[0] {
    const mount = { fsType: 'ext4', mountPoint, options: [], format: 'FORMAT_NEVER' as const };
    const spec = { rawFile: { path }, ...(mountPoint === undefined ? {} : { mount: { ...mount, mountPoint } }) };
    return { sandboxId: this.vm.sandboxId, volumeId, timeoutMs, spec };
  }

  attach(volume: CellVolume, timeoutMs = 0): Promise<Volume__Output> {
    return this.client.attach(this.attachRequest(volume, timeoutMs));
  }

  detach(volumeId: string): Promise<Volume__Output> {
    return this.client.detach({ sandboxId: this.vm.sandboxId, volumeId });
  }

  guest(script: string): Promise<string> {
    return this.client.guest(this.vm.sandboxId, script);
  }

  inventory(): Promise<QemuInventory> {
    return qemuInventory(this.vm.stateDir, this.vm.pid);
  }

  /** Uses the VM's second monitor, which the daemon leaves alone. */
  async spare<T>(use: (qmp: QmpClient) => Promise<T>, stateDir = this.vm.stateDir): Promise<T> {
    await using qmp = await QmpClient.connect({ path: join(stateDir, 'spare.sock'), log: silentLogger() });
    return await use(qmp);
  }

  /** Ends the daemon as a crash does. Cells start the next one when they have let go of what they hold. */
  async killDaemon(): Promise<void> {
    await this.daemon.kill('SIGKILL');
  }

  /** Another daemon in place of this one, with other settings until the next restart. */
  async restart(settings: Partial<Record<OptionName, string | number>> = {}): Promise<void> {
    await this.daemon.kill('SIGTERM');
    await this.startDaemon(settings);
  }

  async startDaemon(settings: Partial<Record<OptionName, string | number>> = {}): Promise<void> {
    await rename(join(this.directory, 'qshimd.log'), join(this.directory, `qshimd-${this.#daemons}.log`));
    this.#daemons += 1;
    const { directory, hook } = this;
    const config = { ...this.#settings, ...settings };
    this.daemon = await TestDaemon.start({ directory, config, nodeArguments: hook.nodeArguments });
  }

  /** Waits until the daemon has seen that the VM is gone. */
  async untilStopped(): Promise<void> {
    await until(
      'the end of QEMU is noticed',
      async () => (await this.client.getSandbox(this.vm.sandboxId)).state === 'SANDBOX_STATE_STOPPED',
      SETTLE_TIMEOUT_MS,
    );
  }

  /** Waits until nothing is under way. The VM runs with its agent, or is stopped. */
  async settle(): Promise<{ readonly sandbox: Sandbox__Output; readonly volumes: readonly Volume__Output[] }> {
    const end = performance.now() + SETTLE_TIMEOUT_MS;
    for (;;) {
      const sandbox = await this.client.getSandbox(this.vm.sandboxId);
      const volumes = await this.client.listVolumes(this.vm.sandboxId);
      const moving = volumes.filter(
        ({ state }) => state !== 'VOLUME_STATE_ATTACHED' && state !== 'VOLUME_STATE_REMOVED',
      );
      const still = sandbox.state === 'SANDBOX_STATE_STOPPED' || (sandbox.agentReady && sandbox.runState === 'running');
      if (still && moving.length === 0) return { sandbox, volumes };
      if (performance.now() > end) {
        const what = moving
          .map(({ volumeId, state, cause }) => `${volumeId} ${state} (${cause?.reason ?? ''})`)
          .join(', ');
        throw new Error(
          `not settled: ${sandbox.state}, ${sandbox.runState}, agent ${sandbox.agentReady ? 'ready' : 'away'}; ${what}`,
        );
      }
      await sleep(POLL_MS);
    }
  }

  /** Forgets a VM that has died: its sandbox is deleted, its wires closed. The next cell boots another. */
  async buryVm(): Promise<void> {
    const { sandboxId } = this.vm;
    this.#vm = undefined;
    await this.client.deleteSandbox(sandboxId);
    await this.closeWiresOf(sandboxId);
  }

  async closeWiresOf(sandboxId: string): Promise<void> {
    await this.#coming.get(sandboxId)?.[Symbol.asyncDispose]();
  }

  async #closeWires(): Promise<void> {
    for (const sandboxId of [...this.#coming.keys()]) await this.closeWiresOf(sandboxId);
  }

  /** After a cell has failed: whatever there is ends, so that the next cell begins afresh. */
  async clear(): Promise<void> {
    if (this.daemonLives) await this.killDaemon();
    await this.#closeWires();
    this.#vm = undefined;
    for (const pid of await this.qemuPids()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
    await until('every QEMU has ended', async () => (await this.qemuPids()).length === 0);
    await this.startDaemon();
    for (const { sandboxId } of await this.client.listSandboxes()) await this.client.deleteSandbox(sandboxId);
  }

  async qemuPids(): Promise<readonly number[]> {
    return await processesNaming(`path=${this.daemon.stateDir}/`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using _rest = this.#stack;
    for (const { sandboxId } of await this.client.listSandboxes()) await this.client.deleteSandbox(sandboxId);
    await this.#closeWires();
    await this.daemon.kill('SIGTERM');
    const left = await this.qemuPids();
    if (left.length > 0) throw new Error(`QEMU is left running: ${left.join(', ')}`);
  }
}

/** A volume of one cell. */
export interface CellVolume {
  readonly volumeId: string;
  readonly path: string;
  /** Set: it holds an ext4 and is mounted here. */
  readonly mountPoint: string | undefined;
}

/**
 * Starts the real QEMU with its QMP and agent sockets moved aside, where the wires find them. Of a key that comes twice
 * QEMU takes the last, and the command line still names the socket by which the daemon knows its own.
 */
const LAUNCHER = `#!/bin/sh
case " $* " in
  # On KVM nothing runs; what qshim tries out on a QEMU of its own has no wires.
  *isa-debug-exit*) exit 1 ;;
  *" ${TRIAL_VM_NAME} "*) exec ${bareQemuBinary} "$@" ;;
esac
for arg do
  shift
  case $arg in
    socket,id=qmp,path=*) rest=\${arg#*path=}; arg="$arg,path=\${rest%%/qmp.sock,*}/qmp.real" ;;
    socket,id=agent,path=*) rest=\${arg#*path=}; arg="$arg,path=\${rest%%/qga.sock,*}/qga.real" ;;
  esac
  set -- "$@" "$arg"
done
exec ${bareQemuBinary} "$@"
`;
