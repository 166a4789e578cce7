import { spawn } from 'node:child_process';
import { closeSync, constants, fstatSync, ftruncateSync, readFileSync } from 'node:fs';
import { open, readFile, readlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Deadline, sleep, waitFor } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { isSealed, seal, sealableFile } from '../base/native.ts';
import { MEMORY_DESCRIPTOR } from '../qemu/argv.ts';
import { QemuProcess, identify } from '../qemu/process.ts';

/**
 * A template's memory, which its clones map privately:
 *
 *     create ─▶ the template's QEMU writes, and ends ─▶ seal: from here nobody can ─▶ hold ─▶ open, for a clone's QEMU
 *
 * It is a file without a path, and lasts as long as somebody has it open: the holder, a small process that outlives the
 * daemon (hold-memory.sh), and clones.
 */

/** What the next daemon has to know of a template's memory to find it, and to take no other for it. */
export const heldMemorySchema = z.object({
  /** The holder, and when it began (proc_pid_stat(5)). */
  pid: z.int(),
  startTicks: z.int(),
  /** Of the host, in which that process began. */
  hostBoot: z.string(),
  /** The holder ends once this path is gone. It is part of its command line. */
  mark: z.string(),
  device: z.string(),
  inode: z.string(),
  bytes: z.string(),
});
export type HeldMemory = Readonly<z.infer<typeof heldMemorySchema>>;

const FILE_NAME = 'qshim-template-';
const LINK = new RegExp(`^/memfd:${FILE_NAME}([0-9a-f]{64}) \\(deleted\\)$`);
/** What ps(1) and pgrep(1) show behind the script. */
const HOLDER_NAME = 'qshim-template-memory';
const SHELL = '/bin/sh';
const SCRIPT = join(import.meta.dirname, 'hold-memory.sh');
const STAT_BLOCK_BYTES = 512;
/** The kernel lets go of a process's memory a moment after its end; reads of disks into it can take longer. */
const SEAL_PATIENCE_MS = 5000;
const SEAL_RETRY_MS = 20;
const END_PATIENCE_MS = 2000;
const NO_DESCRIPTOR: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENFILE']);

/** A template's memory while it is made: open in this process until it is disposed of. */
export class NewMemory implements Disposable {
  readonly descriptor: number;

  private constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  /**
   * @param key of the template: /proc tells by it which template a QEMU has
   * @throws ShimError FAILED_PRECONDITION / TEMPLATE_UNAVAILABLE where the kernel gives no such file
   */
  static create(key: string, bytes: number): NewMemory {
    let memory: NewMemory;
    try {
      memory = new NewMemory(sealableFile(`${FILE_NAME}${key}`));
    } catch (error) {
      throw unavailable(`there is no memory that could be sealed: ${messageOf(error)}`, error);
    }
    try {
      ftruncateSync(memory.descriptor, bytes);
      return memory;
    } catch (error) {
      memory[Symbol.dispose]();
      throw error;
    }
  }

  /** What it takes; holes take nothing. */
  get bytes(): number {
    return fstatSync(this.descriptor).blocks * STAT_BLOCK_BYTES;
  }

  /**
   * Makes it unchangeable for everybody. Whoever has it mapped for writing has to have ended.
   * @throws ShimError FAILED_PRECONDITION / TEMPLATE_UNAVAILABLE when it cannot be, or still is mapped after a while
   */
  async seal(): Promise<void> {
    const deadline = Deadline.after(SEAL_PATIENCE_MS);
    for (;;) {
      try {
        seal(this.descriptor);
        return;
      } catch (error) {
        if (errnoOf(error) !== 'EBUSY' || deadline.expired)
          throw unavailable(`the memory of the template was not sealed: ${messageOf(error)}`, error);
      }
      await sleep(SEAL_RETRY_MS);
    }
  }

  /**
   * Starts the holder, which has nothing else open, in a session of its own.
   * @param mark a path that comes into being within a minute, and is gone when the template is
   * @throws the system error; Error when the holder has ended at once
   */
  async hold(mark: string): Promise<HeldMemory> {
    const hostBoot = await bootOfHost();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const holder = spawn(SHELL, ['-c', readFileSync(SCRIPT, 'utf8'), HOLDER_NAME, mark], {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', this.descriptor],
    });
    holder.once('spawn', resolve);
    holder.on('error', reject);
    holder.unref();
    await promise;
    const identity = holder.pid === undefined ? undefined : await identify(holder.pid);
    if (identity === undefined) throw new Error('the process that holds the memory of the template has ended');
    const { dev, ino, size } = fstatSync(this.descriptor, { bigint: true });
    return { ...identity, hostBoot, mark, device: String(dev), inode: String(ino), bytes: String(size) };
  }

  [Symbol.dispose](): void {
    closeSync(this.descriptor);
  }
}

/**
 * Opens a template's memory for reading, once more: for a clone's QEMU, which opens it for writing by itself, as it
 * must, and cannot write. What is answered was looked at: it is that file, and sealed.
 * @throws ShimError FAILED_PRECONDITION / TEMPLATE_UNAVAILABLE: its holder has ended, or has something else; the system
 *   error where there is no descriptor left to look with
 */
export async function openMemory(held: HeldMemory): Promise<FileHandle> {
  if (held.hostBoot !== (await bootOfHost())) throw unavailable('its memory is of an earlier boot of the host');
  const holder = await identify(held.pid);
  if (holder?.startTicks !== held.startTicks) throw unavailable('the process that held its memory has ended');
  await using opened = new AsyncDisposableStack();
  let file: FileHandle;
  try {
    // Without waiting, should it be something else by now.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    file = opened.use(await open(`/proc/${held.pid}/fd/${MEMORY_DESCRIPTOR}`, flags));
  } catch (error) {
    if (NO_DESCRIPTOR.has(errnoOf(error))) throw error;
    throw unavailable(`its memory cannot be opened: ${messageOf(error)}`, error);
  }
  const { dev, ino, size } = await file.stat({ bigint: true });
  const { device, inode, bytes } = held;
  if (String(dev) !== device || String(ino) !== inode || String(size) !== bytes)
    throw unavailable('its memory is another file');
  if (!isSealed(file.fd)) throw unavailable('its memory is not sealed');
  opened.move();
  return file;
}

/** Ends the holder, and no other process: clones that run keep their pages, everything else is free. */
export async function endMemory(held: HeldMemory): Promise<void> {
  if (held.hostBoot !== (await bootOfHost())) return;
  const { pid, startTicks, mark } = held;
  const holder = await QemuProcess.adopt({ pid, startTicks }, (args) => args.includes(mark));
  if (holder === undefined) return;
  await holder.kill('SIGTERM');
  const patience = { milliseconds: END_PATIENCE_MS, onTimeout: (): Error => new Error('it has not ended') };
  await waitFor(holder.exited, patience).catch(async () => {
    await holder.kill('SIGKILL');
    await waitFor(holder.exited, patience).catch(() => undefined);
  });
}

/** Whose clone a running QEMU is, by what it was started with; empty when it is none, or cannot be looked at. */
export async function templateOf(pid: number): Promise<string> {
  const link = await readlink(`/proc/${pid}/fd/${MEMORY_DESCRIPTOR}`).catch(() => '');
  return LINK.exec(link)?.[1] ?? '';
}

/** Which boot of the host this is. @throws the system error */
export async function bootOfHost(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

function unavailable(message: string, cause?: unknown): ShimError {
  return new ShimError('FAILED_PRECONDITION', message, { reason: 'TEMPLATE_UNAVAILABLE', cause });
}
