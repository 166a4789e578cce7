import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, type ServiceError } from '@grpc/grpc-js';
import type { OptionName } from '../../src/config.ts';
import type { AttachManyRequest } from '../../src/grpc/generated/qshim/v1/AttachManyRequest.ts';
import type { BatchResponse__Output } from '../../src/grpc/generated/qshim/v1/BatchResponse.ts';
import type { BatchResult__Output } from '../../src/grpc/generated/qshim/v1/BatchResult.ts';
import type { DetachManyRequest } from '../../src/grpc/generated/qshim/v1/DetachManyRequest.ts';
import type { PlanRequest } from '../../src/grpc/generated/qshim/v1/PlanRequest.ts';
import type { PlanResponse__Output } from '../../src/grpc/generated/qshim/v1/PlanResponse.ts';
import type { VolumePlan__Output } from '../../src/grpc/generated/qshim/v1/VolumePlan.ts';
import type { AttachVolumeRequest } from '../../src/grpc/generated/qshim/v1/AttachVolumeRequest.ts';
import type { CreateSandboxRequest } from '../../src/grpc/generated/qshim/v1/CreateSandboxRequest.ts';
import type { DetachVolumeRequest } from '../../src/grpc/generated/qshim/v1/DetachVolumeRequest.ts';
import type { BudgetsClient } from '../../src/grpc/generated/qshim/v1/Budgets.ts';
import type { EventsClient } from '../../src/grpc/generated/qshim/v1/Events.ts';
import type { OperationsClient } from '../../src/grpc/generated/qshim/v1/Operations.ts';
import type { ExecResponse__Output } from '../../src/grpc/generated/qshim/v1/ExecResponse.ts';
import type { RebootSandboxRequest } from '../../src/grpc/generated/qshim/v1/RebootSandboxRequest.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { SandboxesClient } from '../../src/grpc/generated/qshim/v1/Sandboxes.ts';
import type { GetStatsRequest } from '../../src/grpc/generated/qshim/v1/GetStatsRequest.ts';
import type { GetStatsResponse__Output } from '../../src/grpc/generated/qshim/v1/GetStatsResponse.ts';
import type { StatsClient } from '../../src/grpc/generated/qshim/v1/Stats.ts';
import type { StopSandboxRequest } from '../../src/grpc/generated/qshim/v1/StopSandboxRequest.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumesClient } from '../../src/grpc/generated/qshim/v1/Volumes.ts';
import { NODE_FLAGS } from '../../src/base/node-flags.ts';
import { sandboxDirectory, sandboxesDirectory } from '../../src/qemu/files.ts';
import { POOL_DIRECTORY_PREFIX } from '../../src/template/pool.ts';
import { loadApi } from '../../src/grpc/schema.ts';
import { endHoldersBelow } from './template-holders.ts';

const root = join(import.meta.dirname, '../..');
const START_TIMEOUT_MS = 60_000;

/** Names in a state directory that stay when there are no sandboxes. */
const DAEMON_FILES: ReadonlySet<string> = new Set([
  ...['lock.sock', 'events.jsonl', '.audit.jsonl', '.audit.jsonl.1', 'boot-id', '.containerd'],
  ...['.io-budgets.json', '.stale-copies.json'],
  basename(sandboxesDirectory('/')),
]);

/**
 * Set by scripts/test.ts: how sandboxes that do not say start (default: off), and a directory on tmpfs for templates.
 */
const TEMPLATE_MODE = process.env['QSHIM_TEST_TEMPLATE'];
const TEMPLATES_DIR = process.env['QSHIM_TEST_TEMPLATES_DIR'];

/** What is in a state directory besides the daemon's own files. */
export async function leftIn(stateDir: string): Promise<readonly string[]> {
  const sandboxes = await readdir(sandboxesDirectory(stateDir)).catch(() => []);
  const others = (await readdir(stateDir)).filter((name) => !DAEMON_FILES.has(name));
  return [...sandboxes, ...others].sort();
}

let cachePath: string | undefined;

/** What this version found out about QEMU; the daemons of one test file share it, and try the binary once. */
function cacheDirectory(): string {
  if (cachePath !== undefined) return cachePath;
  const path = mkdtempSync(join(tmpdir(), 'qshim-cache-'));
  process.once('exit', () => rmSync(path, { recursive: true, force: true }));
  cachePath = path;
  return path;
}

/** Another user, or another version, has its own. */
function cacheOf({ uid, tree }: DaemonOptions, directory: string): string {
  return uid === undefined && tree === undefined ? cacheDirectory() : join(directory, 'cache');
}

/** Boots by default, without templates beside them. In template mode all daemons of one user share their templates. */
async function templateSettings(
  directory: string,
  uid = process.getuid?.(),
): Promise<Partial<Record<OptionName, string>>> {
  if (TEMPLATE_MODE === undefined || TEMPLATES_DIR === undefined) {
    return { template: 'off', templates_dir: join(directory, 'templates') };
  }
  const templates = join(TEMPLATES_DIR, String(uid));
  await mkdir(templates, { recursive: true, mode: 0o700 });
  if (uid !== undefined) await chown(templates, uid, uid);
  return { template: TEMPLATE_MODE, templates_dir: templates };
}

/** Typed promise calls over one gRPC channel. */
export class ApiClient implements Disposable {
  readonly sandboxes: SandboxesClient;
  readonly volumes: VolumesClient;
  readonly operations: OperationsClient;
  readonly stats: StatsClient;
  readonly budgets: BudgetsClient;
  readonly events: EventsClient;

  constructor(socket: string) {
    const { Sandboxes, Volumes, Operations, Stats, Budgets, Events } = loadApi().qshim.v1;
    // A channel of its own for each client: grpc-js would share one between equal addresses.
    const options = { 'grpc.use_local_subchannel_pool': 1 };
    const address = `unix:${socket}`;
    this.sandboxes = new Sandboxes(address, credentials.createInsecure(), options);
    this.volumes = new Volumes(address, credentials.createInsecure(), options);
    this.operations = new Operations(address, credentials.createInsecure(), options);
    this.stats = new Stats(address, credentials.createInsecure(), options);
    this.budgets = new Budgets(address, credentials.createInsecure(), options);
    this.events = new Events(address, credentials.createInsecure(), options);
  }

  createSandbox(request: CreateSandboxRequest): Promise<Sandbox__Output> {
    return call((done) => this.sandboxes.create(request, done));
  }
  getSandbox(sandboxId: string): Promise<Sandbox__Output> {
    return call((done) => this.sandboxes.get({ sandboxId }, done));
  }
  async listSandboxes(): Promise<readonly Sandbox__Output[]> {
    const list = await call<{ sandboxes: Sandbox__Output[] }>((done) => this.sandboxes.list({}, done));
    return list.sandboxes;
  }
  stopSandbox(request: StopSandboxRequest): Promise<Sandbox__Output> {
    return call((done) => this.sandboxes.stop(request, done));
  }
  startSandbox(sandboxId: string): Promise<Sandbox__Output> {
    return call((done) => this.sandboxes.start({ sandboxId }, done));
  }
  pauseSandbox(sandboxId: string): Promise<Sandbox__Output> {
    return call((done) => this.sandboxes.pause({ sandboxId }, done));
  }
  resumeSandbox(sandboxId: string): Promise<Sandbox__Output> {
    return call((done) => this.sandboxes.resume({ sandboxId }, done));
  }
  rebootSandbox(request: RebootSandboxRequest): Promise<Sandbox__Output> {
    return call((done) => this.sandboxes.reboot(request, done));
  }
  async deleteSandbox(sandboxId: string, force = true): Promise<void> {
    await call<unknown>((done) => this.sandboxes.delete({ sandboxId, force }, done));
  }
  exec(sandboxId: string, script: string, input?: Buffer): Promise<ExecResponse__Output> {
    const request = { sandboxId, path: '/bin/sh', arguments: ['-c', script], timeoutMs: 120_000 };
    return call((done) =>
      this.sandboxes.exec(input === undefined ? request : { ...request, standardInput: input }, done),
    );
  }
  /** Runs a script in the guest and gives its stdout; throws with its stderr when it fails. */
  async guest(sandboxId: string, script: string, input?: Buffer): Promise<string> {
    const result = await this.exec(sandboxId, script, input);
    if (result.exitCode !== 0) {
      throw new Error(`guest script failed (${result.exitCode}): ${result.standardError.toString()}`);
    }
    return result.standardOutput.toString();
  }
  attach(request: AttachVolumeRequest): Promise<Volume__Output> {
    return call((done) => this.volumes.attach(request, done));
  }
  detach(request: DetachVolumeRequest): Promise<Volume__Output> {
    return call((done) => this.volumes.detach(request, done));
  }
  async attachMany(request: AttachManyRequest): Promise<readonly BatchResult__Output[]> {
    return (await call<BatchResponse__Output>((done) => this.volumes.attachMany(request, done))).results;
  }
  async detachMany(request: DetachManyRequest): Promise<readonly BatchResult__Output[]> {
    return (await call<BatchResponse__Output>((done) => this.volumes.detachMany(request, done))).results;
  }
  async plan(request: PlanRequest): Promise<readonly VolumePlan__Output[]> {
    return (await call<PlanResponse__Output>((done) => this.volumes.plan(request, done))).volumes;
  }
  getVolume(sandboxId: string, volumeId: string): Promise<Volume__Output> {
    return call((done) => this.volumes.get({ sandboxId, volumeId }, done));
  }
  async listVolumes(sandboxId = ''): Promise<readonly Volume__Output[]> {
    const list = await call<{ volumes: Volume__Output[] }>((done) => this.volumes.list({ sandboxId }, done));
    return list.volumes;
  }
  getStats(request: GetStatsRequest): Promise<GetStatsResponse__Output> {
    return call((done) => this.stats.get(request, done));
  }

  [Symbol.dispose](): void {
    this.sandboxes.close();
    this.volumes.close();
    this.operations.close();
    this.stats.close();
    this.budgets.close();
    this.events.close();
  }
}

/** Turns one callback call into a promise. */
export function call<T>(start: (done: (error: ServiceError | null, value?: T) => void) => unknown): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  start((error, value) => {
    if (error !== null) reject(error);
    else if (value === undefined) reject(new Error('neither error nor value'));
    else resolve(value);
  });
  return promise;
}

export interface DaemonOptions {
  /** Options by their TOML names. */
  readonly config?: Partial<Record<OptionName, string | number>>;
  /** Keeps the directory of an earlier daemon, to start a second one on it. */
  readonly directory?: string;
  /** Runs the daemon, and so QEMU, as this user; the directories become its own. Needs root. */
  readonly uid?: number;
  /** Arguments of node itself, such as `--import FILE`. */
  readonly nodeArguments?: readonly string[];
  /** Words before its command: a program that becomes the daemon. */
  readonly prefix?: readonly string[];
  /** Runs it as an operator does, by bin/qshimd. */
  readonly launcher?: boolean;
  /** Another version's code to run, instead of this one's: the directory that has its src/. */
  readonly tree?: string;
  /** Besides the test's own environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

/**
 * A qshimd of its own in a temporary directory. Disposing of it deletes its sandboxes, ends it, and removes the
 * directory; whatever is left after that is a leak that the suites look for.
 */
export class TestDaemon implements AsyncDisposable {
  readonly directory: string;
  readonly socket: string;
  readonly volumeDir: string;
  /** Its boot_roots. */
  readonly bootDir: string;
  readonly keyDir: string;
  readonly stateDir: string;
  readonly client: ApiClient;
  readonly child: ChildProcess;
  /** Where in qshimd.log this daemon's own lines begin: an earlier one on this directory has written there too. */
  readonly #logStart: number;
  #keepDirectory = false;

  private constructor(directory: string, child: ChildProcess, logStart: number) {
    this.directory = directory;
    this.socket = join(directory, 'run/api.sock');
    this.volumeDir = join(directory, 'volumes');
    this.bootDir = join(directory, 'boot');
    this.keyDir = join(directory, 'keys');
    this.stateDir = join(directory, 's');
    this.child = child;
    this.#logStart = logStart;
    this.client = new ApiClient(this.socket);
  }

  static async start(options: DaemonOptions = {}): Promise<TestDaemon> {
    const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'qshim-t-')));
    await chmod(directory, 0o755);
    for (const name of ['volumes', 'boot', 'cache', 'keys']) await mkdir(join(directory, name), { recursive: true });
    if (options.uid !== undefined) {
      for (const name of ['', 'volumes', 'cache', 'keys']) await chown(join(directory, name), options.uid, options.uid);
    }
    await using log = await open(join(directory, 'qshimd.log'), 'a');
    const logStart = (await log.stat()).size;
    const settings: Partial<Record<OptionName, string | number>> = {
      socket: join(directory, 'run/api.sock'),
      state_dir: join(directory, 's'),
      cache_dir: options.config?.cache_dir ?? cacheOf(options, directory),
      allowed_roots: join(directory, 'volumes'),
      // Another tree may be from before there was that option.
      ...(options.tree === undefined ? { boot_roots: join(directory, 'boot') } : {}),
      key_directories: join(directory, 'keys'),
      log_level: 'debug',
      ...(await templateSettings(directory, options.uid)),
      ...options.config,
    };
    const flags = Object.entries(settings).map(([name, value]) => `--${name.replaceAll('_', '-')}=${value}`);
    const tree = options.tree ?? root;
    const command =
      options.launcher === true
        ? [join(tree, 'bin/qshimd')]
        : [process.execPath, ...NODE_FLAGS, ...(options.nodeArguments ?? []), join(tree, 'src/main.ts')];
    const [file = '', ...args] = [...(options.prefix ?? []), ...command, ...flags];
    const child = spawn(file, args, {
      stdio: ['ignore', log.fd, log.fd],
      env: { ...process.env, ...options.environment },
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
    });
    const daemon = new TestDaemon(directory, child, logStart);
    await daemon.#untilListening();
    return daemon;
  }

  async #untilListening(): Promise<void> {
    const end = Date.now() + START_TIMEOUT_MS;
    while (this.child.exitCode === null && Date.now() < end) {
      if ((await this.#ownLog()).includes('"msg":"listening"')) {
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        this.client.sandboxes.waitForReady(end, (error) => (error === undefined ? resolve() : reject(error)));
        await promise;
        return;
      }
      await sleep(20);
    }
    throw new Error(`the daemon did not start: ${await this.#ownLog()}`);
  }

  /** The state directory of a sandbox. */
  directoryOf(sandboxId: string): string {
    return sandboxDirectory(this.stateDir, sandboxId);
  }

  /** What is in the state directory besides the daemon's own files: of sandboxes, of the pool, of unfinished work. */
  async leftInState(): Promise<readonly string[]> {
    return await leftIn(this.stateDir);
  }

  log(): Promise<string> {
    return readFile(join(this.directory, 'qshimd.log'), 'utf8');
  }

  /** What this daemon has logged; `log()` also has what earlier ones on this directory did. */
  async #ownLog(): Promise<string> {
    await using file = await open(join(this.directory, 'qshimd.log'), 'r');
    const chunks: Buffer[] = [];
    for await (const chunk of file.createReadStream({ start: this.#logStart, autoClose: false })) {
      if (chunk instanceof Buffer) chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString();
  }

  /** A raw file of zeroes among the volumes. */
  async rawFile(name: string, bytes = 16 * 1024 * 1024): Promise<string> {
    const path = join(this.volumeDir, name);
    await using file = await open(path, 'w');
    await file.truncate(bytes);
    return path;
  }

  /** A key file that the daemon may read; its path. */
  async keyFile(name: string, key: string | Uint8Array): Promise<string> {
    const path = join(this.keyDir, name);
    await writeFile(path, key, { mode: 0o600 });
    return path;
  }

  /** Ends the daemon and leaves VMs and directory as they are. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#keepDirectory = true;
    this.client[Symbol.dispose]();
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill(signal);
    await exited;
  }

  /** Waits for a sandbox that is still being created, as after a `before` hook that failed. */
  async #delete(sandboxId: string): Promise<void> {
    const end = Date.now() + START_TIMEOUT_MS;
    const creating = async (): Promise<boolean> =>
      (await this.client.listSandboxes()).some(
        (sandbox) => sandbox.sandboxId === sandboxId && sandbox.state === 'SANDBOX_STATE_CREATING',
      );
    while (Date.now() < end && (await creating())) await sleep(100);
    await this.client.deleteSandbox(sandboxId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#keepDirectory) return;
    try {
      for (const { sandboxId } of await this.client.listSandboxes()) await this.#delete(sandboxId);
    } catch (error) {
      // A daemon that is left running would keep the test's process, and so the whole run, waiting.
      await this.kill('SIGKILL');
      throw error;
    }
    // Pool members belong to no sandbox, and end with the daemon.
    const before = (await this.leftInState()).filter((name) => !name.startsWith(POOL_DIRECTORY_PREFIX));
    await this.kill('SIGTERM');
    if (this.child.exitCode !== 0)
      throw new Error(`the daemon exited with ${this.child.exitCode}: ${await this.log()}`);
    const pods = await readdir(join(this.stateDir, '.containerd/pods')).catch(() => []);
    const members = (await this.leftInState()).filter((name) => name.startsWith(POOL_DIRECTORY_PREFIX));
    const unexpected = [...before, ...members, ...pods];
    if (unexpected.length > 0) throw new Error(`left in the state directory: ${unexpected.join(', ')}`);
    if (existsSync(join(this.directory, 'templates'))) await endHoldersBelow(this.directory);
    if (process.env.KEEP === undefined) await rm(this.directory, { recursive: true, force: true });
  }
}
