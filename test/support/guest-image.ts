import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { configWith } from '../../src/config.ts';

const root = join(import.meta.dirname, '../..');

/** Those that the daemons of the tests boot as well: QSHIM_KERNEL and QSHIM_INITRD, or the reference guest's. */
export const KERNEL = process.env['QSHIM_KERNEL'] ?? join(root, 'build/guest/vmlinuz');
export const INITRD = process.env['QSHIM_INITRD'] ?? join(root, 'build/guest/initrd.img');
/** What a sandbox's kernel is given, for guests that are started without a daemon and compared with one. */
export const KERNEL_PARAMETERS = configWith({}).kernel_parameters;

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
