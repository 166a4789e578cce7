/** `qshim top` and `qshim stats` against a daemon with canned answers. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { VolumeStats } from '../../src/grpc/generated/qshim/v1/VolumeStats.ts';
import { FakeApi } from '../support/fake-api.ts';
import { record, run, runJson } from '../support/run-qshim.ts';

const LOOKED_AT = { seconds: 1_767_323_047, nanos: 0 };

/** Reads and writes of so much time and number in two seconds. */
function volume(volumeId: string, queueDepth: number, operationsPerSecond: number): VolumeStats {
  const nothing = { operations: 0, failed: 0, invalid: 0, timeNs: 0 };
  const idle = { operationsPerSecond: 0, queueDepth: 0 };
  return {
    ...{ sandboxId: 'sb1', volumeId, generation: 3, state: 'VOLUME_STATE_ATTACHED', lookedAt: LOOKED_AT },
    health: { failing: false, errors: 0 },
    read: {
      ...{ operations: 90, failed: 10, invalid: 0, merged: 7, bytes: 368_640, timeNs: 150_000_000 },
      latency: { boundariesNs: [1_000_000, 2_000_000, 10_000_000], counts: [60, 38, 1, 1] },
    },
    ...{ write: { ...nothing, bytes: 0, merged: 0 }, flush: nothing, discard: { ...nothing, bytes: 0, merged: 0 } },
    writtenTo: 1_048_576,
    derived: {
      intervalMs: 2000,
      read: { operationsPerSecond, bytesPerSecond: 4096 * operationsPerSecond, meanNs: 1_500_000, queueDepth },
      ...{ write: { ...idle, bytesPerSecond: 0 }, flush: idle, discard: { ...idle, bytesPerSecond: 0 } },
    },
  };
}

describe('top', () => {
  it('shows the busiest first: by the time of its requests, then by their number', async () => {
    await using api = await FakeApi.start();
    const { derived: _derived, ...first } = volume('new', 0, 0);
    const volumes = [
      volume('idle', 0, 0),
      volume('many', 0.5, 900),
      volume('slow', 3, 2),
      volume('few', 0.5, 5),
      first,
    ];
    api.stats = [{ volumes }];
    const { stdout, exitCode, stderr } = await run(['top', 'sb1'], { socket: api.socketPath });
    assert.deepEqual([exitCode, stderr], [0, '']);
    const lines = stdout.toString().trimEnd().split('\n');
    assert.deepEqual(
      lines.map((line) => line.split(/ +/)[1]),
      ['VOLUME', 'slow', 'many', 'few', 'idle', 'new'],
    );
    assert.match(lines[2] ?? '', /^sb1 +many +3\.5 MiB\/s +0 B\/s +900 +0\.0 +1\.5 ms +- +0\.5 +10 +2026-/);
    assert.match(lines[5] ?? '', /^sb1 +new( +-){7} /, 'what is not known yet is not 0');
    assert.deepEqual({ ...record(api.lastRequest) }, { sandboxId: 'sb1', volumeId: '', periodMs: 2000 });
  });

  it('--once passes over the first look, shows the second and ends, whatever comes', async () => {
    await using api = await FakeApi.start();
    api.stats = [{ volumes: [volume('a', 0, 0)] }, { volumes: [volume('b', 0, 0)] }, { volumes: [volume('c', 0, 0)] }];
    api.keepStreamsOpen = true;
    const once = await run(['top', '--once', '--period', '300'], { socket: api.socketPath });
    assert.equal(once.exitCode, 0);
    assert.match(once.stdout.toString(), /^SANDBOX.*\nsb1 +b [^\n]*\n\n$/);
    assert.deepEqual({ ...record(api.lastRequest) }, { sandboxId: '', volumeId: '', periodMs: 300 });
    const short = await run(['top', '--period', '100'], { socket: api.socketPath });
    assert.equal(short.exitCode, 2);
  });

  it('says which sandbox could not be looked at, and clears nothing that is no terminal', async () => {
    await using api = await FakeApi.start();
    const notLookedAt = [{ sandboxId: 'sb2', reason: 'QMP_LOST', message: 'the QMP connection is down' }];
    api.stats = [{ volumes: [], notLookedAt }];
    const { stdout } = await run(['top'], { socket: api.socketPath });
    assert.match(stdout.toString(), /^sb2 not looked at: the QMP connection is down \(QMP_LOST\)$/m);
    assert.equal(stdout.includes('\u001b'), false);
  });
});

describe('stats', () => {
  it('shows all that was counted; what was not is -', async () => {
    await using api = await FakeApi.start();
    api.answer('Stats.Get', () => ({ volumes: [volume('a', 0.5, 10)] }));
    const { stdout } = await run(['stats', 'sb1', 'a'], { socket: api.socketPath });
    const text = stdout.toString();
    assert.match(text, /^read +90 +360 KiB +10 +0 +7 +1\.5 ms +< 1\.0 ms +< 10\.0 ms +10\.0 ms or more$/m);
    assert.match(text, /^flush +0 +- +0 +0 +- +- +- +- +-$/m);
    assert.match(text, /^written to +1 MiB$/m);
    assert.match(text, /^source written to +-$/m);
    assert.match(text, /^limits +-$/m, 'they were not looked at');
    assert.deepEqual({ ...record(api.lastRequest) }, { sandboxId: 'sb1', volumeId: 'a', fresh: true });
  });

  it('as JSON: what is missing is missing, and nothing of the loader is in it', async () => {
    await using api = await FakeApi.start();
    api.answer('Stats.Get', () => ({ volumes: [volume('a', 0.5, 10)] }));
    const told = record(await runJson(api, 'stats', 'sb1', 'a', '--last'));
    assert.equal(told['writtenTo'], 1_048_576);
    assert.equal('idleNs' in told, false);
    assert.deepEqual(
      Object.keys(told).filter((name) => name.startsWith('_')),
      [],
    );
    assert.equal(record(api.lastRequest)['fresh'], false);
  });
});
