import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { refusal } from '../support/errors.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { hungFileSystem } from '../support/hung-fs.ts';

const probe = await hungFileSystem();
const skip = probe === undefined && 'no FUSE file system can be had here (needs root and /dev/fuse)';
await probe?.[Symbol.asyncDispose]();

/** More than libuv has threads. */
const ATTACHES = 6;
/** For far longer than the test lasts: who waits for it would be seen to. */
const LONG_MS = 600_000;

describe('sources on a file system that never answers', { skip, timeout: 120_000 }, () => {
  it('fail their own attaches with SOURCE_NOT_ANSWERING, which the record of none tells', async () => {
    await using system = await hungFileSystem();
    assert.ok(system !== undefined);
    await using rig = await FakeVmRig.start({ allowed_roots: '/', source_timeout_ms: 300 });
    await rig.sandbox();
    const attaches = Array.from({ length: ATTACHES }, (_, index) =>
      refusal(
        rig.client.attach({
          sandboxId: 'one',
          volumeId: `v${index}`,
          spec: { rawFile: { path: join(system.path, `${index}.raw`) } },
        }),
      ),
    );
    for (const seen of await Promise.all(attaches)) {
      assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'SOURCE_NOT_ANSWERING'], seen.message);
    }
    assert.deepEqual(await rig.client.listVolumes('one'), []);
  });

  it('named as a kernel: Create fails with SOURCE_NOT_ANSWERING, and leaves nothing', async () => {
    await using system = await hungFileSystem();
    assert.ok(system !== undefined);
    await using rig = await FakeVmRig.start({ source_timeout_ms: 300 });
    const creates = Array.from({ length: ATTACHES }, (_, index) =>
      refusal(rig.client.createSandbox({ sandboxId: `s${index}`, spec: { kernel: join(system.path, 'vmlinuz') } })),
    );
    for (const seen of await Promise.all(creates)) {
      assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'SOURCE_NOT_ANSWERING'], seen.message);
    }
    assert.deepEqual(await rig.client.listSandboxes(), []);
  });

  it('hold nobody else up: attach, detach, journal, stop and the end of the daemon', async () => {
    await using system = await hungFileSystem();
    assert.ok(system !== undefined);
    const rig = await FakeVmRig.start({ allowed_roots: '/', source_timeout_ms: LONG_MS });
    await using _rig = rig;
    await rig.sandbox();
    await rig.sandbox('two');
    await mkdir(join(rig.daemon.directory, 'volumes'), { recursive: true });
    let ended = 0;
    for (let index = 0; index < ATTACHES; index += 1) {
      const spec = { rawFile: { path: join(system.path, `${index}.raw`) } };
      rig.client.attach({ sandboxId: 'one', volumeId: `hung${index}`, spec }).catch(() => (ended += 1));
    }
    await rig.attach('a', 0, 'two');
    await rig.client.detach({ sandboxId: 'two', volumeId: 'a' });
    await rig.attach('b');
    const stopped = await rig.client.stopSandbox({ sandboxId: 'two', force: true });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
    assert.equal(ended, 0, 'they wait, all the time');
  });
});
