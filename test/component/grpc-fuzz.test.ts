import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { fuzzGrpc } from '../support/grpc-fuzz.ts';

/** Printed with a failure; QSHIM_FUZZ_SEED repeats it. test/security/grpc-fuzz.test.ts makes 100,000. */
const SEED = Number(process.env['QSHIM_FUZZ_SEED'] ?? Math.floor(Math.random() * 1e9));
const MESSAGES = 3000;
const REQUEST_BYTES_MAX = 65_536;

describe('3,000 calls that no client makes', { timeout: 240_000 }, () => {
  it(`leave the daemon, its sandbox and its volume as they are (QSHIM_FUZZ_SEED=${SEED})`, async () => {
    await using rig = await FakeVmRig.start({
      request_bytes_max: REQUEST_BYTES_MAX,
      sandboxes_max: 1,
      log_level: 'info',
    });
    await rig.sandbox('one');
    const before = await rig.attach('kept');
    const { outcomes, faults } = await fuzzGrpc({
      ...{ socket: rig.daemon.socket, messages: MESSAGES, seed: SEED, requestBytesMax: REQUEST_BYTES_MAX },
      ids: ['one'],
      sparing: /^(Stop|Delete|Reboot|Pause|Resume|Start|Detach|DetachMany|AttachMany|Attach|Exec|ExecStream)$/,
    });
    assert.deepEqual(faults, [], 'the daemon takes no request for a fault of its own');
    assert.ok((outcomes['INVALID_ARGUMENT'] ?? 0) > 100, JSON.stringify(outcomes));
    const [sandbox, ...more] = await rig.client.listSandboxes();
    assert.deepEqual([sandbox?.sandboxId, sandbox?.state, more.length], ['one', 'SANDBOX_STATE_RUNNING', 0]);
    assert.deepEqual(
      (await rig.client.listVolumes('one')).map(({ volumeId, state }) => [volumeId, state]),
      [['kept', before.state]],
    );
    assert.equal((await rig.detach('kept')).state, 'VOLUME_STATE_REMOVED');
  });
});
