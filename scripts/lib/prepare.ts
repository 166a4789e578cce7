import { ensureGuest } from '../guest/build.ts';
import { execa } from 'execa';
import { findAllocator } from '../../src/qemu/allocator.ts';
import { ensureCommands, ensurePackages, isRoot, whyMissing } from './packages.ts';

/** Installs what the real-QEMU tests and the demo need, and builds the reference guest, as far as either is missing. */
export async function ensureTestTools(): Promise<void> {
  await ensureCommands(['qemu-system-x86_64', 'qemu-img', 'cpio', 'gzip']);
  // Without it QEMU runs unconfined, which the daemon says too.
  const unconfined = await whyMissing('bwrap');
  if (unconfined !== undefined) console.error(`QEMU will not be confined by bubblewrap: ${unconfined}`);
  // Optional: QEMU is as good without, and slower.
  if (isRoot()) {
    await ensurePackages(['libtcmalloc-minimal4'], async () => (await findAllocator()) !== undefined);
  }
  await ensureGuest({ force: false });
}

/** Installs libvirt and its Python client, for the benchmark. */
export async function ensureBenchTools(): Promise<void> {
  await ensureCommands(['libvirtd']);
  await ensurePackages(['libvirt-daemon-driver-qemu', 'python3-libvirt'], async () => {
    const result = await execa('/usr/bin/python3', ['-c', 'import libvirt, libvirt_qemu'], { reject: false });
    return result.exitCode === 0;
  });
}
