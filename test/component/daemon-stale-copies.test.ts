import assert from 'node:assert/strict';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { ListStaleCopiesResponse__Output } from '../../src/grpc/generated/qshim/v1/ListStaleCopiesResponse.ts';
import type { StaleCopy__Output } from '../../src/grpc/generated/qshim/v1/StaleCopy.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { FakeApi } from '../support/fake-api.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { run, runJson } from '../support/run-qshim.ts';

describe('stale copies of the daemon', { timeout: 120_000 }, () => {
  it('no sandbox gets one, to read neither, over daemons, until somebody releases it', async () => {
    await using rig = await FakeVmRig.start();
    const path = await rig.daemon.rawFile('old', 1024 * 1024);
    const { dev, ino } = await stat(path);
    const copy = {
      ...{ identity: `file:${dev}:${ino}`, path, currentPath: '/w/new' },
      ...{ sandboxId: 'gone', volumeId: 'v', generation: 1, sinceMs: 1_767_323_050_000 },
    };
    await rig.restartAfter('SIGTERM', () =>
      writeFile(join(rig.daemon.stateDir, '.stale-copies.json'), JSON.stringify({ version: 1, copies: [copy] })),
    );
    await rig.sandbox();
    const attach = (readOnly: boolean): Promise<unknown> =>
      rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec: { rawFile: { path }, readOnly } });
    for (const readOnly of [false, true]) {
      const seen = await refusal(attach(readOnly));
      assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'SOURCE_STALE_COPY']);
      assert.equal(seen.metadata['currentPath'], '/w/new');
    }
    await rig.restart('SIGKILL');
    assert.equal((await refusal(attach(false))).reason, 'SOURCE_STALE_COPY');
    const { copies } = await call<ListStaleCopiesResponse__Output>((done) =>
      rig.client.volumes.listStaleCopies({}, done),
    );
    assert.deepEqual(
      copies.map((one) => [one.path, one.currentPath, one.sandboxId, one.volumeId]),
      [[path, '/w/new', 'gone', 'v']],
    );
    const release = (): Promise<StaleCopy__Output> =>
      call<StaleCopy__Output>((done) => rig.client.volumes.releaseStaleCopy({ path }, done));
    assert.equal((await release()).path, path);
    assert.equal((await refusal(release())).reason, 'STALE_COPY_NOT_FOUND');
    await attach(false);
  });
});

describe('volume stale', () => {
  it('list shows which copy is current, release names the path', async () => {
    await using api = await FakeApi.start();
    const listed = await run(['volume', 'stale', 'list'], { socket: api.socketPath });
    assert.match(
      listed.stdout.toString(),
      /^STALE COPY +CURRENT COPY .*\n\/v\/data\.img +\/w\/standby\.img +sb1 +vol1 /,
    );
    await runJson(api, 'volume', 'stale', 'release', '/v/data.img');
    assert.deepEqual(api.calls.at(-1), { method: 'Volumes.ReleaseStaleCopy', request: { path: '/v/data.img' } });
    api.fail('Volumes.ReleaseStaleCopy', { code: 'NOT_FOUND', message: 'no', reason: 'STALE_COPY_NOT_FOUND' });
    const failed = await run(['volume', 'stale', 'release', '/x'], { socket: api.socketPath });
    assert.match(failed.stderr, /STALE_COPY_NOT_FOUND\)\nhint: `qshim volume stale list`/);
  });
});
