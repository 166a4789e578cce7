/**
 * `npm run cross-version -- --from REF`: sandboxes that a daemon of another version has made, adopted by this one, and
 * the other way round, on a real QEMU.
 */
import { Command } from '@commander-js/extra-typings';
import { Crossing, type Check } from '../test/versions/crossing.ts';
import { Tree } from '../test/versions/tree.ts';
import { ensureTestTools } from './lib/prepare.ts';

/** The last commit before the code was ordered anew, and before journals had minor versions. */
const BEFORE_THE_NEW_ORDER = 'cd9c74f0ad99a53ced768f5a335eeeb4ddef30ab';

const { from } = new Command('npm run cross-version --')
  .description('Kills a daemon of one version and has one of another version adopt its sandboxes, both ways.')
  .option('--from <ref>', 'the other version: a commit, tag or branch', BEFORE_THE_NEW_ORDER)
  .parse()
  .opts();

let passed = 0;
let failed = 0;
const check: Check = async (what, act) => {
  try {
    await act();
    passed += 1;
    console.log(`  ok      ${what}`);
  } catch (error) {
    failed += 1;
    console.log(`  FAILED  ${what}\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
};

await ensureTestTools();
await using other = await Tree.checkOut(from);
const here = Tree.here();
console.log(`written by ${other.name}, adopted by this tree: promised of every journal of version 1`);
await new Crossing(other, here, check).run();
if (await other.isSince(BEFORE_THE_NEW_ORDER)) {
  console.log(`\nwritten by this tree, adopted by ${other.name}: promised of what ${other.name} can be asked for`);
  await new Crossing(here, other, check).run();
} else {
  console.log(
    `\nwritten by this tree, adopted by ${other.name}: not promised, not tried; it refuses members that came after it`,
  );
}
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
