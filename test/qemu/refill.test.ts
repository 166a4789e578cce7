import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refill } from '../soak/refill.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const skip = await realVmSkipReason();

/** `npm run refill` does the same with all 155 slots, twenty times. */
await describe('slots that were just freed', { skip }, async () => {
  await it('keep the disks that come next, though the guest is busy and was asked again', async () => {
    // So short a pause that a busy guest is asked again while it still works off what it was asked for first.
    await using daemon = await TestDaemon.start({ config: { unplug_retry_ms: 20, unplug_retry_max_ms: 50 } });
    const problems = await refill(daemon, { volumes: 31, rounds: 4, vcpus: 1, busy: 1, say: () => undefined });
    assert.deepEqual(problems, []);
  });
});
