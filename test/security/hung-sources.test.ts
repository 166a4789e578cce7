import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { hungFileSystem } from '../support/hung-fs.ts';
import { run } from '../support/run-qshim.ts';

/**
 * "Four sources on a file system that never answers (FUSE): all four pool threads hang: attach, create, detach, stop of
 * other sandboxes, watchers, SIGTERM; health still says SERVING."
 */

const HUNG = 6;
const skip = await realVmSkipReason();

await it(
  'sources that never answer fail their own attaches; real VMs beside them come, attach, detach and stop',
  { skip, timeout: 600_000 },
  async () => {
    await using system = await hungFileSystem();
    assert.ok(system !== undefined, 'needs root and /dev/fuse');
    const daemon = await TestDaemon.start({ config: { allowed_roots: '/', source_timeout_ms: 60_000 } });
    await using _daemon = daemon;
    const { client } = daemon;
    await client.createSandbox({ sandboxId: 'victim' });
    const attaches = Array.from({ length: HUNG }, (_, index) =>
      refusal(
        client.attach({
          sandboxId: 'victim',
          volumeId: `v${index}`,
          spec: { rawFile: { path: join(system.path, `${index}.raw`) } },
        }),
      ),
    );
    let ended = 0;
    for (const attach of attaches) void attach.then(() => (ended += 1));
    // Another tenant's whole life goes by meanwhile.
    await client.createSandbox({ sandboxId: 'other' });
    const path = await daemon.rawFile('other.raw');
    await client.attach({ sandboxId: 'other', volumeId: 'data', spec: { rawFile: { path } } });
    await client.detach({ sandboxId: 'other', volumeId: 'data' });
    const stopped = await client.stopSandbox({ sandboxId: 'other', force: true });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
    assert.equal((await run(['health'], { socket: daemon.socket })).exitCode, 0);
    assert.ok(system.taken() > 0, 'the file system was asked, and keeps who asked');
    for (const { reason } of await Promise.all(attaches)) assert.equal(reason, 'SOURCE_NOT_ANSWERING');
    // The sandbox whose sources hung is as it was.
    const own = await daemon.rawFile('own.raw');
    await client.attach({ sandboxId: 'victim', volumeId: 'own', spec: { rawFile: { path: own } } });
    await client.detach({ sandboxId: 'victim', volumeId: 'own' });
  },
);
