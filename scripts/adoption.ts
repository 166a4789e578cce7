/**
 * `npm run adoption`: how long a new daemon takes to find the sandboxes of one that was killed, and to confirm the
 * state of each of their volumes, on a real QEMU.
 */
import { Command } from '@commander-js/extra-typings';
import { Adoption } from '../test/soak/adoption.ts';
import { positiveInteger, randomSeed } from './lib/numbers.ts';
import { ensureTestTools } from './lib/prepare.ts';

const options = new Command('npm run adoption --')
  .description('Kills the daemon and measures from the start of the next one to everything found and confirmed.')
  .option('--sandboxes <n>', 'VMs', positiveInteger, 20)
  .option('--volumes <n>', 'volumes attached to each', positiveInteger, 10)
  .option('--rounds <n>', 'how many times', positiveInteger, 6)
  .option('--limit-ms <n>', 'a round that takes longer has failed', positiveInteger, 2000)
  .option('--seed <n>', 'the same seed makes the same choices', positiveInteger, randomSeed())
  .parse()
  .opts();
console.log(`seed ${options.seed}`);
await ensureTestTools();
const figures = await Adoption.run({ ...options, say: (line) => console.log(line) });
console.log(`
${options.sandboxes} sandboxes with ${options.volumes} volumes each, seed ${options.seed}
start to first answer                  ${figures.times('first answer')}
start to all confirmed                 ${figures.times('confirmed')}
start to all guest agents heard again  ${figures.times('agents')}
problems                               ${figures.problems.length}
${figures.passed} passed, ${figures.failed} failed`);
process.exitCode = figures.failed === 0 ? 0 : 1;
