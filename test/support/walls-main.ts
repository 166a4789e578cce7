/**
 * Takes a cell while this process has 0, 1, 2, ... descriptors left, each time as a new daemon would, and then with all
 * of them. Prints what came of each, as JSON. To be run with a low limit of open files. The argument is QEMU's binary.
 */
import { closeSync, openSync } from 'node:fs';
import { ShimError } from '../../src/base/errors.ts';
import { surviveFailedSpawns } from '../../src/base/failed-spawns.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { Cells } from '../../src/confine/cells.ts';
import { cellsFor } from './cells.ts';

const LEFT_MAX = 24;
const [binary = ''] = process.argv.slice(2);

async function outcome(cells: Cells): Promise<string> {
  try {
    using cell = await cells.take();
    return JSON.stringify(cell.facts.missing);
  } catch (error) {
    return error instanceof ShimError ? error.reason : String(error);
  }
}

function allDescriptors(): number[] {
  const held: number[] = [];
  try {
    for (;;) held.push(openSync('/dev/null', 'r'));
  } catch {
    return held;
  }
}

using _spawns = surviveFailedSpawns(silentLogger());
// What is loaded only when first used is loaded before descriptors are short.
const all = await outcome(await cellsFor({ confine: 'degraded', qemu_binary: binary }));
const few: string[] = [];
const again: string[] = [];
for (let left = 0; left <= LEFT_MAX; left += 1) {
  const cells = await cellsFor({ confine: 'degraded', qemu_binary: binary });
  // Without an await: cells begin to try the host on their own.
  const held = allDescriptors();
  for (const descriptor of held.splice(0, left)) closeSync(descriptor);
  few.push(await outcome(cells));
  for (const descriptor of held) closeSync(descriptor);
  again.push(await outcome(cells));
}
process.stdout.write(JSON.stringify({ all, few, again }));
