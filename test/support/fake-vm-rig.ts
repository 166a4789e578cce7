import { mkdir, readFile, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { OptionName } from '../../src/config.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { TestDaemon, type ApiClient } from './daemon.ts';
import { FakeQemu, type FakeVm, type FakeVmOptions } from './fake-qemu.ts';
import { until } from './until.ts';

/** Short waits, so that retries and deadlines come within a test. */
const QUICK: Partial<Record<OptionName, string | number>> = {
  unplug_retry_ms: 100,
  unplug_retry_max_ms: 200,
  stop_timeout_ms: 10_000,
  drain_timeout_ms: 300,
  qmp_reply_timeout_ms: 20_000,
  // Tests count what QEMU is asked.
  qmp_heartbeat_ms: 3_600_000,
  stats_period_ms: 0,
  stats_histograms: 'off',
};

type Settings = Partial<Record<OptionName, string | number>>;

/** The real daemon over a fake QEMU, with one sandbox, "one". */
export class FakeVmRig implements AsyncDisposable {
  readonly qemu: FakeQemu;
  readonly settings: Settings;
  daemon: TestDaemon;
  readonly #files = new Map<string, Promise<string>>();

  private constructor(qemu: FakeQemu, settings: Settings, daemon: TestDaemon) {
    this.qemu = qemu;
    this.settings = settings;
    this.daemon = daemon;
  }

  /** Starts QEMU's stand-in and the daemon; no sandbox yet. */
  static async start(settings: Settings = {}, nodeArguments: readonly string[] = []): Promise<FakeVmRig> {
    await using stack = new AsyncDisposableStack();
    const qemu = stack.use(await FakeQemu.make());
    const all = { ...QUICK, ...qemu.config, ...settings };
    const daemon = await TestDaemon.start({ config: all, nodeArguments });
    stack.move();
    return new FakeVmRig(qemu, all, daemon);
  }

  get client(): ApiClient {
    return this.daemon.client;
  }

  /** Creates a sandbox and gives the QEMU behind it. */
  async sandbox(sandboxId = 'one', options: FakeVmOptions = {}, volumeCapacity = 0): Promise<FakeVm> {
    this.qemu.options.set(sandboxId, options);
    const [, vm] = await Promise.all([
      this.client.createSandbox({ sandboxId, spec: { accelerator: 'ACCELERATOR_TCG', volumeCapacity } }),
      this.qemu.vm(sandboxId),
    ]);
    return vm;
  }

  /** Attaches a raw file of the volume's own name, which is made the first time. */
  async attach(volumeId: string, timeoutMs = 0, sandboxId = 'one'): Promise<Volume__Output> {
    const file = this.#files.get(volumeId) ?? this.daemon.rawFile(volumeId, 1024 * 1024);
    this.#files.set(volumeId, file);
    const path = await file;
    return await this.client.attach({ sandboxId, volumeId, timeoutMs, spec: { rawFile: { path } } });
  }

  detach(volumeId: string, options: { timeoutMs?: number; force?: boolean } = {}): Promise<Volume__Output> {
    return this.client.detach({ sandboxId: 'one', volumeId, ...options });
  }

  volume(volumeId: string): Promise<Volume__Output> {
    return this.client.getVolume('one', volumeId);
  }

  /** Asks until the volume is as expected, and gives it. */
  async until(volumeId: string, state: Volume__Output['state']): Promise<Volume__Output> {
    return await until(`volume ${volumeId} is ${state}`, async () => {
      const volume = await this.volume(volumeId);
      return volume.state === state ? volume : undefined;
    });
  }

  /** Ends the daemon, leaves the VMs, and starts another on the same directory. */
  async restart(signal: NodeJS.Signals): Promise<void> {
    await this.restartAfter(signal, () => Promise.resolve());
  }

  /** As restart, with something that happens while no daemon is there. */
  async restartAfter(signal: NodeJS.Signals, meanwhile: () => Promise<void>): Promise<void> {
    const { directory } = this.daemon;
    await this.daemon.kill(signal);
    await meanwhile();
    this.daemon = await TestDaemon.start({ config: this.settings, directory });
  }

  /** Makes the journal unwritable, for root too, until disposed of. */
  async blockJournal(): Promise<AsyncDisposable> {
    // A directory in the temporary file's place; a write that is under way has to end first.
    const obstacle = join(this.daemon.directoryOf('one'), 'state.json.new');
    await until('the journal is at rest', () =>
      mkdir(obstacle).then(
        () => true,
        () => undefined,
      ),
    );
    return { [Symbol.asyncDispose]: () => rmdir(obstacle) };
  }

  /** The journal of the sandbox as it is on disk now. */
  async journal(): Promise<{ volumes: { volumeId: string; state: { state: string; phase?: string } }[] }> {
    const text = await readFile(join(this.daemon.directoryOf('one'), 'state.json'), 'utf8');
    return JSON.parse(text) as Awaited<ReturnType<FakeVmRig['journal']>>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using _qemu = this.qemu;
    await this.daemon[Symbol.asyncDispose]();
  }
}
