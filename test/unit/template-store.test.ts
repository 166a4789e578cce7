import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { sleep } from '../../src/base/deadline.ts';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { identify } from '../../src/qemu/process.ts';
import { endHoldersBelow, holdersBelow } from '../support/template-holders.ts';
import {
  TemplateStore,
  type TemplateBuild,
  type TemplateLease,
  type TemplateStoreOptions,
  type TemplateTarget,
} from '../../src/template/store.ts';

const KEYS = ['a', 'b', 'c', 'd'].map((digit) => digit.repeat(64));
const [A = '', B = '', C = '', D = ''] = KEYS;
/** What one template of these tests takes: 8 KiB of memory and 4 KiB of state, in whole pages. */
const ONE = 12_288;
const MEMORY = 8192;

interface Place extends AsyncDisposable {
  readonly directory: string;
  open(options?: Partial<TemplateStoreOptions>): Promise<TemplateStore>;
}

async function place(): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'qshim-templates-'));
  const directory = join(root, 'store');
  return {
    directory,
    open: (options = {}) => TemplateStore.open({ directory, bytesMax: 10 * ONE, log: silentLogger(), ...options }),
    [Symbol.asyncDispose]: async () => {
      await endHoldersBelow(root);
      await rm(root, { recursive: true });
    },
  };
}

function build(key: string, change: Partial<TemplateBuild> = {}): TemplateBuild {
  return { key, keyNow: () => Promise.resolve(key), memoryBytes: MEMORY, make, ...change };
}

async function make({ memory, stateFile }: TemplateTarget): Promise<Record<string, string>> {
  writeSync(memory, Buffer.alloc(MEMORY, 1));
  await writeFile(stateFile, Buffer.alloc(4096, 2));
  return { machineId: '/etc/machine-id' };
}

async function memoryOf(lease: TemplateLease | undefined): Promise<Buffer> {
  assert.ok(lease);
  await using file = await lease.openMemory();
  return await file.readFile();
}

const keysOf = (store: TemplateStore): string[] => store.list().map(({ key }) => key);

describe('template store', () => {
  it('there is none until it was made; then it has its files and notes', async () => {
    await using at = await place();
    await using store = await at.open();
    assert.equal(await store.lookup(A), undefined);
    await store.build(build(A));
    using lease = await store.lookup(A);
    assert.equal(lease?.key, A);
    assert.deepEqual(lease.notes, { machineId: '/etc/machine-id' });
    assert.deepEqual(await memoryOf(lease), Buffer.alloc(MEMORY, 1));
    assert.deepEqual(await readFile(lease.stateFile), Buffer.alloc(4096, 2));
    assert.equal(store.bytes, ONE);
    assert.deepEqual(await readdir(at.directory), [A], 'nothing unfinished is left');
  });

  it('callers that come while it is made wait for that one; it is not made again', async () => {
    await using at = await place();
    await using store = await at.open();
    const go = Promise.withResolvers<void>();
    let made = 0;
    const slowly = build(A, {
      make: async (target) => {
        made += 1;
        await go.promise;
        return make(target);
      },
    });
    const all = Promise.all([store.build(slowly), store.build(slowly), store.build(slowly)]);
    assert.equal(await store.lookup(A), undefined, 'not before it is whole');
    go.resolve();
    await all;
    await store.build(slowly);
    assert.equal(made, 1);
  });

  for (const [what, damage] of [
    ['state cut short', (directory: string) => truncate(join(directory, 'state'), 100)],
    ['state gone', (directory: string) => rm(join(directory, 'state'))],
  ] as const) {
    it(`${what}: it is not handed out, and removed`, async () => {
      await using at = await place();
      await using store = await at.open();
      await store.build(build(A));
      await damage(join(at.directory, A));
      assert.equal(await store.lookup(A), undefined);
      assert.deepEqual(await readdir(at.directory), []);
      await store.build(build(A));
      using again = await store.lookup(A);
      assert.ok(again, 'it can be made anew');
    });
  }

  it('inputs that change while it is made: it is thrown away', async () => {
    await using at = await place();
    await using store = await at.open();
    const changing = build(A, { keyNow: () => Promise.resolve(B) });
    await assert.rejects(store.build(changing), { code: 'ABORTED', reason: 'TEMPLATE_INPUTS_CHANGED' });
    assert.equal(await store.lookup(A), undefined);
    assert.equal(await store.lookup(B), undefined);
    assert.deepEqual(await readdir(at.directory), []);
  });

  it('a failure leaves nothing, and is not repeated for a while', async () => {
    await using at = await place();
    await using store = await at.open({ retryAfterMs: 60_000 });
    let tries = 0;
    const failing = build(A, {
      make: async ({ stateFile }) => {
        tries += 1;
        await writeFile(stateFile, 'half');
        throw new Error('no guest');
      },
    });
    await assert.rejects(store.build(failing), { message: 'no guest' });
    await assert.rejects(store.build(failing), { message: 'no guest' });
    assert.equal(tries, 1);
    assert.deepEqual(await readdir(at.directory), []);
    await using patient = await at.open({ retryAfterMs: 0 });
    await assert.rejects(patient.build(failing), { message: 'no guest' });
    await patient.build(build(A));
    using lease = await patient.lookup(A);
    assert.ok(lease);
  });

  it('its directory was removed: it is made again, and templates with it', async () => {
    await using at = await place();
    await using store = await at.open();
    await store.build(build(A));
    await store.build(build(B));
    await rm(at.directory, { recursive: true });
    assert.equal(await store.lookup(A), undefined);
    await store.build(build(A));
    using lease = await store.lookup(A);
    assert.deepEqual(await memoryOf(lease), Buffer.alloc(MEMORY, 1));
    assert.equal((await stat(at.directory)).mode & 0o777, 0o700);
    assert.equal(store.bytes, ONE, 'what went with the directory takes nothing');
  });

  it('its directory was replaced by one that will not do: nothing is made there', async () => {
    await using at = await place();
    await using store = await at.open({ retryAfterMs: 0 });
    await rm(at.directory, { recursive: true });
    await mkdir(at.directory);
    await chmod(at.directory, 0o755);
    await assert.rejects(store.build(build(A)), { reason: 'TEMPLATE_DIR_UNSAFE' });
    await chmod(at.directory, 0o700);
    await store.build(build(A));
    assert.deepEqual(keysOf(store), [A]);
  });

  it('above the limit the least recently used goes first', async () => {
    await using at = await place();
    await using store = await at.open({ bytesMax: 2 * ONE });
    await store.build(build(A));
    await store.build(build(B));
    (await store.lookup(A))?.[Symbol.dispose]();
    await store.build(build(C));
    assert.deepEqual(keysOf(store), [A, C]);
    assert.deepEqual((await readdir(at.directory)).sort(), [A, C]);
  });

  it('what is in use stays, however often its lease is given back', async () => {
    await using at = await place();
    await using store = await at.open({ bytesMax: 2 * ONE });
    await store.build(build(A));
    using first = await store.lookup(A);
    using second = await store.lookup(A);
    assert.ok(first !== undefined && second !== undefined);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await store.build(build(B));
    await store.build(build(C));
    assert.deepEqual(keysOf(store), [A, C], 'B was used later, and by nobody now');
    second[Symbol.dispose]();
    await store.build(build(D));
    assert.deepEqual(keysOf(store), [C, D]);
  });

  it('one that alone is above the limit is refused', async () => {
    await using at = await place();
    await using store = await at.open({ bytesMax: ONE - 1 });
    await assert.rejects(store.build(build(A)), { code: 'RESOURCE_EXHAUSTED', reason: 'TEMPLATE_TOO_LARGE' });
    assert.deepEqual(await readdir(at.directory), []);
    assert.deepEqual(await holdersBelow(at.directory), []);
  });

  it('a template from which no clone could be started is discarded', async () => {
    await using at = await place();
    await using store = await at.open();
    await store.build(build(A));
    await store.discard(A, new Error('restore failed'));
    assert.equal(await store.lookup(A), undefined);
    await assert.rejects(store.build(build(A)), { message: 'restore failed' });
  });

  it('closing ends what is being made', async () => {
    await using at = await place();
    const store = await at.open();
    const begun = Promise.withResolvers<void>();
    const endless = build(A, {
      make: async ({ signal }) => {
        begun.resolve();
        const { promise, reject } = Promise.withResolvers<never>();
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        return promise;
      },
    });
    const building = assert.rejects(store.build(endless), { reason: 'TEMPLATE_STORE_CLOSED' });
    const late = assert.rejects(
      begun.promise.then(() => store.build(build(B))),
      { reason: 'TEMPLATE_STORE_CLOSED' },
    );
    await begun.promise;
    await store[Symbol.asyncDispose]();
    await Promise.all([building, late]);
    assert.deepEqual(await readdir(at.directory), []);
    await assert.rejects(store.build(build(B)), ShimError);
  });
});

describe('template store, opened again', () => {
  it('whole templates stay, the oldest the first to go', async () => {
    await using at = await place();
    const before = await at.open();
    for (const key of [B, A, C]) {
      await before.build(build(key));
      // Their age is kept in whole milliseconds.
      await sleep(5);
    }
    await before[Symbol.asyncDispose]();
    await using store = await at.open({ bytesMax: 2 * ONE });
    assert.deepEqual(keysOf(store), [B, A, C], 'none goes before it is known who uses them');
    await store.trim();
    assert.deepEqual(keysOf(store), [A, C]);
    using lease = await store.lookup(A);
    assert.ok(lease);
  });

  it('what was too much and in use goes with its last user', async () => {
    await using at = await place();
    const before = await at.open();
    await before.build(build(A));
    await before[Symbol.asyncDispose]();
    const store = await at.open({ bytesMax: ONE - 1 });
    {
      using one = await store.lookup(A);
      using other = await store.lookup(A);
      assert.ok(one && other);
      await store.trim();
      one[Symbol.dispose]();
      one[Symbol.dispose]();
      assert.deepEqual(keysOf(store), [A]);
    }
    await store[Symbol.asyncDispose]();
    assert.deepEqual(await readdir(at.directory), []);
  });

  it('what a maker that died has left is told before it is removed', async () => {
    await using at = await place();
    const left = `building-${process.pid}-1-00000000`;
    await mkdir(join(at.directory, left), { recursive: true, mode: 0o700 });
    const told: string[] = [];
    const abandoned = async (directory: string): Promise<void> => {
      told.push(...(await readdir(directory)), basename(directory));
    };
    await writeFile(join(at.directory, left, 'memory'), '');
    await using _store = await at.open({ abandoned });
    assert.deepEqual(told, ['memory', left]);
    assert.deepEqual(await readdir(at.directory), []);
  });

  it('what is damaged, of another format or without a record is removed', async () => {
    await using at = await place();
    const before = await at.open();
    for (const key of [A, B, C]) await before.build(build(key));
    await before[Symbol.asyncDispose]();
    await truncate(join(at.directory, A, 'state'), 1);
    const record = join(at.directory, B, 'template.json');
    await writeFile(record, (await readFile(record, 'utf8')).replace('"format":2', '"format":1'));
    await rm(join(at.directory, C, 'template.json'));
    await mkdir(join(at.directory, D));
    await using store = await at.open();
    assert.deepEqual(keysOf(store), []);
    assert.deepEqual(await readdir(at.directory), []);
  });

  it('a record under another key is not believed', async () => {
    await using at = await place();
    const before = await at.open();
    await before.build(build(A));
    await before[Symbol.asyncDispose]();
    await mkdir(join(at.directory, B));
    const record = await readFile(join(at.directory, A, 'template.json'));
    await writeFile(join(at.directory, B, 'template.json'), record);
    await using store = await at.open();
    assert.deepEqual(keysOf(store), [A]);
    await mkdir(join(at.directory, C));
    await writeFile(join(at.directory, C, 'template.json'), record);
    assert.equal(await store.lookup(C), undefined, 'nor one that comes later');
  });

  it('what a maker that has died left is removed; what one that lives makes, and what is not ours, stays', async () => {
    await using at = await place();
    await (await at.open())[Symbol.asyncDispose]();
    const self = await identify(process.pid);
    const living = `building-${process.pid}-${self?.startTicks ?? 0}-00000000`;
    const names = [living, `building-${process.pid}-1-00000000`, 'removing-999999999-1-00000000', 'notes'];
    for (const name of names) await mkdir(join(at.directory, name));
    await using store = await at.open();
    assert.deepEqual(keysOf(store), []);
    assert.deepEqual((await readdir(at.directory)).sort(), [living, 'notes'].sort());
  });

  it('two stores on one directory: each finds what the other made, and two that make the same get on', async () => {
    await using at = await place();
    await using one = await at.open();
    await using two = await at.open();
    await one.build(build(A));
    using lease = await two.lookup(A);
    assert.ok(lease);
    const go = Promise.withResolvers<void>();
    const together = build(B, {
      make: async (target) => {
        await go.promise;
        return make(target);
      },
    });
    const both = Promise.all([one.build(together), two.build(together)]);
    go.resolve();
    await both;
    using first = await one.lookup(B);
    using second = await two.lookup(B);
    assert.ok(first !== undefined && second !== undefined);
    assert.deepEqual((await readdir(at.directory)).sort(), [A, B]);
  });

  it('a directory that others may enter, or that is a link, is refused', async () => {
    await using at = await place();
    await mkdir(at.directory);
    await chmod(at.directory, 0o755);
    await assert.rejects(at.open(), { code: 'FAILED_PRECONDITION', reason: 'TEMPLATE_DIR_UNSAFE' });
    await chmod(at.directory, 0o700);
    const link = `${at.directory}-link`;
    await symlink(at.directory, link);
    await assert.rejects(at.open({ directory: link }), { reason: 'TEMPLATE_DIR_UNSAFE' });
  });
});
