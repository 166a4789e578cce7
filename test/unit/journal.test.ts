import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createLogger, silentLogger, type Logger } from '../../src/base/log.ts';
import { reasonRead } from '../../src/base/reasons.ts';
import { SLOTS_PER_BRIDGE, VOLUME_CAPACITY_MAX, slotAt } from '../../src/volume/model/slots.ts';
import { EVIDENCE, type VolumeState } from '../../src/volume/model/state.ts';
import { Journal, readJournal, type JournalRecord } from '../../src/store/journal.ts';
import type { VolumeRecord } from '../../src/volume/record.ts';
import { encryptionSpec, encryptionView } from '../support/arbitrary-encryption.ts';

class Scratch implements AsyncDisposable {
  readonly directory: string;
  readonly logged: string[] = [];
  readonly log: Logger = createLogger('debug', { write: (line: string) => void this.logged.push(line) });

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Scratch> {
    return new Scratch(await mkdtemp(join(tmpdir(), 'qshim-journal-')));
  }

  get path(): string {
    return join(this.directory, 'state.json');
  }

  read(): Promise<JournalRecord | undefined> {
    return readJournal(this.path, this.log);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

function record(generation: number, volumes: readonly VolumeRecord[] = []): JournalRecord {
  return {
    version: 1,
    sandbox: {
      id: 'one',
      spec: {
        vcpus: 1,
        memoryMib: 256,
        kernel: '/k',
        initrd: '/i',
        kernelParameters: '',
        accelerator: 'auto',
        volumeCapacity: 62,
        iothreads: 2,
        labels: { a: 'b' },
        readyWhen: 'agent',
        template: 'auto',
      },
      uuid: '6f1c24e8-0000-4000-8000-000000000000',
      createdAtMs: 1,
      accelerator: 'tcg',
      acceleratorReason: 'asked for',
      state: 'running',
      cause: undefined,
      process: { pid: 7, startTicks: 8 },
      nextGeneration: generation,
      timings: [{ phase: 'spawn', milliseconds: 1.5 }],
      start: { kind: 'clone', templateId: '0123', reason: '' },
    },
    volumes,
    ports: [{ nr: 3, kind: 'output', ended: false }],
    containers: { eventsPort: 3, processes: [] },
  };
}

describe('journal writes', () => {
  it('what was written is read back; the file is for its owner only, and no temporary file stays', async () => {
    await using scratch = await Scratch.make();
    await new Journal(scratch.path, () => record(1)).commit();
    assert.deepEqual(await scratch.read(), record(1));
    assert.equal((await stat(scratch.path)).mode & 0o777, 0o600);
    assert.deepEqual(await readdir(scratch.directory), ['state.json']);
  });

  it('a commit resolves only with a record on disk that was rendered after the call', async () => {
    await using scratch = await Scratch.make();
    let now = 0;
    const journal = new Journal(scratch.path, () => record(now));
    const commits = Array.from({ length: 40 }, async (_, index) => {
      for (let turn = 0; turn < index % 7; turn += 1) await Promise.resolve();
      now += 1;
      const mine = now;
      await journal.commit();
      const found = await scratch.read();
      assert.ok((found?.sandbox.nextGeneration ?? -1) >= mine, `commit ${mine} is on disk`);
    });
    await Promise.all(commits);
    assert.equal((await scratch.read())?.sandbox.nextGeneration, 40);
  });

  it('commits that come together share a write: two for any number at once', async () => {
    await using scratch = await Scratch.make();
    let renders = 0;
    const journal = new Journal(scratch.path, () => record((renders += 1)));
    await Promise.all(Array.from({ length: 100 }, () => journal.commit()));
    assert.equal(renders, 2);
    await journal.commit();
    assert.equal(renders, 3);
  });

  it('a reader never finds half a record, however often it is written', async () => {
    await using scratch = await Scratch.make();
    let now = 0;
    const big = 'x'.repeat(300_000);
    const journal = new Journal(scratch.path, () => {
      const base = record(now);
      return { ...base, sandbox: { ...base.sandbox, acceleratorReason: big.slice(0, now * 20_000) } };
    });
    await journal.commit();
    let writing = true;
    const reader = async (): Promise<number> => {
      let reads = 0;
      for (; writing; reads += 1) assert.ok((await scratch.read()) !== undefined);
      return reads;
    };
    const reads = reader();
    for (now = 1; now <= 15; now += 1) await journal.commit();
    writing = false;
    assert.ok((await reads) > 0);
    assert.deepEqual(await readdir(scratch.directory), ['state.json'], 'nothing was set aside');
  });

  it('a write that fails rejects every commit that shared it, keeps the old record, and the next one may succeed', async () => {
    await using scratch = await Scratch.make();
    let now = 1;
    const journal = new Journal(scratch.path, () => record(now));
    await journal.commit();
    // In the temporary file's place: even root cannot write a directory.
    await mkdir(`${scratch.path}.new`);
    now = 2;
    const refused = {
      code: 'UNAVAILABLE',
      reason: 'JOURNAL_WRITE_FAILED',
      metadata: { path: scratch.path, errno: 'EISDIR' },
    };
    await Promise.all([1, 2, 3].map(() => assert.rejects(journal.commit(), refused)));
    assert.equal((await scratch.read())?.sandbox.nextGeneration, 1);
    await rm(`${scratch.path}.new`, { recursive: true });
    await journal.commit();
    assert.equal((await scratch.read())?.sandbox.nextGeneration, 2);
  });

  it('a directory that vanished is JOURNAL_WRITE_FAILED, too', async () => {
    await using scratch = await Scratch.make();
    const journal = new Journal(join(scratch.directory, 'gone/state.json'), () => record(1));
    await assert.rejects(journal.commit(), { code: 'UNAVAILABLE', reason: 'JOURNAL_WRITE_FAILED' });
  });

  it('a full disk fails the commit and keeps the old record', async (context) => {
    await using scratch = await Scratch.make();
    using mounted = tinyTmpfs(scratch.directory);
    if (mounted === undefined) {
      context.skip('no tmpfs can be mounted here (needs root with CAP_SYS_ADMIN)');
      return;
    }
    let reason = 'small';
    const journal = new Journal(scratch.path, () => {
      const base = record(1);
      return { ...base, sandbox: { ...base.sandbox, acceleratorReason: reason } };
    });
    await journal.commit();
    reason = 'x'.repeat(1_000_000);
    await assert.rejects(journal.commit(), {
      code: 'UNAVAILABLE',
      reason: 'JOURNAL_WRITE_FAILED',
      metadata: { path: scratch.path, errno: 'ENOSPC' },
    });
    assert.equal((await scratch.read())?.sandbox.acceleratorReason, 'small');
    reason = 'small again';
    await journal.commit();
    assert.equal((await scratch.read())?.sandbox.acceleratorReason, 'small again');
  });
});

/** 64 KiB of tmpfs on the directory; undefined when this process may not mount. */
function tinyTmpfs(directory: string): Disposable | undefined {
  const options = ['-t', 'tmpfs', '-o', 'size=64k', 'qshim-test', directory];
  if (spawnSync('mount', options, { stdio: 'ignore' }).status !== 0) return undefined;
  return { [Symbol.dispose]: () => void spawnSync('umount', ['-l', directory]) };
}

const text = fc.string({ maxLength: 30 });
/** Journals of other versions have reasons that this one does not know. */
const cause = fc.record({ reason: text.map(reasonRead), message: text });
const slot = fc.integer({ min: 0, max: VOLUME_CAPACITY_MAX - 1 }).map(slotAt);
const maybe = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined });
const guest = fc.record({
  pciAddress: maybe(text),
  device: maybe(text),
  evidence: fc.array(fc.constantFrom(...EVIDENCE), { maxLength: 3 }),
  formatted: fc.boolean(),
});
const state: fc.Arbitrary<VolumeState> = fc.oneof(
  fc.record({ state: fc.constant('pending' as const), phase: fc.constant('attaching' as const), slot }),
  fc.record({ state: fc.constant('pending' as const), phase: fc.constant('undoing' as const), slot, cause }),
  fc.record({ state: fc.constant('attached' as const), slot, guest, refused: maybe(cause) }),
  fc.record({
    state: fc.constant('detaching' as const),
    slot,
    guest,
    force: fc.boolean(),
    deviceGone: fc.boolean(),
    cause,
  }),
  fc.record({ state: fc.constant('removed' as const), cause }),
);
const mount = fc.record({
  fsType: fc.constantFrom('ext4' as const, 'xfs' as const),
  mountPoint: text,
  options: fc.array(text, { maxLength: 3 }),
  format: fc.constantFrom('never' as const, 'if_empty' as const),
});
const volume: fc.Arbitrary<VolumeRecord> = fc.record({
  volumeId: text,
  generation: fc.nat(),
  spec: fc.record({
    source: fc.record({
      kind: fc.constantFrom('raw-file' as const, 'qcow2-file' as const, 'block-device' as const),
      path: text,
    }),
    readOnly: fc.boolean(),
    cache: fc.constantFrom('none' as const, 'writeback' as const, 'writethrough' as const, 'directsync' as const),
    aio: fc.constantFrom('auto' as const, 'threads' as const, 'native' as const, 'io_uring' as const),
    discard: fc.constantFrom('ignore' as const, 'unmap' as const),
    detectZeroes: fc.constantFrom('off' as const, 'on' as const, 'unmap' as const),
    serial: text,
    queues: fc.nat(1024),
    logicalBlockSize: fc.constantFrom(512, 4096),
    physicalBlockSize: fc.constantFrom(512, 4096),
    mount: maybe(mount),
    writeErrors: fc.constantFrom(...(['report', 'ignore', 'stop', 'enospc'] as const)),
    readErrors: fc.constantFrom(...(['report', 'ignore', 'stop'] as const)),
    encryption: encryptionSpec,
  }),
  slot,
  placement: fc.record({ vectors: fc.nat(1024), iothreads: fc.array(text, { maxLength: 3 }) }),
  backingIdentity: text,
  resolvedPath: text,
  sizeBytes: fc.nat(),
  state,
  times: fc.record({
    pending: fc.nat(),
    attached: maybe(fc.nat()),
    detaching: maybe(fc.nat()),
    removed: maybe(fc.nat()),
  }),
  aio: maybe(fc.constantFrom('threads' as const, 'native' as const, 'io_uring' as const)),
  mounted: fc.boolean(),
  encryption: encryptionView,
  creating: maybe(fc.record({ sourceBytes: fc.nat() })),
});

describe('journal round trip', () => {
  it('every volume, in every state, comes back as it was', async () => {
    await using scratch = await Scratch.make();
    await fc.assert(
      fc.asyncProperty(fc.array(volume, { maxLength: 4 }), fc.nat(), async (volumes, generation) => {
        // fast-check makes some objects without a prototype; a clone has one.
        const written = structuredClone(record(generation, volumes));
        await new Journal(scratch.path, () => written).commit();
        assert.deepEqual(await scratch.read(), written);
      }),
      { numRuns: 150 },
    );
  });
});

/** The text of a good record, changed. */
function changed(change: (text: string) => string): string {
  const pending: VolumeRecord['state'] = { state: 'pending', phase: 'attaching', slot: slotAt(0) };
  const [one] = fc.sample(volume, { numRuns: 1, seed: 1 });
  assert.ok(one !== undefined);
  const good = JSON.stringify(record(1, [{ ...one, state: pending }]));
  const bad = change(good);
  assert.notEqual(bad, good);
  return bad;
}

describe('journals that cannot be understood', () => {
  const CASES: readonly [string, string | Uint8Array][] = [
    ['empty', ''],
    ['half-written', changed((good) => good.slice(0, good.length / 2))],
    ['of no version that there was', changed((good) => good.replace('"version":1', '"version":0'))],
    ['with a minor that is no version', changed((good) => good.replace('"version":1', '"version":1,"minor":"2"'))],
    ['with a state that is none', changed((good) => good.replace('"attaching"', 'null'))],
    ['without a member that must be there', changed((good) => good.replace(/"uuid":"[^"]*",/, ''))],
    [
      'with a slot that no bridge has',
      changed((good) => good.replaceAll('"device":1}', `"device":${SLOTS_PER_BRIDGE + 1}}`)),
    ],
    ['not JSON at all', Uint8Array.of(0, 1, 2, 255)],
    ['of JSON that is no record', 'null'],
  ];
  for (const [name, content] of CASES) {
    it(`${name}: set aside, whole, and its new name is in the log`, async () => {
      await using scratch = await Scratch.make();
      await writeFile(scratch.path, content);
      assert.equal(await scratch.read(), undefined);
      const [aside, ...others] = await readdir(scratch.directory);
      assert.match(aside ?? '', /^state\.json\.corrupt-\d+$/);
      assert.deepEqual(others, []);
      assert.deepEqual(await readFile(join(scratch.directory, aside ?? '')), Buffer.from(content));
      const line = scratch.logged.find((each) => each.includes('set aside'));
      assert.ok(line?.includes(aside ?? '') && line.includes('"level":"error"'), 'named in the log');
    });
  }

  it('no journal is nothing to set aside', async () => {
    await using scratch = await Scratch.make();
    assert.equal(await scratch.read(), undefined);
    assert.deepEqual([await readdir(scratch.directory), scratch.logged], [[], []]);
  });

  it('a journal that cannot be read at all is an error, not an empty sandbox', async () => {
    await using scratch = await Scratch.make();
    await mkdir(scratch.path);
    await assert.rejects(readJournal(scratch.path, silentLogger()), { code: 'EISDIR' });
    assert.deepEqual(await readdir(scratch.directory), ['state.json']);
  });
});
