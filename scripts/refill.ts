/**
 * `npm run refill`: fills every slot of a VM, empties them in one call and fills them again at once, again and again. A
 * slot that was just freed must keep the disk that comes next.
 */
import { Command } from '@commander-js/extra-typings';
import { refill } from '../test/soak/refill.ts';
import { TestDaemon } from '../test/support/daemon.ts';
import { positiveInteger } from './lib/numbers.ts';
import { ensureTestTools } from './lib/prepare.ts';

const options = new Command('npm run refill --')
  .description('Fills and empties all slots of a VM, and tells which disks were lost: once idle, once with busy vCPUs.')
  .option('--rounds <n>', 'how many times, for each of the two', positiveInteger, 20)
  .option('--volumes <n>', 'slots', positiveInteger, 155)
  .option('--vcpus <n>', 'of the VM', positiveInteger, 2)
  .option('--unplug-retry-ms <n>', "the daemon's option: short means many repeats", positiveInteger, 1000)
  .parse()
  .opts();
await ensureTestTools();
const problems: string[] = [];
for (const busy of [0, options.vcpus]) {
  console.log(busy === 0 ? 'an idle guest' : `a guest with ${busy} busy vCPUs`);
  await using daemon = await TestDaemon.start({ config: { unplug_retry_ms: options.unplugRetryMs } });
  problems.push(...(await refill(daemon, { ...options, busy, say: (line) => console.log(line) })));
}
for (const problem of problems) console.log(problem);
console.log(`${problems.length} problems in 2 x ${options.rounds} rounds of ${options.volumes} volumes`);
process.exitCode = problems.length === 0 ? 0 : 1;
