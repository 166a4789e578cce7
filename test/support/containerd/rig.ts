import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { ContainerStatus__Output } from '../../../src/grpc/generated/runtime/v1/ContainerStatus.ts';
import { TestDaemon } from '../daemon.ts';
import { CriClient } from './cri.ts';
import { makeImage } from './image.ts';
import { ensureContainerd, type ContainerdBinaries, type ContainerdVersion } from './packages.ts';
import { until } from '../until.ts';

const root = join(import.meta.dirname, '../../..');
const START_TIMEOUT_MS = 30_000;
const UNTIL_MS = 60_000;
const SCRATCH_BYTES = 64 * 1024 * 1024;

/**
 * What is left of a run on this host, by looking: mounts, loop devices, processes, FIFOs and sockets below a directory.
 */
export interface Leftovers {
  readonly mounts: readonly string[];
  readonly loops: readonly string[];
  readonly processes: readonly string[];
  readonly nodes: readonly string[];
}

/**
 * A real containerd and a qshimd that serves it, each in private directories below one temporary one. Disposing ends
 * both and fails when a mount, a loop device, a process of theirs, a socket or a FIFO is left.
 */
export class ContainerdRig implements AsyncDisposable {
  readonly directory: string;
  readonly version: ContainerdVersion;
  readonly address: string;
  readonly shimSocket: string;
  cri: CriClient;
  daemon: TestDaemon;
  readonly #binaries: ContainerdBinaries;
  #containerd: ChildProcess;
  /** FIFOs that the daemon had when it was asked to end; its directory goes with it. */
  #fifos: readonly string[] = [];

  private constructor(parts: {
    directory: string;
    version: ContainerdVersion;
    binaries: ContainerdBinaries;
    containerd: ChildProcess;
    daemon: TestDaemon;
  }) {
    this.directory = parts.directory;
    this.version = parts.version;
    this.#binaries = parts.binaries;
    this.#containerd = parts.containerd;
    this.daemon = parts.daemon;
    this.address = join(parts.directory, 'cd.sock');
    this.shimSocket = shimSocketOf(parts.directory);
    this.cri = new CriClient(this.address);
  }

  static async start(
    version: ContainerdVersion,
    daemonConfig: Record<string, string | number> = {},
  ): Promise<ContainerdRig> {
    const binaries = await ensureContainerd(version);
    const directory = await mkdtemp(join(tmpdir(), 'qshim-c-'));
    await using undo = new AsyncDisposableStack();
    undo.defer(() => rm(directory, { recursive: true, force: true }));
    await chmod(directory, 0o700);
    await makeScratch(join(directory, 'scratch'));
    await writeFile(join(directory, 'config.toml'), configText(directory, version));
    await installShim(join(directory, 'bin'), shimSocketOf(directory));
    const daemon = undo.use(await startDaemon(directory, daemonConfig));
    const containerd = await startContainerd(binaries.containerd, directory);
    const rig = new ContainerdRig({ directory, version, binaries, containerd, daemon });
    undo.defer(() => rig.stopContainerd('SIGKILL'));
    await rig.#untilServing();
    await rig.#importImage();
    undo.move();
    return rig;
  }

  /** The command line of `ctr` in a namespace. */
  ctrCommand(args: readonly string[], namespace = 'k8s.io'): readonly [string, ...string[]] {
    return [this.#binaries.ctr, '-a', this.address, '-n', namespace, ...args];
  }

  /** Runs `ctr` in a namespace. */
  async ctr(args: readonly string[], options: CtrOptions = {}): Promise<CtrResult> {
    const [file, ...all] = this.ctrCommand(args, options.namespace);
    const result = await execa(file, all, {
      reject: false,
      encoding: 'buffer',
      stripFinalNewline: false,
      maxBuffer: 64 * 1024 * 1024,
      timeout: options.timeoutMs ?? 120_000,
      input: options.input ?? Buffer.alloc(0),
    });
    return {
      exitCode: result.exitCode ?? -1,
      stdout: Buffer.from(result.stdout),
      stderr: Buffer.from(result.stderr).toString(),
      stderrBytes: Buffer.from(result.stderr),
    };
  }

  /** Polls until it is so. */
  async until(holds: () => Promise<boolean>): Promise<void> {
    await until(holds.toString(), holds, UNTIL_MS);
  }

  /** A container's status once CRI has seen it end. */
  async exited(containerId: string): Promise<ContainerStatus__Output> {
    await this.until(async () => (await this.cri.status(containerId)).state === 'CONTAINER_EXITED');
    return await this.cri.status(containerId);
  }

  /** Ids of the volumes that a pod's VM has. */
  async attachedVolumes(podId: string): Promise<readonly string[]> {
    const volumes = await this.daemon.client.listVolumes(podId);
    return volumes.filter(({ state }) => state !== 'VOLUME_STATE_REMOVED').map(({ volumeId }) => volumeId);
  }

  /** Leaves a record as `kata-runtime direct-volume add` does. @returns the path to mount */
  async directVolume(name: string, record: { readonly device: string; readonly fstype: string }): Promise<string> {
    const volumePath = join(this.directory, 'csi', name);
    await mkdir(volumePath, { recursive: true });
    const encoded = Buffer.from(volumePath).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
    const directory = join(this.directory, 'direct', encoded);
    await mkdir(directory, { recursive: true });
    const info = { 'volume-type': 'block', metadata: {}, options: [], ...record };
    await writeFile(join(directory, 'mountInfo.json'), JSON.stringify(info));
    return volumePath;
  }

  async #importImage(): Promise<void> {
    const tar = await makeImage(this.directory);
    for (const namespace of ['k8s.io', 'default']) {
      const local = this.version === '2.1' ? ['--local'] : [];
      const args = ['images', 'import', ...local, '--snapshotter', 'blockfile', '--digests=false', tar];
      const result = await this.ctr(args, { namespace });
      if (result.exitCode !== 0) throw new Error(`image import: ${result.stderr}`);
    }
    await rm(tar);
  }

  async #untilServing(): Promise<void> {
    const end = Date.now() + START_TIMEOUT_MS;
    while (Date.now() < end && this.#containerd.exitCode === null) {
      if ((await this.ctr(['version'])).exitCode === 0) return;
      await sleep(50);
    }
    throw new Error(`containerd does not serve: ${await this.containerdLog()}`);
  }

  containerdLog(): Promise<string> {
    return readFile(join(this.directory, 'containerd.log'), 'utf8');
  }

  async stopContainerd(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    this.cri[Symbol.dispose]();
    await endChild(this.#containerd, signal);
  }

  /** Starts containerd again on the same directories. */
  async startContainerd(): Promise<void> {
    this.#containerd = await startContainerd(this.#binaries.containerd, this.directory);
    this.cri = new CriClient(this.address);
    await this.#untilServing();
    // CRI first takes up what it had before.
    if (this.version === '2.1') {
      await this.until(() =>
        this.cri.pods().then(
          () => true,
          () => false,
        ),
      );
    }
  }

  /** Kills or stops qshimd, and starts the next one on the same directories. */
  async restartDaemon(signal: NodeJS.Signals, awayMs = 0): Promise<void> {
    await this.daemon.kill(signal);
    await sleep(awayMs);
    this.daemon = await startDaemon(this.directory, {});
  }

  /** What is left on this host below the rig's directory. Sockets and FIFOs: the daemon's and the relay's. */
  async leftovers(): Promise<Leftovers> {
    const entries = await readdir(join(this.directory, 'q'), { withFileTypes: true });
    const nodes = [...this.#fifos, ...entries.map(({ name }) => join(this.directory, 'q', name))];
    const mounts = (await readFile('/proc/self/mounts', 'utf8'))
      .split('\n')
      .filter((line) => line.includes(this.directory));
    const loops: string[] = [];
    for (const name of await readdir('/sys/block')) {
      const backing = await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '');
      if (backing.includes(this.directory)) loops.push(`${name} ${backing.trim()}`);
    }
    const processes: string[] = [];
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (command.includes(this.directory)) processes.push(`${pid} ${command.replaceAll('\0', ' ')}`);
    }
    return { mounts, loops, processes, nodes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(async () => {
      const left = await this.leftovers();
      // Named below; but a run that failed must not leave them to the next one.
      for (const line of left.processes) process.kill(Number(line.split(' ')[0]), 'SIGKILL');
      if (process.env.KEEP === undefined) await rm(this.directory, { recursive: true, force: true });
      const all = [...left.mounts, ...left.loops, ...left.processes, ...left.nodes];
      if (all.length > 0) throw new Error(`left on this host:\n${all.join('\n')}`);
    });
    cleanup.use(this.daemon);
    cleanup.defer(() => this.stopContainerd('SIGTERM'));
    cleanup.defer(() => this.#removeAll());
  }

  /** Pods and tasks that a failed test has left. */
  async #removeAll(): Promise<void> {
    if (this.version === '2.1') {
      for (const { id } of await this.cri.pods()) {
        await this.cri.stopPod(id).catch(() => undefined);
        await this.cri.removePod(id).catch(() => undefined);
      }
    }
    const { stdout } = await this.ctr(['tasks', 'ls', '-q'], { namespace: 'default' });
    for (const id of stdout.toString().split('\n').filter(Boolean)) {
      await this.ctr(['tasks', 'rm', '-f', id], { namespace: 'default' });
    }
    const entries = await readdir(this.daemon.stateDir, { recursive: true, withFileTypes: true });
    this.#fifos = entries.filter((entry) => entry.isFIFO()).map((entry) => join(entry.parentPath, entry.name));
  }
}

interface CtrOptions {
  readonly namespace?: string;
  readonly input?: Buffer;
  readonly timeoutMs?: number;
}

export interface CtrResult {
  /** -1 when it was ended by a signal or the time limit. */
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: string;
  readonly stderrBytes: Buffer;
}

function shimSocketOf(directory: string): string {
  return join(directory, 'q/shim.sock');
}

async function startDaemon(directory: string, config: Record<string, string | number>): Promise<TestDaemon> {
  const home = join(directory, 'd');
  await mkdir(home, { recursive: true });
  return await TestDaemon.start({
    directory: home,
    config: {
      containerd_socket: shimSocketOf(directory),
      containerd_address: join(directory, 'cd.sock'),
      containerd_direct_volumes: join(directory, 'direct'),
      containerd_kata_directory: join(directory, 'kt'),
      allowed_roots: `${join(home, 'volumes')},${join(directory, 'root')},/dev`,
      ...config,
    },
  });
}

async function startContainerd(binary: string, directory: string): Promise<ChildProcess> {
  await using log = await open(join(directory, 'containerd.log'), 'a');
  const path = `${join(directory, 'bin')}${delimiter}${process.env.PATH ?? ''}`;
  return spawn(binary, ['--config', join(directory, 'config.toml')], {
    stdio: ['ignore', log.fd, log.fd],
    env: { ...process.env, PATH: path },
  });
}

async function endChild(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

async function makeScratch(path: string): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(SCRATCH_BYTES);
  await execa('mkfs.ext4', ['-q', '-O', '^has_journal', path]);
}

/** The runtime binary, where containerd looks for it: a launcher that knows the daemon's socket. */
async function installShim(directory: string, socket: string): Promise<void> {
  await mkdir(directory);
  const path = join(directory, 'containerd-shim-qshim-v2');
  const launcher = join(root, 'bin/containerd-shim-qshim-v2');
  await writeFile(path, `#!/bin/sh\nQSHIM_CONTAINERD_SOCKET='${socket}' exec '${launcher}' "$@"\n`);
  await chmod(path, 0o755);
}

function configText(directory: string, version: ContainerdVersion): string {
  const common = `
root = "${directory}/root"
state = "${directory}/state"
[grpc]
  address = "${directory}/cd.sock"
[ttrpc]
  address = "${directory}/cd.sock.ttrpc"
[plugins.'io.containerd.snapshotter.v1.blockfile']
  scratch_file = "${directory}/scratch"
  fs_type = "ext4"
  mount_options = []
  recreate_scratch = true
`;
  if (version === '1.7') {
    return `version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n${common}`;
  }
  return `version = 3
${common}
[proxy_plugins.qshim]
  type = "sandbox"
  address = "${shimSocketOf(directory)}"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "qshim"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.qshim]
  runtime_type = "io.containerd.qshim.v2"
  sandboxer = "qshim"
  snapshotter = "blockfile"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "blockfile"
`;
}
