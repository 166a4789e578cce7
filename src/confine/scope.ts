import { randomBytes } from 'node:crypto';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecaError } from 'execa';
import { Deadline, sleep } from '../base/deadline.ts';
import { messageOf } from '../base/errors.ts';
import { run } from '../base/run.ts';
import { PERIOD_US, unlikeGroup, type GroupFiles, type Groups } from './cgroup.ts';

/**
 * Control groups where systemd manages the host: nobody else may change the hierarchy there (systemd's "Control Group
 * APIs and Delegation"). Each QEMU is a transient scope of its own (systemd.scope(5)), which is no part of the daemon's
 * unit, and which systemd takes away once it is empty:
 *
 *     bwrap's child waits ─▶ StartTransientUnit, by busctl(1) ─▶ look: is it in the group, has the group the limits?
 */

/** Of systemd itself. */
const BUSCTL = ['/usr/bin/busctl'] as const;
/** There is systemd (sd_booted(3)). */
const BOOTED = '/run/systemd/system';
const SLICE = 'qshim.slice';
const MANAGER = ['org.freedesktop.systemd1', '/org/freedesktop/systemd1', 'org.freedesktop.systemd1.Manager'] as const;
const LOOK_PAUSE_MS = 5;
const SAID_CHARS_MAX = 300;
const TRIAL_LIMITS: GroupFiles = [
  ['memory.max', '67108864'],
  ['pids.max', '16'],
  ['cpu.max', `${PERIOD_US} ${PERIOD_US}`],
];
/** By the words that io.max has for them (systemd.resource-control(5)). */
const IO_PROPERTIES: Readonly<Record<string, string>> = {
  rbps: 'IOReadBandwidthMax',
  wbps: 'IOWriteBandwidthMax',
  riops: 'IOReadIOPSMax',
  wiops: 'IOWriteIOPSMax',
};

/** Whose systemd it is; tests have another. */
export interface Systemd {
  readonly booted: string;
  readonly busctl: readonly [string, ...string[]];
  /** For each call, in milliseconds. */
  readonly callMs: number;
  /** For what is to be seen after a call, and for one of the same name to go, in milliseconds. */
  readonly lookMs: number;
}

export const SYSTEMD: Systemd = { booted: BOOTED, busctl: BUSCTL, callMs: 10_000, lookMs: 10_000 };

/** Whether systemd manages this host. */
export async function isSystemd({ booted }: Systemd): Promise<boolean> {
  return await stat(booted).then(
    (info) => info.isDirectory(),
    () => false,
  );
}

/** The name of the scope for a group: systemd allows few characters. The hash in it keeps two names apart. */
function unitName(name: string): string {
  return `qshim-${name.replace(/[^A-Za-z0-9:_.-]/g, '_')}.scope`;
}

/** Where the scope for a group is, when there is one. @param mount where cgroup2 is mounted */
export function scopeGroup(mount: string, name: string): string {
  return join(mount, SLICE, unitName(name));
}

/** Whether a control group is a scope of this kind: systemd removes it. */
export function isScope(directory: string): boolean {
  return /\/qshim\.slice\/qshim-[^/]+\.scope$/.test(directory);
}

/** Scopes for QEMUs. */
export class Scopes implements Groups {
  readonly by = 'as scopes of systemd';
  readonly #mount: string;
  readonly #systemd: Systemd;

  constructor(mount: string, systemd: Systemd) {
    this.#mount = mount;
    this.#systemd = systemd;
  }

  directoryOf(name: string): string {
    return scopeGroup(this.#mount, name);
  }

  /** A scope begins with its process. */
  async make(): Promise<void> {
    // Nothing can be made yet.
  }

  async enter(directory: string, files: GroupFiles, pid: number): Promise<void> {
    const unit = directory.slice(directory.lastIndexOf('/') + 1);
    await this.#start(unit, files, pid);
    // The reply says that there is a job, and nothing of what became of it.
    const deadline = Deadline.after(this.#systemd.lookMs);
    for (;;) {
      const unlike = await unlikeGroup(directory, files, pid);
      if (unlike === undefined) return;
      if (deadline.expired) throw new Error(`systemd has made ${unit}, but ${unlike}`);
      await sleep(LOOK_PAUSE_MS);
    }
  }

  /** One of the same name that has just ended may be known to systemd for a moment. */
  async #start(unit: string, files: GroupFiles, pid: number): Promise<void> {
    const deadline = Deadline.after(this.#systemd.lookMs);
    for (;;) {
      try {
        await this.#call('StartTransientUnit', ...startArguments(unit, files, pid));
        return;
      } catch (error) {
        if (!messageOf(error).includes('already') || deadline.expired) throw error;
        // One that failed stays until somebody has seen that. This does nothing to one that runs.
        await this.#call('ResetFailedUnit', 's', unit).catch(() => undefined);
        await sleep(LOOK_PAUSE_MS);
      }
    }
  }

  /** @throws Error with what busctl said, or that it cannot be run */
  async #call(method: string, ...args: readonly string[]): Promise<void> {
    const { busctl, callMs } = this.#systemd;
    const [file, ...before] = busctl;
    const options = ['--system', '--quiet', '--allow-interactive-authorization=no', 'call'];
    try {
      await run(file, [...before, ...options, ...MANAGER, method, ...args], {
        ...{ timeout: callMs, stdin: 'ignore', env: { LC_ALL: 'C' } },
      });
    } catch (error) {
      throw new Error(`systemd's ${method} failed: ${whySaid(error)}`, { cause: error });
    }
  }
}

/** @throws Error that says what kept a process from being put into a scope with limits */
export async function tryScopes(scopes: Scopes): Promise<void> {
  // It waits for the end of its input.
  const waiting = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore'] });
  const ended = once(waiting, 'exit');
  try {
    await once(waiting, 'spawn');
    const name = `trial-${process.pid}-${randomBytes(4).toString('hex')}`;
    await scopes.enter(scopes.directoryOf(name), TRIAL_LIMITS, waiting.pid ?? 0);
  } finally {
    ended.catch(() => undefined);
    // With no descriptor left there is none, which Node's types do not tell.
    (waiting as Partial<ChildProcess>).stdin?.end();
    if (waiting.pid !== undefined) await ended;
  }
}

/** What busctl says goes into a message of one sentence. */
function whySaid(error: unknown): string {
  if (error instanceof ExecaError && error.timedOut) return 'no answer came in time';
  const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
  return (said === '' ? messageOf(error) : said).replaceAll(/\s+/g, ' ').replace(/\.$/, '').slice(0, SAID_CHARS_MAX);
}

/** What StartTransientUnit gets, as busctl(1) wants arguments. */
export function startArguments(unit: string, files: GroupFiles, pid: number): readonly string[] {
  const properties = [
    ['Description', 's', 'A virtual machine of qshim'],
    ['Slice', 's', SLICE],
    ['PIDs', 'au', '1', String(pid)],
    // Also one whose QEMU the kernel has killed for want of memory is forgotten when it is empty.
    ['CollectMode', 's', 'inactive-or-failed'],
    ...limitProperties(files),
  ];
  return ['ssa(sv)a(sa(sv))', unit, 'fail', String(properties.length), ...properties.flat(), '0'];
}

/** The limits as properties of a unit, each with its name, its type and its value. */
function limitProperties(files: GroupFiles): readonly (readonly string[])[] {
  const io = new Map<string, string[]>();
  const found: (readonly string[])[] = [];
  for (const [file, text] of files) {
    const [first = '', ...rest] = text.split(' ');
    if (file === 'memory.max') found.push(['MemoryMax', 't', first]);
    else if (file === 'pids.max') found.push(['TasksMax', 't', first]);
    else if (file === 'cpu.max') found.push(...cpuProperties(Number(first), Number(rest[0])));
    else {
      for (const word of rest) {
        const [kind = '', value = ''] = word.split('=');
        const property = IO_PROPERTIES[kind] ?? kind;
        io.set(property, [...(io.get(property) ?? []), `/dev/block/${first}`, value]);
      }
    }
  }
  for (const [property, pairs] of io) found.push([property, 'a(st)', String(pairs.length / 2), ...pairs]);
  return found;
}

/** @param quotaUs @param periodUs microseconds of CPU time in each period */
function cpuProperties(quotaUs: number, periodUs: number): readonly (readonly string[])[] {
  return [
    ['CPUQuotaPerSecUSec', 't', String((quotaUs * 1_000_000) / periodUs)],
    ['CPUQuotaPeriodUSec', 't', String(periodUs)],
  ];
}
