import { readFile } from 'node:fs/promises';

/** What /proc/PID/stat says of a process (proc_pid_stat(5); the numbers of its fields are given). */
export interface ProcStat {
  /** 3: one letter; `Z` and `X` have ended. */
  readonly state: string;
  /** 4. */
  readonly parentPid: number;
  /** 5. */
  readonly processGroup: number;
  /** 6. */
  readonly session: number;
  /** 14: processor time, in milliseconds. */
  readonly userMs: number;
  /** 15: the kernel's on its behalf. */
  readonly systemMs: number;
  /** 20. */
  readonly threads: number;
  /** 22: when it began, in clock ticks since boot; with the pid, it tells this process from all others. */
  readonly startTicks: number;
  /** 24: its resident memory, in bytes. */
  readonly residentBytes: number;
}

/** Linux's USER_HZ is 100, whatever its own clock. */
const TICK_MS = 10;
/** Of x86-64. */
const PAGE_BYTES = 4096;

/** @throws the system error; ENOENT or ESRCH: there is no such process */
export async function readProcStat(pid: number): Promise<ProcStat> {
  return parseProcStat(await readFile(`/proc/${pid}/stat`, 'utf8'));
}

/** The second field is the command in brackets and may itself hold spaces and brackets; those behind it cannot. */
export function parseProcStat(text: string): ProcStat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const field = (number: number): string => fields[number - 3] ?? '';
  return {
    state: field(3),
    parentPid: Number(field(4)),
    processGroup: Number(field(5)),
    session: Number(field(6)),
    userMs: Number(field(14)) * TICK_MS,
    systemMs: Number(field(15)) * TICK_MS,
    threads: Number(field(20)),
    startTicks: Number(field(22)),
    residentBytes: Number(field(24)) * PAGE_BYTES,
  };
}
