import { execa } from 'execa';

const TRIES_MAX = 12;

/** `qemu-img create -f luks` with these arguments; again where the kernel's clock of CPU time was too coarse for it. */
export async function makeImage(args: readonly string[]): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const result = await execa('qemu-img', ['create', '-q', '-f', 'luks', ...args], { reject: false });
    if (result.exitCode === 0) return;
    if (attempt === TRIES_MAX || !result.stderr.includes('Unable to get accurate CPU usage'))
      throw new Error(result.stderr);
  }
}
