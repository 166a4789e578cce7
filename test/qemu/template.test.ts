import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, it } from 'node:test';
import { monotonicMs, sleep } from '../../src/base/deadline.ts';
import { silentLogger } from '../../src/base/log.ts';
import { NewMemory, templateOf } from '../../src/template/memory.ts';
import { TemplateStore, type TemplateLease } from '../../src/template/store.ts';
import { cloneMemory, makeTemplate, startClone } from '../../src/template/vm.ts';
import { bareQemuBinary } from '../support/bare-qemu.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import {
  START_TIMEOUT_MS,
  UNSEALED,
  keyOf,
  startCloneQemu,
  startTestClone,
  startVm,
  templateBuild,
  testLaunch,
  type StartedVm,
} from '../support/template-vm.ts';
import { until } from '../support/until.ts';
import { cellsFor } from '../support/cells.ts';
import { endHoldersBelow, holdersBelow } from '../support/template-holders.ts';

const EVENT_TIMEOUT_MS = 30_000;
const SECTOR_BYTES = 512;

describe('templates', { skip: await realVmSkipReason() }, () => {
  let root = '';
  let store: TemplateStore;
  let key = '';
  let savedAtMs = 0;
  // QemuProcess does not keep this process alive: waiting for one to end is no reason to go on, except in a test.
  let alive: NodeJS.Timeout;

  before(async () => {
    alive = setInterval(() => undefined, 1000);
    root = await mkdtemp('/dev/shm/qshim-test-');
    store = await TemplateStore.open({ directory: join(root, 'store'), bytesMax: 2 ** 31, log: silentLogger() });
    const build = await templateBuild(testLaunch);
    key = build.key;
    await store.build(build);
    savedAtMs = monotonicMs();
  });

  after(async () => {
    await store[Symbol.asyncDispose]();
    await endHoldersBelow(root);
    await rm(root, { recursive: true });
    clearInterval(alive);
  });

  async function lease(): Promise<TemplateLease> {
    const found = await store.lookup(key);
    assert.ok(found, 'there is a template');
    return found;
  }

  it('it is a state, a record and a process that holds the memory, which is mostly holes', async () => {
    const names = (await readdir(join(root, 'store', key))).sort();
    assert.deepEqual(
      names.map((name) => name.replace(/^held-[0-9a-f]{8}$/, 'held')),
      ['held', 'state', 'template.json'],
    );
    const [holder = 0, ...others] = await holdersBelow(root);
    assert.deepEqual(others, []);
    assert.equal(await templateOf(holder), key);
    assert.ok(store.bytes < testLaunch.memoryMib * 1_048_576, `${store.bytes} bytes`);
  });

  it('two clones side by side are two machines', async () => {
    // A clock that nobody set would be behind by as much.
    await sleep(Math.max(0, savedAtMs + 3000 - monotonicMs()));
    using held = await lease();
    await using one = await startTestClone(testLaunch, held, 'clone-one');
    await using two = await startTestClone(testLaunch, held, 'clone-two');
    const facts = await Promise.all([one, two].map(machineFacts));
    const [first = {}, second = {}] = facts;
    for (const name of ['random', 'kernelUuid', 'bootId', 'productUuid', 'hostname'] as const) {
      assert.notEqual(first[name], second[name], name);
      assert.ok(first[name] !== undefined && first[name] !== '', name);
    }
    assert.equal(first['hostname'], 'clone-one');
    assert.equal(first['productUuid'], one.uuid);
    assert.equal((await one.qmp.run('query-uuid')).UUID, one.uuid);
    assert.notDeepEqual(one.assumed.randomSample, two.assumed.randomSample);
    for (const { clockErrorMs } of [one.assumed, two.assumed]) assert.ok(Math.abs(clockErrorMs) < 1000);
    for (const vm of [one, two]) await assertClockRight(vm);
  });

  it('disks come and go in both, with the right bytes, beside each other', async () => {
    using held = await lease();
    await using one = await startTestClone(testLaunch, held, 'clone-one');
    await using two = await startTestClone(testLaunch, held, 'clone-two');
    const directory = await mkdtemp(join(tmpdir(), 'qshim-template-disks-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const disks = [one, two].map(async (vm, index) => {
      const filename = join(directory, `disk${index}`);
      const content = `the disk of clone ${index}`;
      await writeFile(filename, Buffer.alloc(8 * 1_048_576, content.padEnd(SECTOR_BYTES)));
      // The last slot of the second bridge: bus numbers and windows of the template's boot are those of the clone.
      await attach(vm, filename);
      // The node is there a moment before the disk can be opened.
      const read = 'until head -c 512 /dev/vda 2> /dev/null; do sleep 0.02; done';
      assert.equal((await guest(vm, read)).trim(), content);
      await detach(vm);
      assert.equal(await guest(vm, 'ls /sys/block | grep vd || echo none'), 'none\n');
    });
    await Promise.all(disks);
  });

  it('what clones write stays theirs; the template serves further clones after they have gone', async () => {
    using held = await lease();
    const before = await Promise.all([memoryChecksum(held), checksum(createReadStream(held.stateFile))]);
    {
      await using one = await startTestClone(testLaunch, held, 'clone-one');
      await guest(one, 'dd if=/dev/urandom of=/tmp/noise bs=1M count=16 2> /dev/null; echo mine > /tmp/mark; sync');
      await using beside = await startTestClone(testLaunch, held, 'clone-two');
      assert.equal(await guest(beside, 'cat /tmp/mark 2> /dev/null || echo none'), 'none\n');
    }
    assert.deepEqual(await Promise.all([memoryChecksum(held), checksum(createReadStream(held.stateFile))]), before);
    using again = await lease();
    await using later = await startTestClone(testLaunch, again, 'clone-three');
    assert.equal(await guest(later, 'hostname; cat /tmp/mark 2> /dev/null || echo none'), 'clone-three\nnone\n');
  });

  it('a clone can be reset: it boots like any VM', async () => {
    using held = await lease();
    await using clone = await startTestClone(testLaunch, held, 'clone-one');
    using reset = clone.qmp.listen('RESET');
    await clone.qmp.run('system_reset');
    await reset.next({ timeoutMs: EVENT_TIMEOUT_MS });
    await clone.agent.waitReady({ timeoutMs: START_TIMEOUT_MS });
    await until(
      'the guest has booted',
      async () => (await guest(clone, 'hostname')) !== 'clone-one\n',
      START_TIMEOUT_MS,
    );
    assert.equal(await guest(clone, 'hostname'), 'sandbox\n');
    assert.equal(await guest(clone, 'cat /sys/class/dmi/id/product_uuid'), `${clone.uuid}\n`);
  });

  it('another key never finds it', async () => {
    const copy = join(root, 'initrd.img');
    await copyFile(testLaunch.initrd, copy);
    const launch = { ...testLaunch, initrd: copy };
    const original = await keyOf(launch);
    await utimes(copy, 1, 1);
    const touched = await keyOf(launch);
    const others = [
      original,
      touched,
      await keyOf({ ...testLaunch, memoryMib: testLaunch.memoryMib + 1 }),
      await keyOf({ ...testLaunch, bridges: testLaunch.bridges.slice(1) }),
    ];
    assert.equal(new Set([key, ...others]).size, 5);
    for (const other of others) assert.equal(await store.lookup(other), undefined);
  });

  it('a kernel that does not boot makes no template, and leaves nothing', async () => {
    const directory = join(root, 'making');
    await mkdir(directory);
    using memory = NewMemory.create(key, testLaunch.memoryMib * 1_048_576);
    const target = {
      directory,
      memory: memory.descriptor,
      stateFile: join(directory, 'state'),
      signal: AbortSignal.timeout(START_TIMEOUT_MS),
    };
    const cells = await cellsFor({ qemu_binary: bareQemuBinary });
    const make = (kernel: string, timeoutMs: number) =>
      makeTemplate(target, {
        cells,
        launch: { ...testLaunch, kernel },
        log: silentLogger(),
        timeoutMs,
      });
    await assert.rejects(make(join(root, 'no-such-kernel'), START_TIMEOUT_MS), { reason: 'QEMU_EXITED' });
    await assert.rejects(make(testLaunch.kernel, 250), { code: 'DEADLINE_EXCEEDED' });
    assert.deepEqual(await readdir(directory), []);
  });

  for (const keepBytes of [0, 1000, 200_000]) {
    it(`a state cut to ${keepBytes} bytes: the restore fails, cleanly`, async () => {
      using held = await lease();
      const stateFile = join(root, 'cut-state');
      await copyFile(held.stateFile, stateFile);
      await truncate(stateFile, keepBytes);
      const cut = { ...held, stateFile };
      await using vm = await startCloneQemu(testLaunch, cut);
      const started = startClone(
        { ...vm, cell: UNSEALED, lease: cut, identity: { uuid: vm.uuid, hostname: 'cut' } },
        { timeoutMs: START_TIMEOUT_MS, signal: AbortSignal.timeout(START_TIMEOUT_MS) },
      );
      await assert.rejects(started, { code: 'FAILED_PRECONDITION', reason: 'TEMPLATE_RESTORE_FAILED' });
    });
  }

  it('a memory that is too small: QEMU does not start', async () => {
    using memory = NewMemory.create(key, (testLaunch.memoryMib - 1) * 1_048_576);
    const started = startVm(testLaunch, cloneMemory, memory.descriptor);
    await assert.rejects(started, /does not match 'size' option/);
  });
});

/** Runs a script in the guest and gives its output. */
async function guest(vm: Pick<StartedVm, 'agent'>, script: string): Promise<string> {
  const result = await vm.agent.exec({ path: '/bin/sh', args: ['-c', script], timeoutMs: START_TIMEOUT_MS });
  assert.equal(result.exitCode, 0, result.stderr.toString());
  return result.stdout.toString();
}

async function machineFacts(vm: StartedVm): Promise<Readonly<Record<string, string>>> {
  const said = await guest(
    vm,
    [
      'echo "random=$(head -c 16 /dev/urandom | od -An -tx1)"',
      'echo "kernelUuid=$(cat /proc/sys/kernel/random/uuid)"',
      'echo "bootId=$(cat /proc/sys/kernel/random/boot_id)"',
      'echo "productUuid=$(cat /sys/class/dmi/id/product_uuid)"',
      'echo "hostname=$(hostname)"',
    ].join('\n'),
  );
  return Object.fromEntries(
    said
      .trim()
      .split('\n')
      .map((line) => [line.split('=')[0] ?? '', line.split('=')[1] ?? '']),
  );
}

/** The guest's clock lies between the host's before and after the question, but for a second. */
async function assertClockRight(vm: StartedVm): Promise<void> {
  const before = Math.floor(Date.now() / 1000);
  const seen = Number(await guest(vm, 'date +%s'));
  const after = Math.floor(Date.now() / 1000);
  assert.ok(seen >= before - 1 && seen <= after + 1, `${before} <= ${seen} <= ${after}`);
}

async function attach(vm: StartedVm, filename: string): Promise<void> {
  await vm.qmp.run('blockdev-add', { driver: 'raw', 'node-name': 'node', file: { driver: 'file', filename } });
  await vm.qmp.run('device_add', { driver: 'virtio-blk-pci', id: 'disk', bus: 'bridge1', addr: '0x1f', drive: 'node' });
}

async function detach(vm: StartedVm): Promise<void> {
  using gone = vm.qmp.listen('DEVICE_DELETED', ({ data }) => data.device === 'disk');
  await vm.qmp.run('device_del', { id: 'disk' });
  await gone.next({ timeoutMs: EVENT_TIMEOUT_MS });
  await vm.qmp.run('blockdev-del', { 'node-name': 'node' });
}

async function memoryChecksum(lease: TemplateLease): Promise<string> {
  const memory = await lease.openMemory();
  return await checksum(memory.createReadStream());
}

async function checksum(from: Readable): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(from, hash);
  return hash.digest('hex');
}
