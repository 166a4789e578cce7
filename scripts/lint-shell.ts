/**
 * The part of `npm run lint` that is about shell: shellcheck and shfmt. With `--write`, what `npm run format` does
 * about it. A check whose tool is missing, and cannot be installed by this user, is skipped, and says so.
 */
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { shellChecks, shellFormat } from './lib/shell-lint.ts';

const { values } = parseArgs({ options: { write: { type: 'boolean' } } });

for (const { command, args, missing } of values.write === true ? [await shellFormat()] : await shellChecks()) {
  if (missing !== undefined) {
    console.error(`skipped ${command}: ${missing}`);
    continue;
  }
  const { exitCode } = await execa(command, args, { stdio: 'inherit', reject: false });
  if (exitCode !== 0) process.exitCode = 1;
}
