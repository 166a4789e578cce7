import { ensureGuest } from '../guest/build.ts';
import { ensureCommands } from './packages.ts';

/** Installs what the real-QEMU tests and the demo need, and builds the reference guest, as far as either is missing. */
export async function ensureTestTools(): Promise<void> {
  await ensureCommands(['qemu-system-x86_64', 'qemu-img', 'cpio', 'gzip']);
  await ensureGuest({ force: false });
}
