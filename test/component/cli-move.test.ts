import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeApi, OPERATION } from '../support/fake-api.ts';
import { record, run } from '../support/run-qshim.ts';

/** `qshim volume move` and `pivot` against an API that only takes requests down. */

const ENDED = {
  ...OPERATION,
  endedAt: { seconds: 1_767_323_050, nanos: 0 },
  state: 'OPERATION_STATE_SUCCEEDED',
} as const;

describe('move commands', () => {
  it('move names the target and what may be done to it, and follows the operation to its end', async () => {
    await using api = await FakeApi.start();
    api.operations = [OPERATION, ENDED];
    const options = ['--qcow2', '/v/data.qcow2', '--create', '--speed', '50M', '--operation', 'move-1'];
    const done = await run(['volume', 'move', 'sb1', 'vol1', ...options], { socket: api.socketPath });
    assert.equal(done.exitCode, 0, done.stderr);
    assert.match(done.stdout.toString(), /^state +succeeded$/m);
    const [asked] = api.calls;
    assert.equal(asked?.method, 'Volumes.Migrate');
    const request = record(asked.request);
    assert.equal(record(request['qcow2File'])['path'], '/v/data.qcow2');
    assert.deepEqual(
      ['operationId', 'createIfMissing', 'overwrite', 'pivot', 'speedBytesPerS'].map((name) => request[name]),
      ['move-1', true, false, 'PIVOT_AUTOMATIC', 50 * 1024 * 1024],
    );
  });

  it('with --no-wait it exits once it is begun, and pivot goes on', async () => {
    await using api = await FakeApi.start();
    const options = ['--raw', '/v/b.raw', '--overwrite', '--pivot', 'asked', '--no-wait'];
    const begun = await run(['volume', 'move', 'sb1', 'vol1', ...options], { socket: api.socketPath });
    assert.equal(begun.exitCode, 0, begun.stderr);
    assert.deepEqual(
      api.calls.map(({ method }) => method),
      ['Volumes.Migrate'],
    );
    const request = record(api.lastRequest);
    assert.deepEqual([request['pivot'], request['overwrite']], ['PIVOT_ASKED', true]);
    api.operations = [ENDED];
    const pivot = await run(['volume', 'pivot', 'sb1', 'vol1'], { socket: api.socketPath });
    assert.equal(pivot.exitCode, 0, pivot.stderr);
    assert.match(pivot.stdout.toString(), /^state +succeeded$/m);
  });

  it('without a target, or with two, nothing is asked', async () => {
    await using api = await FakeApi.start();
    for (const options of [[], ['--raw', '/a', '--block', '/dev/b']]) {
      const { exitCode } = await run(['volume', 'move', 'sb1', 'vol1', ...options], { socket: api.socketPath });
      assert.notEqual(exitCode, 0);
    }
    assert.deepEqual(api.calls, []);
  });
});
