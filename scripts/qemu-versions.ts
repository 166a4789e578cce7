/**
 * `npm run test:qemu-versions`: the real-QEMU tests, or some of them, with the QEMUs of other Debian suites. The last
 * line is `N passed, N failed` (`, N skipped` may follow), over all of them.
 */
import { join } from 'node:path';
import { Command } from '@commander-js/extra-typings';
import { execa } from 'execa';
import { ensureQemuOf } from './qemu/versions.ts';

const options = new Command('npm run test:qemu-versions --')
  .description(
    'Fetches other versions of QEMU, beside the one that is installed, and runs the real-QEMU tests with each.',
  )
  .option(
    '--suites <names>',
    "comma-separated suites of Debian; their QEMU is taken, and the machine's libraries stay",
    'trixie,sid',
  )
  .option('--files <texts>', 'comma-separated: only test files whose path contains one of these texts')
  .option('--only <kinds>', 'comma-separated kinds of tests, as for npm test', 'qemu')
  .option('--fetch', 'fetch and unpack them, print their paths, and run nothing')
  .option('--verbose', 'name every test, not only those that failed')
  .parse()
  .opts();

const test = join(import.meta.dirname, 'test.ts');
const closing = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/m;
const sum = { passed: 0, failed: 0, skipped: 0 };

for (const suite of options.suites.split(',')) {
  const { version, binary } = await ensureQemuOf(suite);
  if (options.fetch === true) {
    console.log(`${version}  ${binary}`);
    continue;
  }
  for (const files of options.files?.split(',') ?? [undefined]) {
    console.log(`\n== QEMU ${version} (${suite})${files === undefined ? '' : `: ${files}`}`);
    const args = ['--only', options.only, ...(files === undefined ? [] : ['--files', files])];
    const run = execa(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', test, ...args, ...(options.verbose === true ? ['--verbose'] : [])],
      {
        env: { QSHIM_QEMU_BINARY: binary },
        reject: false,
        stdin: 'ignore',
        stdout: ['pipe', 'inherit'],
        stderr: 'inherit',
      },
    );
    const { stdout, exitCode } = await run;
    const [, passed = '0', failed = '0', skipped = '0'] = closing.exec(stdout) ?? [];
    sum.passed += Number(passed);
    // A run that ended without its closing line has failed, however many tests it counted.
    sum.failed += Math.max(Number(failed), exitCode === 0 ? 0 : 1);
    sum.skipped += Number(skipped);
  }
}
if (options.fetch !== true) {
  console.log(`\n${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ''}`);
  process.exitCode = sum.failed === 0 && sum.passed > 0 ? 0 : 1;
}
