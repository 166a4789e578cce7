import { access, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

const BALLAST = 'ballast';
const CHUNK_BYTES = 64 * 1024;
/** Descriptors that a process may have when it is to open no further one. */
const NO_MORE_DESCRIPTORS = 3;

/** What mounts need; undefined when they work. */
export async function whyNoMounts(directory: string): Promise<string | undefined> {
  const mounted = await execa('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', directory], { reject: false });
  if (mounted.exitCode !== 0) return `no tmpfs can be mounted: ${mounted.stderr}`;
  await execa('umount', [directory]);
  return undefined;
}

/** A small file system of its own for a directory. */
export async function mountSmall(directory: string, size: string): Promise<AsyncDisposable> {
  await execa('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0700`, 'tmpfs', directory]);
  return {
    [Symbol.asyncDispose]: async () => {
      await execa('umount', [directory]);
    },
  };
}

/** Fills a file system to the last byte. */
export async function fill(directory: string): Promise<AsyncDisposable> {
  const path = join(directory, BALLAST);
  {
    await using file = await open(path, 'w');
    const chunk = Buffer.alloc(CHUNK_BYTES, 1);
    for (let bytes = CHUNK_BYTES; bytes > 0;) {
      try {
        await file.write(chunk, 0, bytes);
      } catch {
        bytes = Math.floor(bytes / 2);
      }
    }
  }
  return { [Symbol.asyncDispose]: () => rm(path) };
}

/** Makes what is below a directory read-only for whoever opens it from now on; what is open already stays writable. */
export async function makeReadOnly(directory: string): Promise<AsyncDisposable> {
  await execa('mount', ['--bind', directory, directory]);
  await execa('mount', ['-o', 'remount,bind,ro', directory]);
  return {
    [Symbol.asyncDispose]: async () => {
      await execa('umount', [directory]);
    },
  };
}

/** Lets a process open no further descriptor. */
export async function exhaustDescriptors(pid: number): Promise<AsyncDisposable> {
  const { stdout } = await execa('prlimit', [
    '--pid',
    String(pid),
    '--nofile',
    '--output=SOFT',
    '--noheadings',
    '--raw',
  ]);
  const set = async (soft: string): Promise<void> => {
    await execa('prlimit', ['--pid', String(pid), `--nofile=${soft}:`]);
  };
  await set(String(NO_MORE_DESCRIPTORS));
  return { [Symbol.asyncDispose]: () => set(stdout.trim()) };
}

/** Processes whose command line names a directory. */
export async function processesNaming(text: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      try {
        await using file = await open(`/proc/${pid}/cmdline`);
        return (await file.readFile('utf8')).includes(text) ? [pid] : [];
      } catch {
        // It has ended meanwhile.
        return [];
      }
    }),
  );
  return found.flat();
}

export async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
