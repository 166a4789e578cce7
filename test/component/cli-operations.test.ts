/** `qshim operation ...` against a daemon with canned answers. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeApi, OPERATION } from '../support/fake-api.ts';
import { record, run, runJson } from '../support/run-qshim.ts';

const ENDED = { ...OPERATION, endedAt: { seconds: 1_767_323_050, nanos: 0 } } as const;

describe('operation commands', () => {
  it('list and get tell how far it is', async () => {
    await using api = await FakeApi.start();
    const listed = await run(['operation', 'list', 'sb1', '--running'], { socket: api.socketPath });
    assert.match(
      listed.stdout.toString(),
      /^SANDBOX +VOLUME .*\nsb1 +vol1 +move-1 +migrate +running +copying \[#####\.+\] 25 %/,
    );
    assert.deepEqual({ ...record(api.lastRequest) }, { sandboxId: 'sb1', volumeId: '', running: true });
    const got = await run(['op', 'get', 'sb1', 'move-1'], { socket: api.socketPath });
    assert.match(got.stdout.toString(), /^progress +copying \[#####\.{15}\] 25 %, 1 GiB of 4 GiB$/m);
    assert.match(got.stdout.toString(), /^cancel +possible$/m);
    assert.equal(record(await runJson(api, 'op', 'get', 'sb1', 'move-1'))['phase'], 'copying');
  });

  it('watch exits as the operation ends', async () => {
    await using api = await FakeApi.start();
    const watch = (): ReturnType<typeof run> => run(['op', 'watch', 'sb1', 'move-1'], { socket: api.socketPath });
    api.operations = [OPERATION, { ...ENDED, state: 'OPERATION_STATE_SUCCEEDED' }];
    const done = await watch();
    assert.deepEqual([done.exitCode, done.stderr], [0, '']);
    assert.match(done.stdout.toString(), /^state +succeeded$/m);
    const problem = { code: 'FAILED_PRECONDITION', reason: 'OUT_OF_ROOM', message: 'the target is full', metadata: {} };
    api.operations = [{ ...ENDED, state: 'OPERATION_STATE_FAILED', problem }];
    const failed = await watch();
    assert.match(failed.stderr, /^qshim: the target is full \(OUT_OF_ROOM\)$/m);
    assert.notEqual(failed.exitCode, 0);
    api.operations = [{ ...ENDED, state: 'OPERATION_STATE_CANCELLED' }];
    const cancelled = await watch();
    assert.match(cancelled.stderr, /OPERATION_CANCELLED/);
    assert.notEqual(cancelled.exitCode, 0);
  });

  it('watch of all prints a line for each change', async () => {
    await using api = await FakeApi.start();
    const all = await run(['op', 'watch', 'sb1'], { socket: api.socketPath });
    assert.match(all.stdout.toString(), /^sb1\/vol1 {2}migrate move-1 {2}running {2}copying /);
    assert.deepEqual({ ...record(api.lastRequest) }, { sandboxId: 'sb1', operationId: '' });
  });

  it('cancel waits for the end, and says which one it was', async () => {
    await using api = await FakeApi.start();
    const cancel = (): ReturnType<typeof run> => run(['op', 'cancel', 'sb1', 'move-1'], { socket: api.socketPath });
    const cancelled = { ...ENDED, state: 'OPERATION_STATE_CANCELLED' } as const;
    api.operations = [cancelled];
    api.answer('Operations.Get', () => cancelled);
    const first = await cancel();
    assert.equal(first.exitCode, 0, first.stderr);
    assert.match(first.stdout.toString(), /^state +cancelled$/m);
    assert.deepEqual(
      api.calls.slice(0, 2).map(({ method }) => method),
      ['Operations.Cancel', 'Operations.Watch'],
    );
    const done = { ...ENDED, state: 'OPERATION_STATE_SUCCEEDED' } as const;
    api.operations = [done];
    assert.match((await cancel()).stdout.toString(), /^state +succeeded$/m);
    api.fail('Operations.Cancel', { code: 'FAILED_PRECONDITION', message: 'no', reason: 'OPERATION_NOT_CANCELLABLE' });
    assert.match((await cancel()).stderr, /OPERATION_NOT_CANCELLABLE\)\nhint: /);
  });
});
