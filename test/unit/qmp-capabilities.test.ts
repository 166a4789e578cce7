import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createLogger, silentLogger, type Logger } from '../../src/base/log.ts';
import { probeCapabilities, ProbeMemory, type ProbeOptions } from '../../src/qmp/capabilities.ts';
import {
  TRIED_COMMANDS,
  type QemuCapabilities,
  type Trial,
  type TriedCommand,
} from '../../src/qmp/qemu-capabilities.ts';
import { QMP_CONTRACT } from '../../src/qmp/contract.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { schemaOfContract } from '../support/contract-schema.ts';
import { FakeQemuModel } from '../support/fake-qemu-model.ts';
import { FakeQmp, type FakeQmpOptions } from '../support/fake-qmp.ts';

const STATUS = 'x-query-virtio-status';
const AMEND = 'x-blockdev-amend';
const WORKS: Trial = { outcome: 'works', detail: '' };

/** A fake QEMU with a "binary", a cache directory, and a probe that forgets its memory unless told otherwise. */
class Bench implements AsyncDisposable {
  readonly fake: FakeQmp;
  readonly directory: string;
  readonly warnings: string[] = [];
  /** The commands that were tried, in their order. */
  readonly tried: TriedCommand[] = [];
  /** What comes of a trial. */
  trial: Trial | Error = WORKS;
  readonly log: Logger;

  private constructor(fake: FakeQmp, directory: string) {
    this.fake = fake;
    this.directory = directory;
    this.log = createLogger('warn', { write: (line: string) => void this.warnings.push(line) });
  }

  static async make(options: FakeQmpOptions = {}): Promise<Bench> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-capabilities-'));
    const fake = await FakeQmp.listen(options);
    new FakeQemuModel(fake);
    await writeFile(join(directory, 'qemu'), 'a binary');
    return new Bench(fake, directory);
  }

  get binary(): string {
    return join(this.directory, 'qemu');
  }

  get cacheDir(): string {
    return join(this.directory, 'cache');
  }

  get schemaQueries(): number {
    return this.fake.receivedOf('query-qmp-schema').length;
  }

  async probe(options: Partial<ProbeOptions> = {}): Promise<QemuCapabilities> {
    await using qmp = await QmpClient.connect({ path: this.fake.path, log: silentLogger() });
    return await probeCapabilities(qmp, { ...this.options, cacheDir: this.cacheDir, ...options });
  }

  /** Without a cache directory. */
  get options(): ProbeOptions {
    const { binary, log } = this;
    return {
      binary,
      log,
      memory: new ProbeMemory(),
      needed: [STATUS],
      tryOut: (_, commands) => this.#tryOut(commands),
    };
  }

  #tryOut(commands: readonly TriedCommand[]): Promise<Partial<Record<TriedCommand, Trial>>> {
    this.tried.push(...commands);
    const { trial } = this;
    if (trial instanceof Error) return Promise.reject(trial);
    return Promise.resolve(Object.fromEntries(commands.map((command) => [command, trial])));
  }

  async cacheFile(): Promise<string> {
    const [file, ...others] = await readdir(this.cacheDir);
    assert.ok(file !== undefined && others.length === 0, 'exactly one cache file');
    return join(this.cacheDir, file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fake[Symbol.asyncDispose]();
    await rm(this.directory, { recursive: true });
  }
}

describe('qmp capabilities', () => {
  it('version, commands, events and features come from the greeting and the schema', async () => {
    await using bench = await Bench.make();
    const found = await bench.probe();
    assert.equal(found.versionText, '7.2.22');
    assert.ok(found.commands.has('device_add') && found.events.has('DEVICE_DELETED'));
    assert.ok(!found.commands.has('DEVICE_DELETED'));
    assert.deepEqual(found.blockDrivers, new Set(Object.keys(QMP_CONTRACT.commands['blockdev-add'].cases)));
    assert.equal(found.ioUring, true);
    assert.deepEqual(found.trials, { [STATUS]: WORKS });
    assert.equal(found.iothreadVqMapping, false);
    assert.equal(found.runWithUser, false);
    assert.deepEqual(found.contractFindings, []);
    assert.deepEqual(bench.warnings, []);
  });

  it('what the version decides', async () => {
    for (const [minor, iothreads, user] of [
      [0, true, false],
      [1, true, true],
    ] as const) {
      await using bench = await Bench.make({ version: [9, minor, 0] });
      const found = await bench.probe();
      assert.deepEqual([found.iothreadVqMapping, found.runWithUser], [iothreads, user]);
    }
  });

  it('a binary without io_uring and x-query-virtio-status: the features are off, with a warning', async () => {
    await using bench = await Bench.make();
    const schema = schemaOfContract()
      .filter((info) => info.name !== 'x-query-virtio-status')
      .map((info) => (info.name === 'aio' ? { ...info, values: ['threads'] } : info));
    bench.fake.on('query-qmp-schema', () => schema);
    const found = await bench.probe();
    assert.equal(found.ioUring, false);
    assert.equal(found.trials[STATUS]?.outcome, 'refused');
    assert.deepEqual(bench.tried, [], 'what is not there is not tried');
    assert.deepEqual(found.contractFindings, ['x-query-virtio-status: command is not in the schema']);
    assert.equal(bench.warnings.length, 2, 'what is missing, and what is done without');
  });

  for (const version of [
    [7, 1, 99],
    [6, 2, 0],
  ] as const) {
    it(`QEMU ${version.join('.')} is refused before anything is asked`, async () => {
      await using bench = await Bench.make({ version });
      await assert.rejects(bench.probe(), {
        code: 'UNIMPLEMENTED',
        reason: 'QEMU_TOO_OLD',
        message: new RegExp(`${version.join('\\.')}.*7\\.2`),
        metadata: { version: version.join('.'), oldest: '7.2' },
      });
      assert.equal(bench.schemaQueries, 0);
    });
  }
});

describe('qmp capability cache', () => {
  it('memory answers the second probe, also without a cache directory', async () => {
    await using bench = await Bench.make();
    await using qmp = await QmpClient.connect({ path: bench.fake.path, log: silentLogger() });
    const { options } = bench;
    const first = await probeCapabilities(qmp, options);
    assert.deepEqual(await probeCapabilities(qmp, options), first);
    assert.equal(bench.schemaQueries, 1);
    assert.deepEqual(bench.tried, [STATUS]);
  });

  it('the disk answers another process, with the same content, through a symbolic link too', async () => {
    await using bench = await Bench.make();
    const first = await bench.probe();
    await symlink(bench.binary, join(bench.directory, 'link'));
    assert.deepEqual(await bench.probe({ binary: join(bench.directory, 'link') }), first);
    assert.equal(bench.schemaQueries, 1);
    const { mode } = await stat(await bench.cacheFile());
    assert.equal(mode & 0o777, 0o600);
    assert.equal((await stat(bench.cacheDir)).mode & 0o777, 0o700);
  });

  it('another time, size or version of the binary is asked anew', async () => {
    await using bench = await Bench.make();
    await bench.probe();
    await utimes(bench.binary, new Date(1_000_000), new Date(1_000_000));
    await bench.probe();
    assert.equal(bench.schemaQueries, 2);
    await writeFile(bench.binary, 'a longer binary');
    await utimes(bench.binary, new Date(1_000_000), new Date(1_000_000));
    await bench.probe();
    assert.equal(bench.schemaQueries, 3);
    await using newer = await FakeQmp.listen({ version: [7, 2, 23] });
    new FakeQemuModel(newer);
    await using qmp = await QmpClient.connect({ path: newer.path, log: silentLogger() });
    const found = await probeCapabilities(qmp, { ...bench.options, cacheDir: bench.cacheDir });
    assert.equal(found.versionText, '7.2.23');
    assert.equal(newer.receivedOf('query-qmp-schema').length, 1);
  });

  const damages: [string, (text: string) => string][] = [
    ['cut short', (text) => text.slice(0, text.length / 2)],
    ['empty', () => ''],
    ['of another shape', (text) => text.replace('"ioUring":true', '"ioUring":"yes"')],
    ['of another format', (text) => text.replace('"format":2', '"format":1')],
    ['of another binary', (text) => text.replace('"key":"', '"key":"x')],
  ];
  for (const [name, damage] of damages) {
    it(`a file that is ${name} is ignored with a warning, and replaced`, async () => {
      await using bench = await Bench.make();
      const first = await bench.probe();
      const path = await bench.cacheFile();
      const text = await readFile(path, 'utf8');
      assert.notEqual(damage(text), text);
      await writeFile(path, damage(text));
      assert.deepEqual(await bench.probe(), first);
      assert.equal(bench.schemaQueries, 2);
      assert.equal(bench.warnings.length, 1);
      assert.equal(await readFile(await bench.cacheFile(), 'utf8'), text);
    });
  }

  it('a cache that cannot be written costs a warning, not the result', async () => {
    await using bench = await Bench.make();
    const found = await bench.probe({ cacheDir: join(bench.binary, 'not-a-directory') });
    assert.equal(found.ioUring, true);
    assert.ok(bench.warnings.length > 0);
  });

  it('a binary that has gone is asked each time and cached nowhere', async () => {
    await using bench = await Bench.make();
    const memory = new ProbeMemory();
    const options = { binary: join(bench.directory, 'gone'), memory };
    await bench.probe(options);
    await bench.probe(options);
    assert.equal(bench.schemaQueries, 2);
    assert.equal(memory.size, 0);
    assert.deepEqual(bench.tried, [], 'whether another binary survives a command says nothing');
    await assert.rejects(readdir(bench.cacheDir), { code: 'ENOENT' });
  });
});

describe('what QEMU survives', () => {
  it('every command that QEMU calls experimental is among those that are tried', () => {
    const experimental = Object.keys(QMP_CONTRACT.commands).filter((name) => name.startsWith('x-'));
    assert.deepEqual(experimental.sort(), [...TRIED_COMMANDS].sort());
  });

  it('is found out once, and outlives the daemon', async () => {
    await using bench = await Bench.make();
    bench.trial = { outcome: 'fatal', detail: 'QEMU was ended by SIGABRT' };
    for (let daemon = 0; daemon < 2; daemon += 1) {
      assert.deepEqual((await bench.probe()).trials, { [STATUS]: bench.trial });
    }
    assert.deepEqual(bench.tried, [STATUS]);
    assert.equal(bench.warnings.length, 1);
    assert.match(bench.warnings.join(), /x-query-virtio-status.*fatal.*SIGABRT/);
  });

  it('what is needed later is tried then, and kept with the rest', async () => {
    await using bench = await Bench.make();
    await bench.probe();
    for (let daemon = 0; daemon < 2; daemon += 1) {
      const { trials } = await bench.probe({ needed: [STATUS, AMEND] });
      assert.deepEqual(trials, { [STATUS]: WORKS, [AMEND]: WORKS });
    }
    assert.deepEqual(bench.tried, [STATUS, AMEND]);
    assert.equal(bench.schemaQueries, 1);
  });

  it('those who ask at the same time share one trial', async () => {
    await using bench = await Bench.make();
    await using qmp = await QmpClient.connect({ path: bench.fake.path, log: silentLogger() });
    const { options } = bench;
    const found = await Promise.all([1, 2, 3].map(() => probeCapabilities(qmp, options)));
    assert.deepEqual(
      found.map(({ trials }) => trials[STATUS]),
      [WORKS, WORKS, WORKS],
    );
    assert.deepEqual(bench.tried, [STATUS]);
  });

  it('a trial that cannot be made is not a yes, is not kept on disk, and is made again after a minute', async (context) => {
    let nowMs = 1000;
    context.mock.method(performance, 'now', () => nowMs);
    await using bench = await Bench.make();
    bench.trial = new Error('no memory for another VM');
    const memory = new ProbeMemory();
    const outcome = async (): Promise<string | undefined> => (await bench.probe({ memory })).trials[STATUS]?.outcome;
    assert.equal(await outcome(), 'untried');
    assert.ok(!(await readFile(await bench.cacheFile(), 'utf8')).includes('untried'));
    bench.trial = WORKS;
    nowMs += 59_000;
    assert.equal(await outcome(), 'untried', 'not for every VM that is started');
    nowMs += 2000;
    assert.equal(await outcome(), 'works');
    assert.deepEqual(bench.tried, [STATUS, STATUS]);
    assert.ok((await readFile(await bench.cacheFile(), 'utf8')).includes(STATUS));
  });

  it('a file with another inode is another binary, whatever its size and time', async () => {
    await using bench = await Bench.make();
    await utimes(bench.binary, new Date(1_000_000), new Date(1_000_000));
    await bench.probe();
    const copy = join(bench.directory, 'copy');
    await writeFile(copy, await readFile(bench.binary));
    await utimes(copy, new Date(1_000_000), new Date(1_000_000));
    await rename(copy, bench.binary);
    await bench.probe();
    assert.deepEqual(bench.tried, [STATUS, STATUS]);
  });
});
