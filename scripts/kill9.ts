/**
 * `npm run kill9 -- --kills N --seed S`: kill -9 of the daemon in the midst of attaches and detaches on a real QEMU,
 * again and again. No volume may be lost or leaked, no state wrong, and the VMs must not notice.
 */
import { Command } from '@commander-js/extra-typings';
import { Kill9 } from '../test/soak/kill9.ts';
import { positiveInteger, randomSeed } from './lib/numbers.ts';
import { ensureCommands } from './lib/packages.ts';
import { ensureTestTools } from './lib/prepare.ts';

const options = new Command('npm run kill9 --')
  .description('Kills the daemon with SIGKILL during attach and detach, and compares everything after each restart.')
  .option('--kills <n>', 'how many', positiveInteger, 500)
  .option('--seed <n>', 'the same seed makes the same choices', positiveInteger, randomSeed())
  .option('--verbose', 'tell every round', false)
  .parse()
  .opts();
console.log(`seed ${options.seed}`);
await ensureTestTools();
await ensureCommands(['debugfs']);
const figures = await Kill9.run({ ...options, say: (line) => console.log(line) });
const ends = ['attach finished', 'attach undone', 'detach finished', 'detach undone'];
console.log(`
${figures.counted('kills')} kills in ${figures.seconds.toFixed(0)} s with seed ${options.seed}
in the midst of operations  ${figures.counted('kills in the midst')}
in the midst of recovery    ${figures.counted('kills in the recovery')}
operations that were hit    ${ends.map((end) => `${end} ${figures.counted(end)}`).join(', ')}
restart to first answer     ${figures.times('restart')}
restart to settled          ${figures.times('recovery')}
volumes lost                ${figures.problemsOf('lost')}
leaked                      ${figures.problemsOf('leaked')}
wrong states                ${figures.problemsOf('wrong state') + figures.problemsOf('wrong answer')}
wrong bytes                 ${figures.problemsOf('wrong bytes')}
VMs harmed                  ${figures.problemsOf('VM harmed')}
${figures.passed} passed, ${figures.failed} failed`);
process.exitCode = figures.failed === 0 ? 0 : 1;
