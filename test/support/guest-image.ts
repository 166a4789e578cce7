import { access } from 'node:fs/promises';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');

export const KERNEL = join(root, 'build/guest/vmlinuz');
export const INITRD = join(root, 'build/guest/initrd.img');

/** Why real-QEMU tests cannot run here, or false when they can. `npm test` makes both before it runs them. */
export async function realVmSkipReason(): Promise<string | false> {
  try {
    await access(KERNEL);
    await access(INITRD);
  } catch {
    return 'the reference guest is not built (npm run guest)';
  }
  return false;
}
