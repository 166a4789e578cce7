import { access, constants } from 'node:fs/promises';
import { messageOf } from '../base/errors.ts';
import { run } from '../base/run.ts';

/**
 * QEMU draws up its map of the guest's memory anew at every change of a device's regions, some dozens of times for each
 * disk that comes or goes, and throws the old ones away: hundreds of KiB each once there are many disks. glibc gives
 * such memory back to the kernel at once (QEMU calls malloc_trim besides), only to fault it in again. An allocator that
 * keeps it for a while makes `device_add` two to four times as fast; see docs/benchmarks.md.
 */

const TRY_TIMEOUT_MS = 10_000;
const NAMES = ['libtcmalloc_minimal.so.4', 'libjemalloc.so.2'] as const;
/** Where distributions keep libraries for x86-64. */
const DIRECTORIES = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib'] as const;

/** The first allocator of the list that this host has. */
export async function findAllocator(directories: readonly string[] = DIRECTORIES): Promise<string | undefined> {
  for (const name of NAMES) {
    for (const directory of directories) {
      const path = `${directory}/${name}`;
      const there = await access(path, constants.R_OK).then(
        () => true,
        () => false,
      );
      if (there) return path;
    }
  }
  return undefined;
}

/**
 * What to add to QEMU's environment.
 * @param allocator the path of a library, or `system` for none
 */
export function allocatorEnvironment(allocator: string): Readonly<Record<string, string>> {
  return allocator === 'system' ? {} : { LD_PRELOAD: allocator };
}

export interface AllocatorChoice {
  /** The path of a library, or `system`. */
  readonly allocator: string;
  /** One sentence when there is none although one was wanted. */
  readonly problem: string | undefined;
}

/**
 * Which allocator QEMU gets, found out by running it: the dynamic loader passes over a library that it cannot find, but
 * one whose own libraries are missing (QEMU from another distribution's root) keeps QEMU from running.
 * @param setting the option `qemu_allocator`: `auto`, `system`, or the path of a library
 */
export async function chooseAllocator(binary: string, setting: string): Promise<AllocatorChoice> {
  if (setting === 'system') return { allocator: 'system', problem: undefined };
  const path = setting === 'auto' ? await findAllocator() : setting;
  if (path === undefined) return { allocator: 'system', problem: 'there is neither tcmalloc nor jemalloc' };
  try {
    const options = { env: allocatorEnvironment(path), timeout: TRY_TIMEOUT_MS, stdin: 'ignore' } as const;
    const { stderr } = await run(binary, ['-version'], options);
    if (!stderr.includes(path)) return { allocator: path, problem: undefined };
    return { allocator: 'system', problem: `${path} is passed over: ${stderr.trim().slice(0, 300)}` };
  } catch (error) {
    return { allocator: 'system', problem: `${binary} does not run with ${path}: ${messageOf(error).slice(0, 300)}` };
  }
}
