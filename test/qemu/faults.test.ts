import { after, before, describe, it } from 'node:test';
import { KATA } from '../faults/kata.ts';
import { MATRIX, runCell, type MatrixCell } from '../faults/matrix.ts';
import { FaultRig } from '../faults/rig.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/**
 * The part of the fault matrix that fits into `npm test`: one VM, faults that it survives, and for each of them the
 * steps where most can go wrong. `npm run faults` tries all of it.
 */
const QUICK: Readonly<Record<string, readonly string[]>> = {
  'daemon killed': ['attach: device_add', 'detach: await-gone'],
  'client gone': ['attach: device_add', 'detach: device_del'],
  'clock jump': ['attach: await-driver', 'detach: device_del'],
  'QMP socket cut': [
    'attach: blockdev-add',
    'attach: device_add',
    'attach: await-driver',
    'detach: device_del',
    'detach: prove',
  ],
  'reply late': ['attach: blockdev-add', 'attach: mount', 'detach: device_del'],
  'reply lost': ['attach: device_add', 'detach: device_del'],
  'command refused': [
    'attach: blockdev-add',
    'attach: device_add',
    'attach: mount',
    'detach: device_del',
    'detach: prove',
  ],
  'event before reply': ['detach: device_del'],
  'event twice': ['detach: await-gone'],
  'event never': ['detach: await-gone'],
  'unknown event': ['attach: device_add', 'detach: await-gone'],
  'line over the bound': ['attach: device_add', 'attach: mount', 'detach: blockdev-del'],
  'invalid JSON': ['create: qmp', 'attach: await-driver', 'detach: device_del'],
  'daemon out of descriptors': ['create: qmp', 'attach: journal', 'attach: device_add', 'detach: journal'],
  'state directory full': ['attach: journal', 'detach: journal', 'detach: device_del'],
  'state directory read-only': ['create: qmp', 'attach: journal', 'detach: journal'],
  'backing deleted': ['attach: blockdev-add', 'attach: device_add'],
  'backing truncated': ['attach: blockdev-add', 'detach: device_del'],
  'backing gives I/O errors': ['attach: mount', 'detach: device_del'],
  'guest agent dead': ['attach: mount', 'detach: ask-guest'],
  'guest hung': ['attach: await-driver', 'detach: device_del'],
  'guest rebooted': ['detach: await-gone'],
};
const skip = await realVmSkipReason();

await describe('faults at steps of the plans', { skip }, async () => {
  let rig: FaultRig;
  before(async () => {
    rig = await FaultRig.start();
  });
  after(() => rig[Symbol.asyncDispose]());

  const quick = MATRIX.filter(({ row, column }) => QUICK[row]?.includes(column) === true);
  for (const cell of [...quick, ...KATA]) {
    await it(nameOf(cell), async (context) => {
      const result = await runCell(rig, cell);
      if (result.kind === 'skipped') context.skip(result.why);
      if (result.kind === 'failed') throw result.error;
    });
  }
});

function nameOf({ row, column }: MatrixCell): string {
  return `${column} | ${row}`;
}
