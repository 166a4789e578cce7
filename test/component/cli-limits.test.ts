import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { UNLIMITED } from '../../src/volume/model/limits.ts';
import { FakeApi } from '../support/fake-api.ts';
import { run } from '../support/run-qshim.ts';

/** `qshim volume limit`, and the same options of attach, against an API that only takes them down. */

const MIB = 1024 * 1024;
const NONE = { ...UNLIMITED, budget: '', share: 0 };

function limitsOf(request: unknown): object {
  const { limits, spec } = request as { readonly limits?: object; readonly spec?: { readonly limits: object } };
  return spec?.limits ?? limits ?? {};
}

describe('limits on the command line', { timeout: 60_000 }, () => {
  it('rates, bursts and groups are sent as they are meant; what is not given is not', async () => {
    await using api = await FakeApi.start();
    const cases: readonly [readonly string[], object][] = [
      [['--bps', '20M', '--iops', '500'], { bps: 20 * MIB, iops: 500 }],
      [['--bps-write', '10M:40M:5'], { bpsWrite: 10 * MIB, bpsWriteMax: 40 * MIB, bpsWriteMaxLengthS: 5 }],
      [['--iops-read', '10:20', '--iops-size', '16K'], { iopsRead: 10, iopsReadMax: 20, iopsSize: 16_384 }],
      [['--bps-read', '1M', '--limit-group', 'disks'], { bpsRead: MIB, group: 'disks' }],
      [['--budget', 'tenant', '--share', '3'], { budget: 'tenant', share: 3 }],
      [['--none'], {}],
    ];
    for (const [options, sent] of cases) {
      const set = await run(['volume', 'limit', 'sb1', 'vol1', ...options], { socket: api.socketPath });
      assert.equal(set.exitCode, 0, set.stderr);
      assert.deepEqual({ ...NONE, ...limitsOf(api.lastRequest) }, { ...NONE, ...sent });
      if (options[0] === '--none') continue;
      const attach = ['volume', 'attach', 'sb1', 'vol1', '--raw', '/a.img', ...options];
      const attached = await run(attach, { socket: api.socketPath });
      assert.equal(attached.exitCode, 0, attached.stderr);
      assert.deepEqual({ ...NONE, ...limitsOf(api.lastRequest) }, { ...NONE, ...sent });
    }
  });

  it('the answer is what the volume is held to', async () => {
    await using api = await FakeApi.start();
    const limits = { ...UNLIMITED, bps: MIB, bpsMax: 2 * MIB, bpsMaxLengthS: 3, group: 'disks' };
    api.answer('Volumes.SetLimits', () => ({ sandboxId: 'sb1', volumeId: 'vol1', limits }));
    const { stdout } = await run(['volume', 'limit', 'sb1', 'vol1', '--bps', '1M'], { socket: api.socketPath });
    assert.match(stdout.toString(), /vol1 of sb1: limits bps .*\/s \(.* for 3 s\), shared in group disks/);
  });

  it('wrong use exits with 2, and asks nothing of the daemon', async () => {
    await using api = await FakeApi.start();
    const wrong = [
      [],
      ['--none', '--bps', '1M'],
      ['--limit-group', 'a'],
      ['--share', '2'],
      ['--budget', 'a', '--bps', '1M'],
      ['--bps', '0'],
      ['--bps', '1M:2M:3:4'],
      ['--iops', 'x'],
    ];
    for (const options of wrong) {
      const { exitCode } = await run(['volume', 'limit', 'sb1', 'vol1', ...options], { socket: api.socketPath });
      assert.equal(exitCode, 2, options.join(' '));
    }
    assert.equal(api.lastRequest, undefined);
  });

  it('budgets are set, shown with what each volume has of them, listed and deleted', async () => {
    await using api = await FakeApi.start();
    const socket = { socket: api.socketPath };
    const set = await run(['budget', 'set', 'tenant', '--bps', '8M'], socket);
    assert.equal(set.exitCode, 0, set.stderr);
    assert.deepEqual(api.lastRequest, { name: 'tenant', iops: 0, bps: 8 * MIB });
    assert.match(set.stdout.toString(), /^tenant: iops -, bps 8.*\/s$/m);
    assert.match(set.stdout.toString(), /^sb1 +vol1 +3 +- +8.*\/s$/m);
    assert.match((await run(['budget', 'list'], socket)).stdout.toString(), /^tenant +- +8.*\/s +1$/m);
    assert.equal((await run(['budget', 'get', 'tenant'], socket)).exitCode, 0);
    assert.match((await run(['budget', 'delete', 'tenant'], socket)).stdout.toString(), /tenant: deleted/);
  });
});
