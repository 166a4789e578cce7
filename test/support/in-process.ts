import { mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HostBudget } from '../../src/base/budget.ts';
import { silentLogger, type Logger } from '../../src/base/log.ts';
import { configWith, type Config } from '../../src/config.ts';
import { Cells } from '../../src/confine/cells.ts';
import { AcceleratorChoice } from '../../src/qemu/accelerator.ts';
import type { KeySource } from '../../src/keys/sources.ts';
import { holdBootImages, type HoldBootImages } from '../../src/volume/boot-images.ts';
import { BackingClaims } from '../../src/volume/claims.ts';
import { StaleCopies } from '../../src/volume/stale-copies.ts';
import { EventLog } from '../../src/store/events.ts';
import { settleDirectories } from '../../src/sandbox/directories.ts';
import { IoBudgets } from '../../src/sandbox/io-budgets.ts';
import { SandboxManager } from '../../src/sandbox/manager.ts';
import { WarmPool } from '../../src/template/pool.ts';
import { Templates } from '../../src/template/templates.ts';
import { leftIn } from './daemon.ts';
import { bareQemuBinary } from './bare-qemu.ts';
import { INITRD, KERNEL } from './guest-image.ts';

/** The daemon's sandboxes without its API, in the test's own process: for what has no call of its own yet. */
export class InProcess implements AsyncDisposable {
  readonly directory: string;
  readonly config: Config;
  manager: SandboxManager;
  readonly #log: Logger;
  #owned: AsyncDisposableStack;

  private constructor(
    directory: string,
    config: Config,
    log: Logger,
    manager: SandboxManager,
    owned: AsyncDisposableStack,
  ) {
    this.directory = directory;
    this.config = config;
    this.manager = manager;
    this.#log = log;
    this.#owned = owned;
  }

  static async start(settings: Partial<Config> = {}, log: Logger = silentLogger()): Promise<InProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-in-'));
    for (const name of ['volumes', 'cache', 's']) await mkdir(join(directory, name));
    const config = configWith({
      state_dir: join(directory, 's'),
      cache_dir: join(directory, 'cache'),
      allowed_roots: [join(directory, 'volumes')],
      template: 'off',
      ...{ qemu_binary: bareQemuBinary, kernel: KERNEL, initrd: INITRD },
      ...settings,
    });
    const [manager, owned] = await startManager(config, log);
    return new InProcess(directory, config, log, manager, owned);
  }

  get volumeDir(): string {
    return join(this.directory, 'volumes');
  }

  /** As when the daemon ends on SIGTERM and another starts: the VMs go on meanwhile. */
  async restart(meanwhile: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    await this.#owned.disposeAsync();
    await meanwhile();
    [this.manager, this.#owned] = await startManager(this.config, this.#log);
  }

  /** Deletes every sandbox. @throws when something is left of one */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { id } of this.manager.list({})) await this.manager.delete(id, true);
    await this.#owned.disposeAsync();
    const left = await leftIn(this.config.state_dir);
    if (left.length > 0) throw new Error(`left in the state directory: ${left.join(', ')}`);
    await rm(this.directory, { recursive: true });
  }
}

async function startManager(config: Config, log: Logger): Promise<[SandboxManager, AsyncDisposableStack]> {
  await using owned = new AsyncDisposableStack();
  await settleDirectories(config.state_dir, log);
  const limits = { retainedMax: 4096, watchersMax: 16, watcherQueueMax: 1024 };
  const events = await EventLog.open(join(config.state_dir, 'events.jsonl'), limits, log);
  owned.defer(() => events.flush());
  const accelerators = new AcceleratorChoice(config.qemu_binary, config.kvm_probe_timeout_ms);
  const cells = await Cells.open(config, log);
  const staleCopies = await StaleCopies.open(join(config.state_dir, '.stale-copies.json'));
  const claims = new BackingClaims(staleCopies);
  const holdImages: HoldBootImages = (images, owner) => holdBootImages(claims, images, owner);
  const templates = owned.use(await Templates.open(config, log, cells, holdImages));
  const budgets = HostBudget.from(config);
  const pool = owned.use(new WarmPool(config, log, templates, budgets, cells, holdImages));
  // Nothing here asks for a key.
  const keys: KeySource = { fetch: () => Promise.reject(new Error('no keys')) };
  const ioBudgets = owned.use(new IoBudgets(config, log));
  const parts = {
    config,
    log,
    events,
    claims,
    staleCopies,
    budgets,
    accelerators,
    cells,
    templates,
    pool,
    keys,
    holdImages,
    ioBudgets,
  };
  const manager = new SandboxManager(parts);
  await manager.start();
  owned.defer(() => manager.release());
  return [manager, owned.move()];
}

/** A raw file of zeroes. */
export async function zeroes(path: string, bytes: number): Promise<string> {
  await using file = await open(path, 'w');
  await file.truncate(bytes);
  return path;
}
