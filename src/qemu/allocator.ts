import { access, constants } from 'node:fs/promises';

/**
 * QEMU draws up its map of the guest's memory anew at every change of a device's regions, some dozens of times for each disk that
 * comes or goes, and throws the old ones away: hundreds of KiB each once there are many disks. glibc gives such memory back to
 * the kernel at once (QEMU calls malloc_trim besides), only to fault it in again. An allocator that keeps it for a while makes
 * `device_add` two to four times as fast; see README, "How fast".
 */

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
 * What to add to QEMU's environment. A library that cannot be loaded is passed over by the dynamic loader, with a line in QEMU's log.
 * @param setting the option `qemu_allocator`: `auto`, `system`, or the path of a library
 */
export async function allocatorEnvironment(setting: string): Promise<Readonly<Record<string, string>>> {
  const path = setting === 'auto' ? await findAllocator() : setting === 'system' ? undefined : setting;
  return path === undefined ? {} : { LD_PRELOAD: path };
}
