import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { constants } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { MEMORY_DESCRIPTOR } from '../qemu/argv.ts';
import { QemuProcess, type ExitInfo } from '../qemu/process.ts';
import { tiedCommand } from '../qemu/tied.ts';
import { BWRAP, cellArguments, type CellCommand } from './command.ts';

export interface CellStart extends Omit<CellCommand, 'infoDescriptor' | 'blockDescriptor' | 'copied' | 'directory'> {
  readonly directory: string;
  readonly logFile: string;
  /** Files that only the daemon may read. */
  readonly copied: readonly string[];
  /** An open file that QEMU gets as MEMORY_DESCRIPTOR (qemu/argv.ts). */
  readonly memory: number | undefined;
  /** Puts QEMU into its control group while bwrap's child waits; undefined: there is none. */
  readonly enterGroup: ((pid: number) => Promise<void>) | undefined;
}

const INFO_CHARS_MAX = 4096;
const SIGNALLED = 128;

/**
 * Starts QEMU in its cell. Its output goes to `logFile`, never through this process.
 * @throws ShimError FAILED_PRECONDITION / QEMU_NOT_STARTED when bwrap cannot be run or says nothing of a process; what
 *   `enterGroup` throws
 */
export async function startInCell(cell: CellStart): Promise<QemuProcess> {
  await using owned = new AsyncDisposableStack();
  const log = createWriteStream(cell.logFile, { flags: 'a', mode: 0o600 });
  await once(log, 'open');
  log.on('error', () => undefined); // QEMU has its own descriptor by then, or is not started.
  owned.defer(() => void log.destroy());
  const copied = await Promise.all(cell.copied.map(async (path) => ({ path, file: owned.use(await open(path, 'r')) })));
  const given = cell.memory === undefined ? [] : [cell.memory];
  const first = MEMORY_DESCRIPTOR + given.length;
  const info = first + copied.length;
  const args = cellArguments({
    ...cell,
    copied: copied.map(({ path }, index) => ({ path, descriptor: first + index })),
    infoDescriptor: info,
    ...(cell.enterGroup !== undefined && { blockDescriptor: info + 1 }),
  });
  const { file, prefix } = cell.tied ? await tiedCommand(BWRAP) : { file: BWRAP, prefix: [] };
  const launcher = spawn(file, [...prefix, ...args], {
    cwd: '/',
    env: {},
    detached: true,
    stdio: [
      ...(['ignore', log, log] as const),
      ...given,
      ...copied.map((one) => one.file.fd),
      ...(cell.enterGroup === undefined ? (['pipe'] as const) : (['pipe', 'pipe'] as const)),
    ],
  });
  launcher.unref();
  const exited = exitOf(launcher);
  let pid: number | undefined;
  try {
    // With no descriptor left Node gives it no streams at all, which its types do not tell.
    const stdio = (launcher as Partial<ChildProcess>).stdio;
    pid = await childPid(stdio?.[info] as Readable | undefined, exited);
    if (cell.enterGroup !== undefined) {
      await cell.enterGroup(pid);
      (stdio?.[info + 1] as Writable).end('1');
    }
    return await QemuProcess.launched(pid, exited);
  } catch (error) {
    // QEMU with it, when it has begun: nobody would own it.
    launcher.kill('SIGKILL');
    // bwrap's end does not end what waits for the block descriptor. The launcher, its parent, has not been reaped.
    if (pid !== undefined) endProcess(pid);
    if (error instanceof ShimError) throw error;
    throw new ShimError('FAILED_PRECONDITION', `QEMU was not started below ${BWRAP}: ${messageOf(error)}`, {
      reason: 'QEMU_NOT_STARTED',
      metadata: { binary: cell.layout.program },
      cause: error,
    });
  }
}

/** @throws the system error; none when it has ended already */
function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
}

/**
 * The process that bwrap has made, by the JSON that it writes (`--info-fd`, bwrap(1)). It is read to its end: bwrap
 * would die of a pipe that nobody reads, and leave a process that waits for it.
 */
async function childPid(info: Readable | undefined, exited: Promise<ExitInfo>): Promise<number> {
  if (info === undefined) throw new Error('no descriptor for it was left');
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let text = '';
  info.on('error', reject);
  info.on('data', (chunk: Buffer) => {
    if (text.length < INFO_CHARS_MAX) text += chunk.toString();
    const pid = Number(/"child-pid": (\d+)/.exec(text)?.[1]);
    if (pid > 0) resolve(pid);
  });
  info.on('end', () => {
    void exited.then(({ code, signal }) => {
      reject(new Error(`it ended with ${signal ?? `code ${code ?? '?'}`} before it had made a process`));
    });
  });
  return await promise;
}

/** How the launcher ended, in the place of QEMU. Never rejects: one that was not started has ended too. */
async function exitOf(launcher: ChildProcess): Promise<ExitInfo> {
  const { promise, resolve } = Promise.withResolvers<ExitInfo>();
  launcher.once('exit', (code, signal) => resolve(exitOfQemu(code ?? undefined, signal ?? undefined)));
  launcher.once('error', () => {
    if (launcher.pid === undefined) resolve({ code: undefined, signal: undefined });
  });
  return await promise;
}

/** bwrap ends with QEMU's code, or with 128 and the number of the signal that ended QEMU. */
export function exitOfQemu(code: number | undefined, signal: string | undefined): ExitInfo {
  if (code === undefined || code <= SIGNALLED) return { code, signal };
  const [name] = Object.entries(constants.signals).find(([, number]) => number === code - SIGNALLED) ?? [];
  return name === undefined ? { code, signal } : { code: undefined, signal: name };
}
