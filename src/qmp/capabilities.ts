import { readlink, realpath, stat } from 'node:fs/promises';
import { monotonicMs } from '../base/deadline.ts';
import { messageOf, ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { readCache, writeCache } from './capability-cache.ts';
import type { QmpClient } from './client.ts';
import { checkContract, isAtLeast } from './contract-check.ts';
import type { QemuVersion, QmpGreeting, SchemaInfo } from './protocol.ts';
import type { QemuCapabilities, Trial, Trials, TriedCommand } from './qemu-capabilities.ts';

/** Debian 12's. Older ones lack parts of what the design rests on. */
const OLDEST = { major: 7, minor: 2 } as const;
const MEMORY_MAX = 16;
/** A trial that could not be made is made again when somebody asks after that time. */
const UNTRIED_PAUSE_MS = 60_000;

/** Tries commands on the binary with this key (`binaryKey`), in a VM of its own; throws when that cannot be done. */
export type TryOut = (key: string, commands: readonly TriedCommand[]) => Promise<Trials>;

export interface ProbeOptions {
  /** Path of the binary that serves the client: the cache's key, together with its size, time, inode and version. */
  readonly binary: string;
  /** The commands that are about to be used, of those about which the schema says too little. */
  readonly needed: readonly TriedCommand[];
  readonly tryOut: TryOut;
  /** Where results outlive the daemon. None: memory only. */
  readonly cacheDir?: string;
  readonly log: Logger;
  /** The memory of earlier results; default: one for the process. */
  readonly memory?: ProbeMemory;
}

interface Known {
  readonly capabilities: QemuCapabilities;
  /** For how long what could not be tried is left at that. */
  readonly untriedUntilMs: number;
}

/** What was found, by the key of the binary. */
export class ProbeMemory {
  readonly #known = new Map<string, Known>();
  /** Trials that are being made, by binary and commands: many VMs are found at once when a daemon starts. */
  readonly #trials = new Map<string, Promise<Trials>>();

  get(key: string): QemuCapabilities | undefined {
    const known = this.#known.get(key);
    if (known === undefined || monotonicMs() < known.untriedUntilMs) return known?.capabilities;
    return { ...known.capabilities, trials: certain(known.capabilities.trials) };
  }

  /** Adds what was found just now to what is known; gives both. */
  add(key: string, described: QemuCapabilities, trials: Trials): QemuCapabilities {
    const before = this.#known.get(key);
    const capabilities = { ...described, trials: { ...described.trials, ...this.get(key)?.trials, ...trials } };
    const isNews = Object.keys(trials).length > 0 || before === undefined;
    const untriedUntilMs = isNews ? monotonicMs() + UNTRIED_PAUSE_MS : before.untriedUntilMs;
    const [oldest] = this.#known.keys();
    if (before === undefined && this.#known.size >= MEMORY_MAX && oldest !== undefined) this.#known.delete(oldest);
    this.#known.set(key, { capabilities, untriedUntilMs });
    return capabilities;
  }

  /** How many binaries are known. */
  get size(): number {
    return this.#known.size;
  }

  /** Those who ask for the same at the same time share one trial. */
  trials(what: string, make: () => Promise<Trials>): Promise<Trials> {
    const trials = this.#trials.get(what) ?? make().finally(() => this.#trials.delete(what));
    this.#trials.set(what, trials);
    return trials;
  }
}

const processMemory = new ProbeMemory();

/**
 * Finds out what the client's QEMU can do. The schema (0.2 MB, 90 ms) is asked and a command is tried (half a second)
 * once for each binary; then memory or the cache directory answers. A cache that cannot be read or written costs a
 * warning, never the result.
 * @returns with trials of all commands that are needed
 * @throws ShimError UNIMPLEMENTED / QEMU_TOO_OLD below 7.2 (metadata.version, metadata.oldest)
 * @throws what `QmpClient.run` throws
 */
export async function probeCapabilities(
  client: Pick<QmpClient, 'greeting' | 'run'>,
  options: ProbeOptions,
): Promise<QemuCapabilities> {
  const { log, cacheDir, needed, memory = processMemory } = options;
  const { version, package: packageName } = client.greeting;
  const versionText = versionOf(client.greeting);
  checkVersion(version, versionText);
  const key = await keyOf(options.binary, client.greeting, log);
  const file = key === undefined || cacheDir === undefined ? undefined : { cacheDir, key };
  const known =
    (key === undefined ? undefined : memory.get(key)) ?? (file === undefined ? undefined : await readCache(file, log));
  const described = known ?? describe(await client.run('query-qmp-schema'), version, versionText, packageName);
  if (known === undefined && described.contractFindings.length > 0) {
    log.warn({ version: versionText, findings: described.contractFindings }, 'this qemu lacks parts that qshim uses');
  }
  // Another client's trial may have ended while this one was asked for its schema.
  const done = { ...described.trials, ...(key === undefined ? {} : memory.get(key)?.trials) };
  const untried = needed.filter((command) => done[command] === undefined);
  const trials = untried.length === 0 ? {} : await tryThem(untried, described.commands, key, options);
  const found =
    key === undefined ? { ...described, trials: { ...done, ...trials } } : memory.add(key, described, trials);
  const isNews = known === undefined || Object.keys(certain(trials)).length > 0;
  if (file !== undefined && isNews) await writeCache(file, { ...found, trials: certain(found.trials) }, log);
  return found;
}

/** Never rejects: a trial that cannot be made is not a yes, and no reason to do without the VM. */
async function tryThem(
  needed: readonly TriedCommand[],
  commands: ReadonlySet<string>,
  key: string | undefined,
  { tryOut, log, memory = processMemory }: ProbeOptions,
): Promise<Trials> {
  const all = (of: readonly TriedCommand[], trial: Trial): Trials =>
    Object.fromEntries(of.map((command) => [command, trial]));
  const there = needed.filter((command) => commands.has(command));
  const absent = needed.filter((command) => !commands.has(command));
  const untried = (detail: string): Trials => all(there, { outcome: 'untried', detail });
  const make = async (): Promise<Trials> => {
    if (there.length === 0) return {};
    if (key === undefined) return untried('the file of this QEMU is gone');
    return await memory
      .trials(JSON.stringify([key, there]), () => tryOut(key, there))
      .catch((error: unknown) => untried(messageOf(error)));
  };
  const trials = { ...all(absent, { outcome: 'refused', detail: 'its schema does not have it' }), ...(await make()) };
  for (const [command, { outcome, detail }] of Object.entries(trials)) {
    if (outcome !== 'works') log.warn({ command, outcome, detail }, 'this qemu is not sent a command');
  }
  return trials;
}

/** Those that were made. */
function certain(trials: Trials): Trials {
  return Object.fromEntries(Object.entries(trials).filter(([, { outcome }]) => outcome !== 'untried'));
}

function versionOf({ version }: QmpGreeting): string {
  return `${version.major}.${version.minor}.${version.micro}`;
}

/** /proc/PID/exe of a process whose file was replaced says so behind the path. */
const RUNNING = /^\/proc\/\d+\/exe$/;
const REPLACED = / \(deleted\)$/;

/**
 * Names a binary and its state: its path, its size, its time, its inode, and what it says it is.
 * @param binary a path; of a running process, /proc/PID/exe, also when its file was replaced meanwhile
 * @throws the system error when there is no such file
 */
export async function binaryKey(binary: string, greeting: QmpGreeting): Promise<string> {
  const path = RUNNING.test(binary) ? (await readlink(binary)).replace(REPLACED, '') : await realpath(binary);
  const { size, mtimeMs, ino } = await stat(binary);
  return JSON.stringify([path, size, mtimeMs, ino, `${versionOf(greeting)} ${greeting.package}`]);
}

function checkVersion(version: QemuVersion, versionText: string): void {
  if (isAtLeast(version, OLDEST.major, OLDEST.minor)) return;
  const oldest = `${OLDEST.major}.${OLDEST.minor}`;
  throw new ShimError('UNIMPLEMENTED', `QEMU ${versionText} is too old: qshim needs ${oldest} or later`, {
    reason: 'QEMU_TOO_OLD',
    metadata: { version: versionText, oldest },
  });
}

/** Undefined when the file cannot be looked at: then nothing is cached. */
async function keyOf(binary: string, greeting: QmpGreeting, log: Logger): Promise<string | undefined> {
  try {
    return await binaryKey(binary, greeting);
  } catch (error) {
    log.debug({ binary, error: messageOf(error) }, 'qemu binary not found, its capabilities are not cached');
    return undefined;
  }
}

function describe(
  schema: readonly SchemaInfo[],
  version: QemuVersion,
  versionText: string,
  packageName: string,
): QemuCapabilities {
  const types = new Map(schema.map((info) => [info.name, info]));
  const namesOf = (metaType: string): Set<string> =>
    new Set(schema.filter((info) => info['meta-type'] === metaType).map((info) => info.name));
  const commands = namesOf('command');
  const nodeOptions = types.get(types.get('blockdev-add')?.['arg-type'] ?? '');
  const createOptions = memberType(types, types.get(types.get('blockdev-create')?.['arg-type'] ?? ''), 'options');
  const socketBackend = memberType(types, types.get(types.get('chardev-add')?.['arg-type'] ?? ''), 'backend');
  return {
    version,
    versionText,
    package: packageName,
    commands,
    events: namesOf('event'),
    blockDrivers: new Set(nodeOptions?.variants?.map((variant) => variant.case)),
    ioUring: memberType(types, variant(types, nodeOptions, 'file'), 'aio')?.values?.includes('io_uring') ?? false,
    iothreadVqMapping: isAtLeast(version, 9, 0),
    detachedLuksHeader:
      memberType(types, variant(types, nodeOptions, 'luks'), 'header') !== undefined &&
      memberType(types, variant(types, createOptions, 'luks'), 'header') !== undefined,
    runWithUser: isAtLeast(version, 9, 1),
    chardevReconnectMs:
      memberType(types, memberType(types, variant(types, socketBackend, 'socket'), 'data'), 'reconnect-ms') !==
      undefined,
    trials: {},
    contractFindings: checkContract(schema, version),
  };
}

type Types = ReadonlyMap<string, SchemaInfo>;

function memberType(types: Types, object: SchemaInfo | undefined, name: string): SchemaInfo | undefined {
  return types.get(object?.members?.find((member) => member.name === name)?.type ?? '');
}

function variant(types: Types, object: SchemaInfo | undefined, name: string): SchemaInfo | undefined {
  return types.get(object?.variants?.find((candidate) => candidate.case === name)?.type ?? '');
}
