import { readdir, readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { readProcStat } from '../../src/base/proc-stat.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();

/**
 * Processes that run a test payload (qemu/accelerator.ts) and are children of `parent`, or of nobody once it is gone.
 */
async function probesOf(parents: ReadonlySet<number>): Promise<readonly number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    const pid = Number(name);
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    const parent = (await readProcStat(pid).catch(() => undefined))?.parentPid ?? 0;
    if (command.includes('isa-debug-exit') && parents.has(parent)) found.push(pid);
  }
  return found;
}

await describe('the KVM probe', { skip }, async () => {
  await it('leaves no QEMU behind when the daemon is killed in the middle of it', async (context) => {
    const daemon = await TestDaemon.start({ config: { kvm_probe_timeout_ms: 60_000 } });
    const pid = daemon.child.pid ?? 0;
    const probes = await probesOf(new Set([pid]));
    await daemon.kill('SIGKILL');
    if (probes.length === 0) {
      context.skip('the probe had ended before the daemon was killed: KVM answers quickly here');
      return;
    }
    await until('the probe is gone', async () => {
      const left = await Promise.all(probes.map((probe) => readFile(`/proc/${probe}/cmdline`, 'utf8').catch(() => '')));
      return left.every((command) => !command.includes('isa-debug-exit'));
    });
  });
});
