import { readFile, readdir } from 'node:fs/promises';
import { identify } from '../../src/qemu/process.ts';
import { until } from './until.ts';

/** Pids of the processes that hold memory of templates whose directory lies below this one, by their command lines. */
export async function holdersBelow(directory: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      // Processes end while they are looked at.
      const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
      if (args[3] !== 'qshim-template-memory' || args[4]?.startsWith(`${directory}/`) !== true) return [];
      // What it starts has its words for a moment.
      return (await sessionOf(pid)) === pid ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}

/** The session of a process (proc_pid_stat(5)); none of one that has ended. */
async function sessionOf(pid: string): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return /^\d+ \(.*\) \S \d+ \d+ (\d+) /s.exec(stat)?.[1];
}

/** Ends them: what removes a directory of templates with no daemon left to see to that. */
export async function endHoldersBelow(directory: string): Promise<void> {
  for (const pid of await holdersBelow(directory)) {
    process.kill(pid, 'SIGTERM');
    await until(`the end of ${pid}`, async () => (await identify(pid)) === undefined);
  }
}
