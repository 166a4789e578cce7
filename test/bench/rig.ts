import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { TestDaemon } from '../support/daemon.ts';

/** What every section gets. */
export interface Bench {
  /** On tmpfs, as /run is, where the daemon's state lies by default. */
  readonly directory: string;
  /** On a disk. */
  readonly diskDirectory: string;
  readonly quick: boolean;
  readonly say: (line: string) => void;
  /**
   * Directories that a run which is cut short clears away, with the processes that have them on their command lines.
   */
  readonly clearedWhenInterrupted: string[];
}

export const DISK_BYTES = 16 * 1024 * 1024;
/** Between two operations, so that what the guest still does for the first does not count for the second. */
export const SETTLE_MS = 80;

/** A daemon with the default settings but for its paths, in a directory of its own below the bench's. */
export async function startDaemon(
  bench: Bench,
  config: Parameters<typeof TestDaemon.start>[0] = {},
): Promise<TestDaemon> {
  const directory = await mkdtemp(join(bench.directory, 'd-'));
  return await TestDaemon.start({ directory, ...config, config: { log_level: 'info', ...config.config } });
}

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** Resident memory of a process in KiB. */
export async function residentKib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+([0-9]+)/m.exec(status)?.[1]);
}

/**
 * Ends every process whose command line names a directory of the bench, and removes the directory: for an interrupted
 * run.
 */
export function clearAway(directories: readonly string[]): void {
  for (const name of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(name) || Number(name) === process.pid) continue;
    try {
      const commandLine = readFileSync(`/proc/${name}/cmdline`, 'utf8');
      if (directories.some((directory) => commandLine.includes(`${directory}/`))) process.kill(Number(name), 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
}

export async function withDirectory<T>(parent: string, work: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(parent, 'qshim-bench-'));
  // libvirtd runs as another user, and must get through.
  await chmod(directory, 0o711);
  try {
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
