import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

const PROBER = join(import.meta.dirname, 'get-prober-main.ts');
/** Of /proc/PID/stat (proc(5)): a hundredth of a second, on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;
/** Places of utime and stime behind the command's name. */
const [UTIME, STIME] = [11, 12];

/** What a daemon costs, and how it serves, over a time. */
export interface DaemonCost {
  /** Of Get, in milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly worst: number;
  readonly calls: number;
  /** Of one CPU. */
  readonly cpuShare: number;
  /** At the end. */
  readonly residentMib: number;
}

/** Measures a daemon for a while, from a process of its own, so that what this one does is not measured. */
export async function measureDaemon(
  daemon: { readonly socket: string; readonly pid: number },
  sandboxId: string,
  milliseconds: number,
): Promise<DaemonCost> {
  const before = await cpuSeconds(daemon.pid);
  const began = performance.now();
  const args = ['--disable-warning=ExperimentalWarning', PROBER, daemon.socket, sandboxId, String(milliseconds)];
  const { stdout } = await execa(process.execPath, args);
  const seconds = (performance.now() - began) / 1000;
  const took = (JSON.parse(stdout) as number[]).toSorted((one, other) => one - other);
  const at = (part: number): number => took[Math.min(took.length - 1, Math.floor(took.length * part))] ?? 0;
  return {
    p50: at(0.5),
    p99: at(0.99),
    worst: at(1),
    calls: took.length,
    cpuShare: ((await cpuSeconds(daemon.pid)) - before) / seconds,
    residentMib: await residentMib(daemon.pid),
  };
}

export function costText({ p50, p99, worst, calls, cpuShare, residentMib }: DaemonCost): string {
  const [half, most, last] = [p50, p99, worst].map((milliseconds) => milliseconds.toFixed(1));
  const share = (cpuShare * 100).toFixed(0);
  return `p50 ${half}, p99 ${most}, worst ${last} ms of ${calls} Gets, ${share} % of a CPU, ${residentMib.toFixed(0)} MiB`;
}

/** User and system time of a process. */
export async function cpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
}

async function residentMib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1]) / 1024;
}
