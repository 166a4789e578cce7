import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createLogger, silentLogger, type Logger } from '../../src/base/log.ts';
import { probeCapabilities, type ProbeOptions } from '../../src/qmp/capabilities.ts';
import type { QemuCapabilities } from '../../src/qmp/qemu-capabilities.ts';
import { QMP_CONTRACT } from '../../src/qmp/contract.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { schemaOfContract } from '../support/contract-schema.ts';
import { FakeQemuModel } from '../support/fake-qemu-model.ts';
import { FakeQmp, type FakeQmpOptions } from '../support/fake-qmp.ts';

/** A fake QEMU with a "binary", a cache directory, and a probe that forgets its memory unless told otherwise. */
class Bench implements AsyncDisposable {
  readonly fake: FakeQmp;
  readonly directory: string;
  readonly warnings: string[] = [];
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
    const { binary, cacheDir, log } = this;
    return await probeCapabilities(qmp, { binary, cacheDir, log, memory: new Map(), ...options });
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
    assert.equal(found.virtioStatus, true);
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

  it('a binary without io_uring and x-query-virtio-status: the features are off, the lack is one warning', async () => {
    await using bench = await Bench.make();
    const schema = schemaOfContract()
      .filter((info) => info.name !== 'x-query-virtio-status')
      .map((info) => (info.name === 'aio' ? { ...info, values: ['threads'] } : info));
    bench.fake.on('query-qmp-schema', () => schema);
    const found = await bench.probe();
    assert.deepEqual([found.ioUring, found.virtioStatus], [false, false]);
    assert.deepEqual(found.contractFindings, ['x-query-virtio-status: command is not in the schema']);
    assert.equal(bench.warnings.length, 1);
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
    const memory = new Map<string, QemuCapabilities>();
    await using qmp = await QmpClient.connect({ path: bench.fake.path, log: silentLogger() });
    const options = { binary: bench.binary, log: bench.log, memory };
    const first = await probeCapabilities(qmp, options);
    assert.equal(await probeCapabilities(qmp, options), first);
    assert.equal(bench.schemaQueries, 1);
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
    const found = await probeCapabilities(qmp, {
      binary: bench.binary,
      cacheDir: bench.cacheDir,
      log: bench.log,
      memory: new Map(),
    });
    assert.equal(found.versionText, '7.2.23');
    assert.equal(newer.receivedOf('query-qmp-schema').length, 1);
  });

  const damages: [string, (text: string) => string][] = [
    ['cut short', (text) => text.slice(0, text.length / 2)],
    ['empty', () => ''],
    ['of another shape', (text) => text.replace('"ioUring":true', '"ioUring":"yes"')],
    ['of another format', (text) => text.replace('"format":1', '"format":0')],
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
    const memory = new Map<string, QemuCapabilities>();
    const options = { binary: join(bench.directory, 'gone'), memory };
    await bench.probe(options);
    await bench.probe(options);
    assert.equal(bench.schemaQueries, 2);
    assert.equal(memory.size, 0);
    await assert.rejects(readdir(bench.cacheDir), { code: 'ENOENT' });
  });
});
