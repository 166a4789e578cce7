/** The batch commands of bin/qshim against a daemon with canned answers. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FakeApi, VOLUME } from '../support/fake-api.ts';
import { record, run, runJson } from '../support/run-qshim.ts';

const LIST = [
  { volumeId: 'vol1', spec: { rawFile: { path: 'a.img' } } },
  { volumeId: 'vol2', spec: { qcow2File: { path: '/v/b.qcow2' }, readOnly: true } },
];
const FULL = { code: 'RESOURCE_EXHAUSTED', reason: 'NO_SLOT', message: 'all 2 volume slots are taken', metadata: {} };
const RESULTS = [
  { volumeId: 'vol1', volume: VOLUME, problem: null },
  { volumeId: 'vol2', volume: null, problem: FULL },
];

async function listFile(): Promise<{ readonly directory: string } & AsyncDisposable> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-list-'));
  await writeFile(join(directory, 'list.json'), JSON.stringify(LIST));
  return { directory, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

describe('batches', () => {
  it('attach-many sends the list with absolute paths, and tells of each volume; the first problem is the exit code', async () => {
    await using api = await FakeApi.start();
    await using list = await listFile();
    api.answer('Volumes.AttachMany', () => ({ results: RESULTS }));
    const { exitCode, stdout } = await run(['volume', 'attach-many', 'sb1', 'list.json', '--atomic'], {
      socket: api.socketPath,
      cwd: list.directory,
    });
    assert.equal(exitCode, 8);
    assert.match(stdout.toString(), /^VOLUME +STATE.*\nvol1 +attached +\/dev\/vdb +-.*\nvol2 +- +- +all 2 .*NO_SLOT/);
    const request = record(api.lastRequest);
    assert.equal(request['atomic'], true);
    const [first, second] = request['volumes'] as Record<string, unknown>[];
    assert.deepEqual(record(record(first?.['spec'])['rawFile']), { path: join(list.directory, 'a.img') });
    assert.equal(record(second?.['spec'])['readOnly'], true);
  });

  it('a list may come on standard input; JSON is passed on', async () => {
    await using api = await FakeApi.start();
    api.answer('Volumes.AttachMany', () => ({ results: RESULTS.slice(0, 1) }));
    const { exitCode, stdout } = await run(['--json', 'volume', 'attach-many', 'sb1', '-'], {
      socket: api.socketPath,
      input: Buffer.from(JSON.stringify(LIST.slice(0, 1))),
    });
    assert.equal(exitCode, 0);
    assert.partialDeepStrictEqual(JSON.parse(stdout.toString()), { results: [{ volumeId: 'vol1', problem: null }] });
  });

  it('detach-many names the volumes', async () => {
    await using api = await FakeApi.start();
    api.answer('Volumes.DetachMany', () => ({ results: [] }));
    await runJson(api, 'volume', 'detach-many', 'sb1', 'a', 'b', '--force', '--timeout', '100');
    assert.deepEqual(
      { ...record(api.lastRequest) },
      {
        sandboxId: 'sb1',
        volumeIds: ['a', 'b'],
        force: true,
        timeoutMs: 100,
      },
    );
  });

  it('a plan shows slot, graph, commands and problems, and exits as the attach would', async () => {
    await using api = await FakeApi.start();
    await using list = await listFile();
    const steps = [
      { kind: 'add-device', command: 'device_add', arguments: '{"id":"vol-1-vol1"}' },
      { kind: 'await-driver' },
    ];
    api.answer('Volumes.Plan', () => ({
      volumes: [{ volumeId: 'vol1', pciPath: '10/01', blockGraph: ['disk', 'file'], steps, problems: [FULL] }],
    }));
    const { exitCode, stdout } = await run(['volume', 'plan', 'sb1', join(list.directory, 'list.json')], {
      socket: api.socketPath,
    });
    assert.equal(exitCode, 8);
    assert.equal(
      stdout.toString(),
      [
        'vol1: slot 10/01',
        '  disk > file',
        '  add-device: device_add {"id":"vol-1-vol1"}',
        '  await-driver',
        '  would fail: all 2 volume slots are taken (NO_SLOT)',
        '',
      ].join('\n'),
    );
  });

  for (const [input, message] of [
    ['{', /is not JSON/],
    ['{}', /is not a JSON array/],
    ['[{"spec":{}}]', /volume 1 of the list has no volumeId/],
    ['[{"volumeId":"a"}]', /has no spec/],
    ['[{"volumeId":"a","spec":{},"raw":1}]', /has a field "raw"/],
  ] as const) {
    it(`a list that is none exits with 2: ${input}`, async () => {
      await using api = await FakeApi.start();
      const { exitCode, stderr } = await run(['volume', 'plan', 'sb1', '-'], {
        socket: api.socketPath,
        input: Buffer.from(input),
      });
      assert.equal(exitCode, 2);
      assert.match(stderr, message);
      assert.equal(api.calls.length, 0);
    });
  }
});
