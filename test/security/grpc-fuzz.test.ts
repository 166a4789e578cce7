import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TestDaemon } from '../support/daemon.ts';
import { fuzzGrpc, residentBytes } from '../support/grpc-fuzz.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** Printed with a failure; QSHIM_FUZZ_SEED repeats it. */
const SEED = Number(process.env['QSHIM_FUZZ_SEED'] ?? Math.floor(Math.random() * 1e9));
const MESSAGES = Number(process.env['QSHIM_FUZZ_MESSAGES'] ?? 100_000);
const REQUEST_BYTES_MAX = 262_144;
/** What V8 may take or give back between two looks. */
const GROWTH_BYTES_MAX = 96 * 1024 * 1024;

const skip = await realVmSkipReason();

describe(`${MESSAGES} calls that no client makes`, { skip, timeout: 1_800_000 }, () => {
  it(`leave the daemon, a real sandbox and its volume as they are (QSHIM_FUZZ_SEED=${SEED})`, async () => {
    await using daemon = await TestDaemon.start({ config: { sandboxes_max: 1, log_level: 'info' } });
    const { client } = daemon;
    await client.createSandbox({ sandboxId: 'one' });
    const path = await daemon.rawFile('kept');
    await client.attach({ sandboxId: 'one', volumeId: 'kept', spec: { rawFile: { path } } });
    const fuzz = (messages: number, seed: number) =>
      fuzzGrpc({
        ...{ socket: daemon.socket, messages, seed, requestBytesMax: REQUEST_BYTES_MAX },
        ids: ['one'],
        sparing: /^(Stop|Delete|Reboot|Pause|Resume|Start|Detach|DetachMany|AttachMany|Attach|Exec|ExecStream)$/,
      });
    // Compiled, cached and grown to what it needs.
    const first = await fuzz(Math.round(MESSAGES / 5), SEED);
    const before = await residentBytes(daemon.child.pid ?? 0);
    const rest = await fuzz(MESSAGES - Math.round(MESSAGES / 5), SEED + MESSAGES);
    const after = await residentBytes(daemon.child.pid ?? 0);
    assert.deepEqual([...first.faults, ...rest.faults], []);
    assert.ok(after - before < GROWTH_BYTES_MAX, `from ${before} to ${after} bytes`);
    const [sandbox, ...more] = await client.listSandboxes();
    assert.deepEqual([sandbox?.sandboxId, sandbox?.state, more.length], ['one', 'SANDBOX_STATE_RUNNING', 0]);
    const volumes = (await client.listVolumes('one')).map(({ volumeId, state }) => [volumeId, state]);
    assert.deepEqual(volumes, [['kept', 'VOLUME_STATE_ATTACHED']]);
    assert.equal(await client.guest('one', 'echo there'), 'there\n');
  });
});
