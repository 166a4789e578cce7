import { chmod, chown, stat } from 'node:fs/promises';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { SandboxFiles } from '../qemu/files.ts';
import { QemuProcess } from '../qemu/process.ts';
import { tiedCommand } from '../qemu/tied.ts';
import { cgroupFiles, groupName, isInGroup, type CellLimits, type GroupFiles } from './cgroup.ts';
import { UNCONFINED, type CellFacts, type MissingPart } from './facts.ts';
import { removeGroup } from './groups.ts';
import { lookAtWalls, type HostWalls } from './host.ts';
import { everybodyReads, preloadOf } from './layout.ts';
import { startInCell } from './start.ts';
import { Uids, parseUidRange, uidsOfProcesses } from './uids.ts';

/**
 * Where QEMUs run, each in a cell of its own, so that one that a guest has broken out into reaches nothing:
 *
 *     cells.ts ─ take ─▶ Cell ─ start ─▶ command.ts: bwrap, setpriv, QEMU ─▶ start.ts: its process
 *       │  host.ts: what this host has        └─ seal: QEMU's directory is the daemon's again
 *       └─ uids.ts, groups.ts: what each cell has for itself      layout.ts: what QEMU needs to see
 */

/** What a QEMU is started with. */
export interface CellLaunch {
  readonly args: readonly string[];
  readonly files: SandboxFiles;
  /** Files of the host that QEMU reads by their paths: kernel and ramdisk. */
  readonly reads: readonly string[];
  /** An open file that it gets as MEMORY_DESCRIPTOR (qemu/argv.ts): a template's memory. */
  readonly memory?: number;
  readonly limits: CellLimits;
  /** It ends with this process. */
  readonly tied?: true;
  /** Without the configured allocator. */
  readonly systemAllocator?: true;
}

const KVM_DEVICE = '/dev/kvm';
const DEVICES = ['/dev/null', '/dev/urandom'] as const;
const OTHERS_READ_WRITE = 0o006;
/** QEMU finds FIFOs of ports in it by their names, and can make none. */
const SEALED_MODE = 0o711;

/** What cells need of the configuration. */
export type CellConfig = Pick<
  Config,
  'confine' | 'confine_uids' | 'confine_memory_overhead_mib' | 'confine_io_max' | 'qemu_binary' | 'qemu_allocator'
>;

/** The daemon's cells: what each gets, and what this host has for them. */
export class Cells {
  readonly #config: CellConfig;
  readonly #log: Logger;
  readonly #uids: Uids;
  #walls: Promise<HostWalls> | undefined;

  private constructor(config: CellConfig, log: Logger, uids: Uids) {
    this.#config = config;
    this.#log = log;
    this.#uids = uids;
  }

  /** Looks at what is in use on this host. In the background it begins to try what the host can do. */
  static async open(config: CellConfig, log: Logger): Promise<Cells> {
    const range = parseUidRange(config.confine_uids);
    const uids = new Uids(range, config.confine === 'off' ? [] : await uidsOfProcesses(range));
    const cells = new Cells(config, log, uids);
    // One that fails is made again by whoever takes a cell.
    if (config.confine !== 'off') cells.#look().catch(() => undefined);
    return cells;
  }

  /** What this host has; tried until it was seen. @throws ShimError UNAVAILABLE / CONFINEMENT_NOT_TRIED */
  #look(): Promise<HostWalls> {
    this.#walls ??= this.#try();
    return this.#walls;
  }

  async #try(): Promise<HostWalls> {
    try {
      const walls = await lookAtWalls({
        qemuBinary: this.#config.qemu_binary,
        allocator: this.#config.qemu_allocator,
        uid: parseUidRange(this.#config.confine_uids).first,
      });
      const { missing, groups } = walls;
      const controlGroups = groups?.by;
      if (missing.length === 0) this.#log.info({ controlGroups }, 'qemu is confined by every wall');
      else this.#log.warn({ missing, controlGroups }, 'qemu is confined with walls missing');
      return walls;
    } catch (error) {
      // Nothing was seen: to go on would be to start QEMU without walls that this host has.
      this.#walls = undefined;
      const problem = messageOf(error);
      this.#log.warn({ problem }, 'what qemu can be confined by could not be tried');
      throw new ShimError('UNAVAILABLE', `what QEMU can be confined by could not be tried: ${problem}`, {
        reason: 'CONFINEMENT_NOT_TRIED',
        cause: error,
      });
    }
  }

  /**
   * A cell for a QEMU that is about to be started; whoever has it disposes of it when that has ended.
   * @throws ShimError FAILED_PRECONDITION / CONFINEMENT_MISSING with `confine = full` when a wall is missing;
   *   RESOURCE_EXHAUSTED / CONFINE_UIDS_IN_USE; UNAVAILABLE / CONFINEMENT_NOT_TRIED
   */
  async take(): Promise<Cell> {
    const { confine } = this.#config;
    if (confine === 'off') return new Cell(this.#parts(undefined), UNCONFINED);
    const walls = await this.#look();
    const { missing } = walls;
    if (confine === 'full' && missing.length > 0) throw missingError(missing);
    const facts: CellFacts = {
      level: missing.length === 0 ? 'full' : 'degraded',
      uid: walls.users ? this.#uids.take() : 0,
      missing,
      cgroup: '',
    };
    return new Cell(this.#parts(walls), facts);
  }

  /**
   * The cell of a QEMU that an earlier daemon started. One that was killed before it had put QEMU into its control
   * group has left it outside: that is looked at.
   * @param pid of QEMU; undefined: it has ended
   */
  async resume(facts: CellFacts, pid: number | undefined): Promise<Cell> {
    if (facts.uid !== 0) this.#uids.hold(facts.uid);
    const outside = pid !== undefined && facts.cgroup !== '' && !(await isIn(facts.cgroup, pid));
    return new Cell(this.#parts(undefined), outside ? withoutGroup(facts) : facts);
  }

  #parts(walls: HostWalls | undefined): CellParts {
    return { walls, uids: this.#uids, log: this.#log, config: this.#config };
  }
}

interface CellParts {
  readonly walls: HostWalls | undefined;
  readonly uids: Uids;
  readonly log: Logger;
  readonly config: CellConfig;
}

/** The cell of one QEMU. It is empty, then QEMU runs in it, then it is disposed of. */
export class Cell implements Disposable {
  readonly #parts: CellParts;
  #facts: CellFacts;
  #limits: GroupFiles = [];

  constructor(parts: CellParts, facts: CellFacts) {
    this.#parts = parts;
    this.#facts = facts;
  }

  get facts(): CellFacts {
    return this.#facts;
  }

  /**
   * Makes the control group, as far as that can be without a process and this host has them. Before the journal is
   * written: a later daemon removes it.
   * @throws ShimError FAILED_PRECONDITION / CONFINEMENT_MISSING when it cannot be made
   */
  async prepare({ directory }: SandboxFiles, limits: CellLimits): Promise<void> {
    const { walls, config } = this.#parts;
    if (walls?.groups === undefined || this.#facts.cgroup !== '') return;
    const options = { overheadMib: config.confine_memory_overhead_mib, io: config.confine_io_max };
    try {
      const cgroup = walls.groups.directoryOf(groupName(directory));
      this.#limits = cgroupFiles(limits, options);
      await walls.groups.make(cgroup, this.#limits);
      this.#facts = { ...this.#facts, cgroup };
    } catch (error) {
      throw missingError([{ part: 'cgroup', why: messageOf(error) }], error);
    }
  }

  /**
   * Starts QEMU. Its directory becomes its own, until `seal`.
   * @throws ShimError FAILED_PRECONDITION / QEMU_NOT_STARTED; FAILED_PRECONDITION / CONFINEMENT_MISSING when it was not
   *   seen in its control group; the system error when a file cannot be looked at
   */
  async start(launch: CellLaunch): Promise<QemuProcess> {
    const { walls, config } = this.#parts;
    const { args, files } = launch;
    const allocator = launch.systemAllocator === true ? 'system' : config.qemu_allocator;
    if (walls?.layout === undefined) {
      const plain = { file: config.qemu_binary, prefix: [] };
      const { file, prefix } = launch.tied === true ? await tiedCommand(config.qemu_binary) : plain;
      return await QemuProcess.spawn(
        file,
        [...prefix, ...args],
        files.directory,
        files.qemuLog,
        allocator,
        launch.memory,
      );
    }
    await this.prepare(files, launch.limits);
    const uid = this.#ownUid;
    if (uid !== undefined) {
      await chmod(files.directory, 0o700);
      await chown(files.directory, uid, uid);
    }
    const reads = await Promise.all(launch.reads.map(async (path) => ({ path, shared: await everybodyReads(path) })));
    return await startInCell({
      layout: walls.layout,
      uid,
      groups: launch.limits.kvm ? await groupsFor(KVM_DEVICE) : [],
      directory: files.directory,
      logFile: files.qemuLog,
      readable: reads.flatMap(({ path, shared }) => (shared || uid === undefined ? [path] : [])),
      copied: reads.flatMap(({ path, shared }) => (shared || uid === undefined ? [] : [path])),
      memory: launch.memory,
      devices: launch.limits.kvm ? [...DEVICES, KVM_DEVICE] : DEVICES,
      preload: await preloadOf(allocator),
      landlock: walls.landlock,
      tied: launch.tied === true,
      enterGroup: this.#facts.cgroup === '' ? undefined : (pid) => this.#enterGroup(walls, pid),
      args,
    });
  }

  async #enterGroup({ groups }: HostWalls, pid: number): Promise<void> {
    try {
      await groups?.enter(this.#facts.cgroup, this.#limits, pid);
    } catch (error) {
      throw missingError([{ part: 'cgroup', why: messageOf(error) }], error);
    }
  }

  /**
   * Takes the directory back, once QEMU has made its sockets in it and before its guest runs: from here it can neither
   * replace nor add a file, so that the daemon can go by the names in it.
   * @throws the system error
   */
  async seal({ directory }: SandboxFiles): Promise<void> {
    if (this.#ownUid === undefined) return;
    await chown(directory, process.geteuid?.() ?? 0, process.getegid?.() ?? 0);
    await chmod(directory, SEALED_MODE);
  }

  get #ownUid(): number | undefined {
    return this.#facts.uid === 0 ? undefined : this.#facts.uid;
  }

  /** QEMU has ended: user and control group are free. */
  [Symbol.dispose](): void {
    const { uid, cgroup } = this.#facts;
    if (uid !== 0) this.#parts.uids.free(uid);
    if (cgroup === '') return;
    removeGroup(cgroup).catch((error: unknown) => {
      this.#parts.log.warn({ cgroup, problem: messageOf(error) }, 'control group not removed');
    });
  }
}

/** One that cannot be looked at is not known to have it. */
async function isIn(cgroup: string, pid: number): Promise<boolean> {
  return await isInGroup(cgroup, pid).catch(() => false);
}

function withoutGroup(facts: CellFacts): CellFacts {
  const missing = facts.missing.filter(({ part }) => part !== 'cgroup');
  return {
    ...facts,
    level: 'degraded',
    missing: [...missing, { part: 'cgroup', why: 'QEMU was not seen in its control group when it was taken over' }],
  };
}

/** The group of a device that not everybody may use. */
async function groupsFor(device: string): Promise<readonly number[]> {
  const { mode, gid } = await stat(device);
  return (mode & OTHERS_READ_WRITE) === OTHERS_READ_WRITE ? [] : [gid];
}

function missingError(missing: readonly MissingPart[], cause?: unknown): ShimError {
  const list = missing.map(({ part, why }) => `${part}: ${why}`).join('; ');
  return new ShimError('FAILED_PRECONDITION', `QEMU cannot be confined as the option confine demands: ${list}`, {
    reason: 'CONFINEMENT_MISSING',
    metadata: { missing: missing.map(({ part }) => part).join(',') },
    cause,
  });
}
