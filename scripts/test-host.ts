/**
 * `npm run test:host`: what only a host with systemd, control groups and Landlock shows, on such a host: Debian in a VM
 * (QEMU without KVM; the VM has one), made with root and Debian's packages. Runs test/host in there, which takes some
 * minutes. The last line is `N passed, N failed` (`, N skipped` may follow).
 */
import { createReadStream } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { Command, InvalidArgumentError } from '@commander-js/extra-typings';
import { execa } from 'execa';
import { hostDirectory, hostImages, type HostImages } from './host/root.ts';
import { ensureCommands, isRoot } from './lib/packages.ts';
import { ensureTestTools } from './lib/prepare.ts';

const MEMORY_MIB = 4096;
const PARAMETERS = [
  ...['root=/dev/vda', 'rw', 'console=ttyS0', 'quiet', 'panic=-1', 'mitigations=off', 'cryptomgr.notests'],
  ...['systemd.show_status=no', 'systemd.firstboot=no'],
];

function minutes(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError('A number of minutes.');
  return number;
}

const { limit } = new Command('npm run test:host --')
  .description('Runs test/host on a Debian with systemd, in a VM.')
  .option('--limit <minutes>', 'end the VM after so many minutes', minutes, 40)
  .parse()
  .opts();

/** Runs the VM to its end. @returns false when it was ended for its time */
async function runHost({ kernel, initrd, root, checkout }: HostImages, results: string): Promise<boolean> {
  const disk = (path: string): readonly string[] => ['-drive', `file=${path},if=virtio,format=raw,snapshot=on`];
  const args = [
    // One CPU: with two, QEMU 7.2's TCG once ran half of an instruction that the other CPU was patching (a static key
    // of the kernel's scheduler, which KVM switches), and the kernel panicked.
    ...['-machine', 'q35,accel=tcg,vmport=off', '-cpu', 'max', '-smp', '1', '-m', String(MEMORY_MIB)],
    ...['-nodefaults', '-display', 'none', '-no-reboot', '-kernel', kernel, '-initrd', initrd],
    ...['-append', PARAMETERS.join(' '), ...disk(root), ...disk(checkout)],
    ...['-serial', `file:${join(hostDirectory, 'console.log')}`, '-serial', `file:${results}`],
  ];
  const ended = await execa('qemu-system-x86_64', args, {
    ...{ stdin: 'ignore', reject: false, timeout: limit * 60_000, cleanup: true },
  });
  if (ended.failed && !ended.timedOut) throw new Error(`QEMU failed: ${ended.stderr}`);
  return !ended.timedOut;
}

/** Prints what TAP says of tests, with what failed; counts them. */
async function tell(results: string): Promise<{ passed: number; failed: number; skipped: number }> {
  const tally = { passed: 0, failed: 0, skipped: 0 };
  let complete = false;
  for await (const raw of createInterface({ input: createReadStream(results) })) {
    const line = raw.replaceAll('\r', '');
    const [, word = '', count = ''] = /^# (pass|fail|cancelled|skipped) (\d+)$/.exec(line) ?? [];
    if (word === 'pass') tally.passed = Number(count);
    if (word === 'fail' || word === 'cancelled') tally.failed += Number(count);
    if (word === 'skipped') tally.skipped = Number(count);
    complete ||= /^# fail \d+$/.test(line);
    if (!/^\s*(type|duration_ms|---|\.\.\.|# Subtest|1\.\.|TAP version)/.test(line) && word === '') console.log(line);
  }
  if (complete) return tally;
  console.log('FAILED  the host ended before its tests did: build/host/console.log');
  return { ...tally, failed: tally.failed + 1 };
}

if (!isRoot()) {
  console.error('npm run test:host makes the file system of a host: run it as root');
  process.exit(2);
}
await ensureTestTools();
await ensureCommands(['mmdebstrap', 'qemu-system-x86_64', 'mkfs.ext4']);
const images = await hostImages();
const results = join(hostDirectory, 'results.tap');
await rm(results, { force: true });
await writeFile(results, '');
console.error('the tests, on that host (some minutes; its console: build/host/console.log) ...');
if (!(await runHost(images, results))) console.log(`FAILED  the host was ended after ${limit} minutes`);
const { passed, failed, skipped } = await tell(results);
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
