import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { groupName, mountOfCgroup2 } from '../../src/confine/cgroup.ts';

/**
 * Makes the control group that a QEMU with this directory would have, in this host's cgroup2, with whatever controllers
 * that has; undefined where that cannot be.
 */
export async function makeHostCgroup(directory: string): Promise<string | undefined> {
  const mount = mountOfCgroup2(await readFile('/proc/self/mountinfo', 'utf8'));
  if (mount === undefined) return undefined;
  const group = join(mount, 'qshim', groupName(directory));
  return await mkdir(group, { recursive: true }).then(
    () => group,
    () => undefined,
  );
}
