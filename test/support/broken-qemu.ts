import { existsSync } from 'node:fs';
import { execa } from 'execa';

/**
 * A QEMU that a guest has broken out into, played by gdb: it calls functions of libc in QEMU's main thread, with what
 * that process is and sees.
 */

/** What a call came to. */
export interface Attempt {
  readonly result: number;
  /** errno, as it was after the call. */
  readonly errno: number;
}

const GDB = '/usr/bin/gdb';
const GDB_TIMEOUT_MS = 120_000;

/** Why it cannot be played here, or false: what node:test takes as `skip`. */
export function brokenQemuMissing(): string | false {
  if (process.getuid?.() !== 0) return 'only root may look into every QEMU';
  return existsSync(GDB) ? false : 'there is no gdb (apt-get install gdb)';
}

/** Calls by name, in order, in a process: expressions of C whose value is a number. @throws with gdb's words */
export async function asBrokenQemu(
  pid: number,
  calls: Readonly<Record<string, string>>,
): Promise<Readonly<Record<string, Attempt>>> {
  const commands = Object.entries(calls).flatMap(([name, expression]) => [
    `set $result = (long)${expression}`,
    `printf "ATTEMPT ${name} %ld %d\\n", $result, *((int *(*)(void))__errno_location)()`,
  ]);
  const { all } = await execa(
    GDB,
    [
      ...['-nx', '-batch', '-p', String(pid)],
      ...['set confirm off', 'set pagination off', ...commands].flatMap((command) => ['-ex', command]),
    ],
    { timeout: GDB_TIMEOUT_MS, all: true, stdin: 'ignore', env: { DEBUGINFOD_URLS: '' } },
  );
  const attempts: Record<string, Attempt> = {};
  for (const [, name = '', result, errno] of all.matchAll(/^ATTEMPT (\S+) (-?\d+) (\d+)$/gm)) {
    attempts[name] = { result: Number(result), errno: Number(errno) };
  }
  const missing = Object.keys(calls).filter((name) => attempts[name] === undefined);
  if (missing.length > 0) throw new Error(`gdb did not carry out ${missing.join(', ')}: ${all.slice(-3000)}`);
  return attempts;
}

/** open(2). @param flags as on Linux: 0 reads, 1 writes, 2 both, 0100 makes it */
export function opening(path: string, flags: number): string {
  return `((int (*)(const char *, int, int))open)("${path}", ${flags}, 0600)`;
}

/** socket(2) and connect(2) to a unix socket. */
export function connecting(path: string): string {
  // AF_UNIX, and the path behind it.
  const bytes = String.raw`"\001\000${path}"`;
  const socket = '((int (*)(int, int, int))socket)(1, 1, 0)';
  return `((int (*)(int, const void *, int))connect)(${socket}, ${bytes}, ${path.length + 3})`;
}
