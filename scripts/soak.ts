/**
 * `npm run soak -- --minutes N --seed S`: random operations and faults on several sandboxes of a real QEMU. After each
 * step what was asked, the daemon's view, QEMU's lists, the guest's disks and every volume's bytes must agree.
 */
import { Command } from '@commander-js/extra-typings';
import { Soak } from '../test/soak/soak.ts';
import { ensureCommands } from './lib/packages.ts';
import { ensureTestTools } from './lib/prepare.ts';
import { positiveInteger, positiveNumber, randomSeed } from './lib/numbers.ts';

const options = new Command('npm run soak --')
  .description('Soaks qshim: random operations and faults, and after each step everything is compared.')
  .option('--minutes <n>', 'how long', positiveNumber, 10)
  .option('--seed <n>', 'the same seed makes the same choices', positiveInteger, randomSeed())
  .option('--sandboxes <n>', 'VMs at once', positiveInteger, 3)
  .option('--volumes <n>', 'volume files for each sandbox', positiveInteger, 4)
  .option('--journal-cuts', 'also cut state files short while the daemon is dead', false)
  .option('--verbose', 'tell every step', false)
  .parse()
  .opts();
console.log(`seed ${options.seed}`);
await ensureTestTools();
await ensureCommands(['debugfs']);
const figures = await Soak.run({ ...options, say: (line) => console.log(line) });
console.log(`
${(figures.seconds / 60).toFixed(1)} minutes with ${options.sandboxes} sandboxes, ${options.sandboxes * options.volumes} volumes, seed ${options.seed}
operations      ${figures.total('operation ')} (${figures.counts('operation ')})
faults          ${figures.total('fault ')} (${figures.counts('fault ')})
daemon restart  ${figures.times('restart')}
${figures.timesOf('recovery').join('\n')}
leaks           ${figures.problemsOf('leaked')}
problems        ${figures.problems.length}
${figures.passed} passed, ${figures.failed} failed`);
process.exitCode = figures.failed === 0 ? 0 : 1;
