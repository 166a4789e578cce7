import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { requireCommand, tryCommands } from '../../src/qemu/trial.ts';
import { binaryKey } from '../../src/qmp/capabilities.ts';
import { TRIED_COMMANDS } from '../../src/qmp/qemu-capabilities.ts';
import { TestDaemon } from '../support/daemon.ts';
import { bareQemuMissing } from '../support/bare-qemu.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { driverEvidence, withProbe } from '../support/trial.ts';

const log = silentLogger();

describe('what the binary under test survives', { skip: bareQemuMissing() }, () => {
  it('each experimental command is tried, and the QEMU that asks lives on', async () => {
    await withProbe(async ({ qmp, qemu, directory }, config) => {
      const key = await binaryKey(`/proc/${qemu.pid}/exe`, qmp.greeting);
      const trials = await tryCommands(config, log, key, TRIED_COMMANDS);
      // 11.1.3 is one of those that end at it.
      for (const command of TRIED_COMMANDS) {
        const { outcome, detail } = trials[command] ?? { outcome: undefined, detail: '' };
        assert.ok(outcome === 'works' || outcome === 'fatal', `${command}: ${String(outcome)}, ${detail}`);
        if (outcome === 'fatal') assert.match(detail, /^QEMU was ended by SIG[A-Z]+/);
      }
      assert.equal(trials['x-blockdev-amend']?.outcome, 'works', 'every version so far has survived it');
      assert.equal((await qmp.run('query-status')).running, false);
      assert.deepEqual(await readdir(join(directory, '..')), [directory.split('/').at(-1)], 'nothing else is left');
    });
  });

  it('with another binary than the one that is meant nothing is tried', async () => {
    await withProbe(async (_, config) => {
      await assert.rejects(tryCommands(config, log, 'another', TRIED_COMMANDS), /is another than the one/);
    });
  });

  it('a command that is not known to be survived is not sent', async () => {
    await withProbe(async ({ qmp }, config) => {
      // The VM's own binary is one that cannot be started again.
      const target = { qmp, binary: process.execPath, config, log };
      await assert.rejects(
        requireCommand(target, 'x-blockdev-amend'),
        shimFailure('UNIMPLEMENTED', 'QEMU_COMMAND_UNFIT'),
      );
    });
  });
});

await describe('attach on the binary under test', { skip: await realVmSkipReason() }, async () => {
  await it('ends no VM, and says how the driver was seen', async () => {
    await using daemon = await TestDaemon.start();
    const { qemuPid } = await daemon.client.createSandbox({ sandboxId: 'vm' });
    const path = await daemon.rawFile('disk');
    const { evidence } = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'a', spec: { rawFile: { path } } });
    assert.equal(evidence[0], await driverEvidence());
    const { state, qemuPid: after } = await daemon.client.getSandbox('vm');
    assert.deepEqual([state, after], ['SANDBOX_STATE_RUNNING', qemuPid]);
  });
});
