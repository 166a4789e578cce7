import type { Readable, Writable } from 'node:stream';
import type { LeftBytes } from '../../base/fifo.ts';
import type { OciConfig, OciMount, OciProcess, OciResources } from './oci.ts';

/**
 * Containers inside one sandbox's guest, as whoever calls them (src/containerd) sees them. Types only.
 *
 * How it goes:
 * 1. The caller parses config.json (oci.ts), the only time that anybody does. `planContainer(config)` (plan.ts, pure)
 * says which
 *    host sources must be attached as volumes, or refuses by name what the guest cannot have.
 * 2. The caller attaches the root file system and those volumes with `SandboxManager.attach` and a `mount` whose
 *   `mountPoint` is `guestMountPoint(volumeId)` (plan.ts): mounting by PCI address and serial, sharing and proof of
 *   unmounting
 *    are the volume's. A volume that several containers of the pod use is attached once; the caller counts its users.
 * 3. `create`, then `start`, `exec`, `kill` and so on, here.
 * 4. `delete`, then the caller detaches the volumes.
 *
 * Where to find it: `manager.sandbox(id).containers`.
 *
 * Restarts: what is below is journalled with the sandbox. When the daemon has adopted a sandbox, `list()` and `find()`
 * answer with the same processes at once; `exited` settles as soon as the guest has been asked again. An exit that
 * happened while no daemon ran is not lost: the guest keeps its code and time until `delete`. The caller keeps only
 * what is its own (bundle, FIFO paths, namespace, which volumes belong to which container).
 *
 * Every method rejects with a ShimError: NOT_FOUND / CONTAINER_NOT_FOUND; ALREADY_EXISTS / CONTAINER_EXISTS;
 * FAILED_PRECONDITION / CONTAINER_STATE (not possible in this state), CONTAINER_REFUSED (crun said no: its own words
 * are in the message), GUEST_AGENT_NOT_READY; INVALID_ARGUMENT for what cannot be translated; RESOURCE_EXHAUSTED /
 * NO_PORT, TOO_MANY_PROCESSES; DEADLINE_EXCEEDED; UNIMPLEMENTED / GUEST_TOOL_MISSING (a guest without crun, conmon or
 * socat); UNAVAILABLE when guest or QEMU are gone.
 */
export interface GuestContainers {
  /** Makes a container and its init process, in state `created`. When this throws, nothing of it is left. */
  create(spec: ContainerSpec): Promise<GuestProcess>;
  /** Registers a further process of a running container, in state `created`. It runs from `start()` on. */
  exec(containerId: string, spec: ExecSpec): Promise<GuestProcess>;
  /** A container's init process, or (with `execId`) one of its further processes. */
  find(containerId: string, execId?: string): GuestProcess | undefined;
  /**
   * Removes what there is of a container, or (with `execId`) of one of its further processes, also one that is only
   * half made. Resolves when nothing is left of it in guest and QEMU.
   */
  discard(containerId: string, execId?: string): Promise<void>;
  /** Every process that was not deleted. */
  list(): readonly GuestProcess[];
  /** Gives a mounted volume to a group, before a container has it. */
  giveToGroup(mountPoint: string, group: FsGroup): Promise<void>;
  /** What the file system that is mounted there has, looked at now. */
  fileSystem(mountPoint: string): Promise<FileSystemFigures>;
  /** Asks the guest's agent for a sign of life, within the agent's time limit. */
  responds(): Promise<boolean>;
  /** Process ids, in the guest's numbering, of everything in the container's cgroup. */
  pids(containerId: string): Promise<readonly number[]>;
  /** The cgroup's own figures, read now. */
  stats(containerId: string): Promise<ContainerStats>;
  /** Freezes the cgroup. */
  pause(containerId: string): Promise<void>;
  resume(containerId: string): Promise<void>;
  /** New limits: `linux.resources` of the OCI runtime specification, for `crun update`. */
  update(containerId: string, resources: OciResources): Promise<void>;
}

/** As statfs(2) has them. */
export interface FileSystemFigures {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly blocksFree: number;
  /** Without those that are kept for root. */
  readonly blocksAvailable: number;
  readonly inodes: number;
  readonly inodesFree: number;
}

/** Kubernetes' fsGroup: the group that a volume's files belong to, and whether they are looked at each time. */
export interface FsGroup {
  readonly gid: number;
  /** False: not when the volume's root belongs to it already (`OnRootMismatch`). */
  readonly always: boolean;
}

/** One process: a container's init, or an exec. */
export interface GuestProcess {
  readonly containerId: string;
  /** Undefined: the container's init process. */
  readonly execId: string | undefined;
  /** In the guest's numbering; 0 before it is known (an exec before its start). */
  readonly pid: number;
  readonly state: 'created' | 'running' | 'paused' | 'stopped';
  /** It was seen to be started: it runs, or did. One that ended before that never does. */
  readonly ran: boolean;
  readonly terminal: boolean;
  /** Set once it has ended; the same object with which `exited` resolves. */
  readonly exit: ProcessExit | undefined;
  /**
   * Resolves when the process has ended, or when its VM has (then with code 255 and `vmGone`). Never rejects. Pending
   * while the daemon does not know; a daemon that ends leaves it pending.
   */
  readonly exited: Promise<ProcessExit>;

  /** Runs it; also when a daemon before this one was killed in the middle of that. @returns its pid */
  start(): Promise<number>;
  /**
   * Sends a signal. A process that has ended already is no error.
   * @param options.all every process of the container, by its cgroup; only for init
   */
  kill(signal: number, options?: { readonly all?: boolean }): Promise<void>;
  /** Only with a terminal. Before `start`: what the terminal begins with. */
  resize(size: { readonly columns: number; readonly rows: number }): Promise<void>;
  /**
   * Removes the process's trace from guest and host; for init the container with all its execs, which must have ended.
   * Its ports are gone from QEMU when this resolves. Idempotent.
   * @throws ShimError FAILED_PRECONDITION / CONTAINER_STATE while it runs
   */
  delete(): Promise<ProcessExit>;

  /**
   * Its standard streams; undefined for those that the spec did not ask for (stderr: never with a terminal). The same
   * object at each call. Bytes wait in the guest while nobody reads (back-pressure); nothing is lost while no daemon
   * runs. stdout and stderr end (`end`) when the process has ended and everything it wrote was read. Destroying one
   * gives up reading it.
   */
  readonly stdout: ProcessOutput | undefined;
  readonly stderr: ProcessOutput | undefined;
  /**
   * `end()` gives the process its end of file, after all that was written before. Destroying it does not, nor does the
   * end of the daemon. With a terminal, `end()` gives none: a terminal's end of file is a character (Ctrl-D).
   */
  readonly stdin: Writable | undefined;
}

export interface ProcessOutput extends Readable {
  /**
   * Destroys the stream, and gives what it had taken out of the guest and nobody has read: the rest stays for the next
   * daemon.
   */
  leave(): LeftBytes;
}

export interface ProcessExit {
  /** As a shell shows it: 128 + N after signal N. */
  readonly code: number;
  /** Milliseconds since 1970, the guest's clock. */
  readonly atMs: number;
  /** The kernel's out-of-memory killer struck in the container's cgroup before this end. */
  readonly oomKilled: boolean;
  /** The VM ended, and with it the process; `code` is 255. */
  readonly vmGone: boolean;
}

/** Which standard streams a process has. One that is left out is /dev/null in the guest. */
export interface StreamSpec {
  /** One stream for all, with a size: no stderr then. */
  readonly terminal: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

export interface ContainerSpec {
  /** As containerd names it; at most 128 characters of [A-Za-z0-9_.-]. Unique in the sandbox. */
  readonly id: string;
  /** Of its config.json. `root.path`, mounts and namespaces are translated (translate.ts); the rest is crun's. */
  readonly plan: ContainerPlan;
  /** Where in the guest the root file system is mounted; absolute. */
  readonly rootfs: string;
  /** For each of the plan's `volumes`, by `destination`: where in the guest that volume is mounted. */
  readonly volumes: ReadonlyMap<string, string>;
  /** For each of the plan's `devices`, by `path`: the disk behind it, found by PCI address and checked by serial. */
  readonly devices: ReadonlyMap<string, AttachedDisk>;
  readonly streams: StreamSpec;
}

/** A volume that is attached: `Volume.pciAddress` (0000:01:05.0) and its serial. */
export interface AttachedDisk {
  readonly pciAddress: string;
  readonly serial: string;
}

export interface ExecSpec {
  /** Unique in the container; as ContainerSpec.id. */
  readonly id: string;
  /** `process` of the OCI runtime specification: args, env, cwd, user, capabilities. */
  readonly process: OciProcess;
  readonly streams: StreamSpec;
}

/** What `planContainer` reads out of a config.json. */
export interface ContainerPlan {
  /** What this is the plan of. */
  readonly config: OciConfig;
  /** All of its mounts, in its order: later ones may lie inside earlier ones. */
  readonly mounts: readonly PlannedMount[];
  /**
   * Mounts of block devices or disk images: to be attached, mounted in the guest, and named in ContainerSpec.volumes.
   */
  readonly volumes: readonly VolumeMount[];
  /** Host block devices of `linux.devices`: to be attached without a mount, and named in ContainerSpec.devices. */
  readonly devices: readonly PlannedDevice[];
  /** Small host files that `create` reads and copies into the guest, at most `FILE_BYTES_MAX` each. */
  readonly files: readonly PlannedFile[];
}

/** What a mount is to the guest. */
export interface PlannedMount {
  readonly kind: 'guest' | 'volume' | 'shared-memory' | 'file';
  readonly mount: OciMount;
}

export interface VolumeMount {
  /** Where config.json wants it in the container. */
  readonly destination: string;
  /** Path on the host: a raw image, or a block device. */
  readonly source: string;
  readonly fsType: 'ext4' | 'xfs';
  readonly readOnly: boolean;
  /** Mount options without `ro`, `rw`, `loop` and bind's own. */
  readonly options: readonly string[];
}

export interface PlannedDevice {
  /** In the container. */
  readonly path: string;
  /** The rules of the container's control group (`linux.resources.devices`) let nobody write to it. */
  readonly readOnly: boolean;
  readonly major: number;
  readonly minor: number;
}

export interface PlannedFile {
  readonly destination: string;
  readonly source: string;
}

/** cgroup v2 files, parsed. Absent: the guest's kernel does not have the file. */
export interface ContainerStats {
  /** cpu.stat: usage_usec, user_usec, system_usec, nr_periods, nr_throttled, throttled_usec. */
  readonly cpu: Readonly<Record<string, number>>;
  /** memory.stat: anon, file, and so on, in bytes. */
  readonly memory: Readonly<Record<string, number>>;
  readonly memoryCurrentBytes: number | undefined;
  /** Undefined: no limit. */
  readonly memoryMaxBytes: number | undefined;
  /** memory.events: low, high, max, oom, oom_kill. */
  readonly memoryEvents: Readonly<Record<string, number>>;
  readonly pidsCurrent: number | undefined;
  readonly pidsMax: number | undefined;
  /** io.stat, one entry for each device `major:minor`: rbytes, wbytes, rios, wios, dbytes, dios. */
  readonly io: Readonly<Record<string, Readonly<Record<string, number>>>>;
}
