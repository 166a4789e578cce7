import { isShimError, shimError, type ShimError } from '../../base/errors.ts';
import type { DecidingReason } from '../../base/reasons.ts';
import { GuestAgentError, type GuestAgent } from '../agent.ts';
import { guestScript } from '../programs.ts';
import { parseFacts, type Facts } from '../run-script.ts';
import { PortsAbsent } from './absent-ports.ts';
import { cgroupOf, type DeviceNumbers } from './translate.ts';
import type { AttachedDisk, ContainerStats, FileSystemFigures, FsGroup } from './types.ts';

const SCRIPTS = {
  install: guestScript('containers/install'),
  findDevices: guestScript('containers/find-devices'),
  create: guestScript('containers/create'),
  createTerminal: guestScript('containers/create-terminal'),
  start: guestScript('containers/start'),
  startExec: guestScript('containers/start-exec'),
  kill: guestScript('containers/kill'),
  resize: guestScript('containers/resize'),
  delete: guestScript('containers/delete'),
  freeze: guestScript('containers/freeze'),
  update: guestScript('containers/update'),
  pids: guestScript('containers/pids'),
  stats: guestScript('containers/stats'),
  look: guestScript('containers/look'),
  own: guestScript('containers/own'),
  fileSystem: guestScript('containers/file-system'),
} as const;
/** What `install` puts into the guest. */
const PROGRAM = guestScript('containers/container');

const SIGKILL = 9;
const OUTPUT_BYTES_MAX = 1024 * 1024;
const WORDS_CHARS_MAX = 1000;
/** What Linux has: an exit status is one byte, a pid at most PID_MAX_LIMIT. */
const EXIT_CODE_MAX = 255;
const PID_MAX = 4_194_304;
/** Thirty years. */
const UPTIME_SECONDS_MAX = 1e9;

/** Ports of a process by what they carry; 0: none. */
export interface ProcessPorts {
  readonly stdin: number;
  readonly stdout: number;
  readonly stderr: number;
  readonly terminal: number;
}

/** What the guest says of one process. */
export interface SeenProcess {
  readonly started: boolean;
  readonly alive: boolean;
  readonly pid: number;
  readonly record: ExitRecord | undefined;
}

/** An exit as the guest has it on record. */
export interface ExitRecord {
  readonly code: number;
  /** Seconds after the guest's boot. */
  readonly uptime: number;
  readonly oomKilled: boolean;
}

const SENTENCES = {
  CONTAINER_REFUSED: "the guest's container runtime refused",
  CONTAINER_FAILED: 'the guest could not do it',
  GUEST_TOOL_MISSING: 'the guest lacks a program that containers need',
  GUEST_OUT_OF_PROCESSES: 'the guest could not start one more process',
  GUEST_DISK_NOT_FOUND: 'the guest has no such disk',
  GUEST_DISK_MISMATCH: 'the guest has another disk there',
} as const satisfies { readonly [R in DecidingReason]?: string };

/** What a script may give as its reason. */
type RuntimeReason = keyof typeof SENTENCES;

function isRuntimeReason(text: string): text is RuntimeReason {
  return Object.hasOwn(SENTENCES, text);
}

/**
 * crun and conmon in the guest, one guest-exec for each step. Nothing is remembered here. Whoever is root in the guest
 * can make it say anything: numbers are held to what they can be before they become part of a record. Every method
 * throws ShimError: FAILED_PRECONDITION / CONTAINER_REFUSED with crun's own words, CONTAINER_FAILED; UNIMPLEMENTED /
 * GUEST_TOOL_MISSING; RESOURCE_EXHAUSTED / GUEST_OUT_OF_PROCESSES; and what GuestAgent.exec throws.
 */
export class GuestRuntime {
  readonly #agent: Pick<GuestAgent, 'exec' | 'writeFile'>;
  readonly #timeoutMs: number;

  constructor(agent: Pick<GuestAgent, 'exec' | 'writeFile'>, timeoutMs: number) {
    this.#agent = agent;
    this.#timeoutMs = timeoutMs;
  }

  /** Puts what containers need into the guest; harmless when it is there. @throws PortsAbsent */
  async install(eventsPort: number): Promise<void> {
    await this.#run(SCRIPTS.install, [String(eventsPort)], 'ready', Buffer.from(PROGRAM));
  }

  /** Numbers of attached disks, which are looked up by PCI address and held against their serials. */
  async findDevices(disks: readonly AttachedDisk[]): Promise<readonly DeviceNumbers[]> {
    const args = disks.flatMap(({ pciAddress, serial }) => [pciAddress, serial]);
    const facts = await this.#run(SCRIPTS.findDevices, args, 'device');
    return (facts.get('device') ?? []).map((line) => {
      const [major = '', minor = ''] = line.split(':');
      return { major: Number(major), minor: Number(minor) };
    });
  }

  /** @returns the pid of init. @throws PortsAbsent */
  async create(id: string, token: string, ports: ProcessPorts, bundle: Uint8Array): Promise<number> {
    const facts =
      ports.terminal === 0
        ? await this.#run(
            SCRIPTS.create,
            [id, token, ...[ports.stdin, ports.stdout, ports.stderr].map(String)],
            'pid',
            bundle,
          )
        : await this.#run(SCRIPTS.createTerminal, [id, token, String(ports.terminal)], 'pid', bundle);
    return pidOf(facts);
  }

  async start(id: string): Promise<void> {
    await this.#run(SCRIPTS.start, [id], 'started');
  }

  /** @param oomScoreAdj undefined: as the container's init. @returns its pid. @throws PortsAbsent */
  async startExec(
    key: string,
    token: string,
    ports: ProcessPorts,
    process: string,
    oomScoreAdj: number | undefined,
  ): Promise<number> {
    const { stdin, stdout, stderr, terminal } = ports;
    const args = [key, token, ...[stdin, stdout, stderr, terminal, oomScoreAdj ?? ''].map(String)];
    return pidOf(await this.#run(SCRIPTS.startExec, args, 'pid', Buffer.from(process)));
  }

  /** The end of a container needs no process in the guest: where none can be had, the agent itself writes it. */
  async kill(key: string, signal: number, all: boolean): Promise<void> {
    try {
      await this.#run(SCRIPTS.kill, [key, String(signal), all ? '1' : '0'], undefined);
    } catch (error) {
      const isContainer = !key.includes('/');
      const killable =
        signal === SIGKILL && isContainer && isShimError(error) && error.reason === 'GUEST_OUT_OF_PROCESSES';
      if (!killable) throw error;
      await this.#agent.writeFile(`/sys/fs/cgroup${cgroupOf(key)}/cgroup.kill`, '1');
    }
  }

  async resize(key: string, columns: number, rows: number): Promise<void> {
    await this.#run(SCRIPTS.resize, [key, String(columns), String(rows)], undefined);
  }

  async delete(key: string, force: boolean): Promise<void> {
    await this.#run(SCRIPTS.delete, [key, force ? '1' : '0'], 'deleted');
  }

  async giveToGroup(mountPoint: string, { gid, always }: FsGroup): Promise<void> {
    await this.#run(SCRIPTS.own, [mountPoint, String(gid), always ? '1' : '0'], 'owned');
  }

  async fileSystem(mountPoint: string): Promise<FileSystemFigures> {
    const [figures = ''] = (await this.#run(SCRIPTS.fileSystem, [mountPoint], 'figures')).get('figures') ?? [];
    const [blockBytes = 0, blocks = 0, blocksFree = 0, blocksAvailable = 0, inodes = 0, inodesFree = 0] = figures
      .split(' ')
      .map((figure) => Number(figure));
    return { blockBytes, blocks, blocksFree, blocksAvailable, inodes, inodesFree };
  }

  async freeze(id: string, how: 'pause' | 'resume'): Promise<void> {
    await this.#run(SCRIPTS.freeze, [id, how], 'done');
  }

  async update(id: string, resources: unknown): Promise<void> {
    await this.#run(SCRIPTS.update, [id], 'done', Buffer.from(JSON.stringify(resources)));
  }

  async pids(id: string): Promise<readonly number[]> {
    return ((await this.#run(SCRIPTS.pids, [id], undefined)).get('pid') ?? []).map(Number);
  }

  async stats(id: string): Promise<ContainerStats> {
    return toStats(await this.#run(SCRIPTS.stats, [id], 'cpu.stat'));
  }

  /** Every process that the guest knows, by key, and the guest's uptime in seconds at that moment. */
  async look(): Promise<{ readonly uptime: number; readonly processes: ReadonlyMap<string, SeenProcess> }> {
    const facts = await this.#run(SCRIPTS.look, [], 'uptime');
    const processes = (facts.get('process') ?? []).map((line): [string, SeenProcess] => {
      const [key = '', started, alive, pid, ...record] = line.split(' ');
      const pidSeen = Math.trunc(bounded(pid, PID_MAX) ?? 0);
      const seen = { started: started === '1', alive: alive === '1', pid: pidSeen, record: toRecord(record) };
      return [key, seen];
    });
    const uptime = bounded(facts.get('uptime')?.[0], UPTIME_SECONDS_MAX);
    if (uptime === undefined) throw failure('CONTAINER_FAILED', 'it has said no uptime that could be one');
    return { uptime, processes: new Map(processes) };
  }

  /** @param wanted a fact without which the script has failed */
  async #run(text: string, args: readonly string[], wanted: string | undefined, input?: Uint8Array): Promise<Facts> {
    const result = await this.#agent
      .exec({
        path: '/bin/sh',
        args: ['-c', text, 'sh', ...args],
        ...(input && { input }),
        timeoutMs: this.#timeoutMs,
        outputBytesMax: OUTPUT_BYTES_MAX,
      })
      .catch((error: unknown) => {
        if (!(error instanceof GuestAgentError)) throw error;
        if (error.outOfProcesses) throw failure('GUEST_OUT_OF_PROCESSES', error.message, error);
        throw failure('GUEST_TOOL_MISSING', '/bin/sh cannot be run', error);
      });
    const facts = parseFacts(result.stdout.toString('utf8'));
    const absent = facts.get('absent');
    if (absent !== undefined) throw new PortsAbsent(absent.map(Number));
    const [reason] = facts.get('error') ?? [];
    if (reason !== undefined || (wanted !== undefined && !facts.has(wanted))) {
      const known = reason !== undefined && isRuntimeReason(reason) ? reason : 'CONTAINER_FAILED';
      throw failure(known, result.stderr.toString('utf8'));
    }
    return facts;
  }
}

/** Asks the agent for a sign of life, within its time limit. */
export async function responds(agent: Pick<GuestAgent, 'ping'>): Promise<boolean> {
  try {
    await agent.ping();
    return true;
  } catch (error) {
    return error instanceof GuestAgentError;
  }
}

/** An exit record: `CODE UPTIME OOM`. Undefined for what none can be. */
export function toRecord(words: readonly string[]): ExitRecord | undefined {
  const code = bounded(words[0], EXIT_CODE_MAX);
  const uptime = bounded(words[1], UPTIME_SECONDS_MAX);
  const oom = words[2];
  if (code === undefined || uptime === undefined || !Number.isInteger(code)) return undefined;
  return { code, uptime, oomKilled: oom !== undefined && oom !== '0' && oom !== '' };
}

function failure(reason: RuntimeReason, words: string, cause?: unknown): ShimError {
  const said = words.replace(/\s+/g, ' ').trim().slice(0, WORDS_CHARS_MAX);
  return shimError(reason, `${SENTENCES[reason]}${said === '' ? '' : `: ${said}`}`, { cause });
}

/** @throws ShimError FAILED_PRECONDITION / CONTAINER_FAILED for what cannot be a pid */
function pidOf(facts: Facts): number {
  const pid = bounded(facts.get('pid')?.[0], PID_MAX);
  if (pid !== undefined && pid > 0 && Number.isInteger(pid)) return pid;
  throw failure('CONTAINER_FAILED', 'it has said no pid that could be one');
}

/** A number in plain decimals, from 0 to `max`. */
function bounded(word: string | undefined, max: number): number | undefined {
  if (word === undefined || !/^\d{1,20}(\.\d{1,20})?$/.test(word)) return undefined;
  const value = Number(word);
  return value <= max ? value : undefined;
}

/** `name value` lines, as cpu.stat, memory.stat and memory.events have them. */
function flat(facts: Facts, file: string): Record<string, number> {
  const pairs = (facts.get(file) ?? []).map((line) => line.split(' '));
  return Object.fromEntries(pairs.map(([name = '', value]) => [name, Number(value)]));
}

/** One number; `max` means that there is no limit. */
function single(facts: Facts, file: string): number | undefined {
  const value = facts.get(file)?.[0];
  return value === undefined || value === 'max' ? undefined : Number(value);
}

function toStats(facts: Facts): ContainerStats {
  // io.stat: "254:0 rbytes=1 wbytes=2 ..."; its lines hold "=" themselves, and are split at the first one only.
  const io = (facts.get('io.stat') ?? []).map((line) => {
    const [device = '', ...pairs] = line.split(' ');
    return [device, Object.fromEntries(pairs.map((pair) => [pair.split('=')[0], Number(pair.split('=')[1])]))] as const;
  });
  return {
    cpu: flat(facts, 'cpu.stat'),
    memory: flat(facts, 'memory.stat'),
    memoryCurrentBytes: single(facts, 'memory.current'),
    memoryMaxBytes: single(facts, 'memory.max'),
    memoryEvents: flat(facts, 'memory.events'),
    pidsCurrent: single(facts, 'pids.current'),
    pidsMax: single(facts, 'pids.max'),
    io: Object.fromEntries(io),
  };
}
