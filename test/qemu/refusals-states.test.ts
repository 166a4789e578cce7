import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { TestDaemon } from '../support/daemon.ts';
import {
  assertRefusal,
  decodeRefusal,
  refusal,
  refusedWithoutTrace,
  withoutHistory,
  worldState,
  type Refusal,
} from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

/** Good requests at a wrong time or in a wrong state, to a real daemon with real VMs. */

const skip = await realVmSkipReason();
const WAIT_MAX_MS = 60_000;
/** Long enough to be seen pending under load, short enough to wait for. */
const PENDING_MS = 4000;

await describe('a running sandbox and its volumes', { skip }, async () => {
  let daemon: TestDaemon;
  const files: string[] = [];
  before(async () => {
    daemon = await TestDaemon.start();
    for (const name of ['a', 'b', 'c']) files.push(await daemon.rawFile(`${name}.raw`));
    await Promise.all([
      daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2, volumeCapacity: 2 } }),
      daemon.client.createSandbox({ sandboxId: 'other', spec: { vcpus: 2 } }),
    ]);
    // What the first attach makes once is there before the first look.
    for (const sandboxId of ['vm', 'other']) {
      await daemon.client.attach({ sandboxId, volumeId: 'first', spec: source(0) });
      await daemon.client.detach({ sandboxId, volumeId: 'first' });
    }
  });
  after(() => daemon[Symbol.asyncDispose]());

  function source(file: number, more: object = {}): { rawFile: { path: string } } {
    return { rawFile: { path: files[file] ?? '' }, ...more };
  }

  function attach(volumeId: string, file: number, more: object = {}, sandboxId = 'vm'): Promise<Volume__Output> {
    return daemon.client.attach({ sandboxId, volumeId, spec: source(file, more) });
  }

  async function detachAll(): Promise<void> {
    for (const { sandboxId, volumeId, state } of await daemon.client.listVolumes()) {
      if (state !== 'VOLUME_STATE_REMOVED') await daemon.client.detach({ sandboxId, volumeId });
    }
  }

  await it('answers the same id and spec as the first time, and refuses another spec', async () => {
    const first = await attach('v', 0);
    const before = await worldState(daemon);
    assert.deepEqual(await attach('v', 0), first);
    assert.deepEqual(await worldState(daemon), before);
    // The file need not even exist for the answer: the id is what is taken.
    for (const other of [
      { rawFile: { path: '/nowhere' } },
      source(1),
      source(0, { readOnly: true }),
      source(0, { cache: 'CACHE_MODE_NONE' }),
    ]) {
      const seen = await refusedWithoutTrace(daemon, () =>
        daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec: other }),
      );
      assertRefusal(seen, { code: 'ALREADY_EXISTS', reason: 'VOLUME_EXISTS' });
      assert.deepEqual({ ...seen.metadata }, { sandboxId: 'vm', volumeId: 'v' });
    }
    await detachAll();
  });

  await it('answers a repeated Create as the first time, and refuses another spec', async () => {
    const vm = await daemon.client.getSandbox('vm');
    const again = await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2, volumeCapacity: 2 } });
    assert.deepEqual(again, vm);
    for (const spec of [
      { vcpus: 1, volumeCapacity: 2 },
      { vcpus: 2 },
      { vcpus: 2, volumeCapacity: 2, labels: { a: 'b' } },
    ]) {
      const seen = await refusedWithoutTrace(daemon, () => daemon.client.createSandbox({ sandboxId: 'vm', spec }));
      assertRefusal(seen, { code: 'ALREADY_EXISTS', reason: 'SANDBOX_EXISTS' });
      assert.equal(seen.metadata['sandboxId'], 'vm');
    }
  });

  await it('refuses a serial that another volume of the sandbox has', async () => {
    await attach('v', 0, { serial: 'TAKEN' });
    const seen = await refusedWithoutTrace(daemon, () => attach('w', 1, { serial: 'TAKEN' }));
    assertRefusal(seen, { code: 'ALREADY_EXISTS', reason: 'SERIAL_IN_USE' });
    assert.equal(seen.metadata['serial'], 'TAKEN');
    assert.equal(seen.metadata['volumeId'], 'v');
    const elsewhere = await attach('w', 1, { serial: 'TAKEN' }, 'other');
    assert.equal(elsewhere.state, 'VOLUME_STATE_ATTACHED');
    await detachAll();
  });

  await it('refuses one file writable in two sandboxes, and a writer beside readers', async () => {
    const inUse = { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' };
    await attach('w', 0);
    for (const readOnly of [false, true]) {
      const seen = await refusedWithoutTrace(daemon, () => attach('w', 0, { readOnly }, 'other'));
      assertRefusal(seen, inUse);
      assert.match(seen.metadata['holder'] ?? '', /volume w .* sandbox vm/);
      assert.equal(seen.metadata['path'], files[0]);
    }
    await detachAll();
    const readers = [await attach('r', 0, { readOnly: true }), await attach('r', 0, { readOnly: true }, 'other')];
    for (const reader of readers) assert.equal(reader.state, 'VOLUME_STATE_ATTACHED');
    assertRefusal(await refusedWithoutTrace(daemon, () => attach('w', 0)), inUse);
    assertRefusal(await refusedWithoutTrace(daemon, () => attach('w', 0, {}, 'other')), inUse);
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'r' });
    assertRefusal(await refusedWithoutTrace(daemon, () => attach('w', 0)), inUse);
    await detachAll();
    assert.equal((await attach('w', 0, {}, 'other')).state, 'VOLUME_STATE_ATTACHED');
    await detachAll();
  });

  await it('refuses a volume when no slot is left, and takes it when one is free again', async () => {
    await attach('one', 0);
    await attach('two', 1);
    const seen = await refusedWithoutTrace(daemon, () => attach('three', 2));
    assertRefusal(seen, { code: 'RESOURCE_EXHAUSTED', reason: 'NO_SLOT' });
    assert.deepEqual({ ...seen.metadata }, { sandboxId: 'vm', capacity: '2' });
    // The refusal has not kept its hand on the file.
    assert.equal((await attach('three', 2, {}, 'other')).state, 'VOLUME_STATE_ATTACHED');
    await daemon.client.detach({ sandboxId: 'other', volumeId: 'three' });
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'one' });
    assert.equal((await attach('three', 2)).state, 'VOLUME_STATE_ATTACHED');
    await detachAll();
  });

  await it('gives two attaches at once, of one id and spec, the same answer', async () => {
    const [one, two] = await Promise.all([attach('twice', 0), attach('twice', 0)]);
    assert.deepEqual(one, two);
    const vm = await daemon.client.getSandbox('vm');
    assert.equal(vm.volumesInUse, 1);
    await detachAll();
  });

  await it('lets one of two attaches at once win when only one can', async () => {
    const sameId = await Promise.allSettled([attach('race', 0), attach('race', 1)]);
    const sameFile = await Promise.allSettled([attach('left', 2), attach('right', 2, {}, 'other')]);
    for (const [results, reason] of [
      [sameId, 'VOLUME_EXISTS'],
      [sameFile, 'BACKING_IN_USE'],
    ] as const) {
      const won = results.filter((result) => result.status === 'fulfilled');
      const lost = results.filter((result) => result.status === 'rejected');
      assert.equal(won.length, 1);
      assert.equal(won[0]?.value.state, 'VOLUME_STATE_ATTACHED');
      assert.equal(decodeRefusal(lost[0]?.reason).reason, reason);
    }
    await detachAll();
  });

  await it('gives two detaches at once, and repeats after the end, the same answer', async () => {
    const attached = await attach('gone', 0);
    const before = (await worldState(daemon)).qemus;
    const detach = () => daemon.client.detach({ sandboxId: 'vm', volumeId: 'gone' });
    const [one, two] = await Promise.all([detach(), detach()]);
    assert.equal(one.state, 'VOLUME_STATE_REMOVED');
    assert.equal(one.generation, attached.generation);
    assert.deepEqual(two, one);
    const world = await worldState(daemon);
    assert.notDeepEqual(world.qemus, before);
    assert.deepEqual(await detach(), one);
    assert.deepEqual(await worldState(daemon), world);
  });

  await it('refuses to delete a running sandbox without force', async () => {
    await attach('kept', 0);
    const seen = await refusedWithoutTrace(daemon, () => daemon.client.deleteSandbox('vm', false));
    assertRefusal(seen, { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_RUNNING' });
    assert.equal(seen.metadata['sandboxId'], 'vm');
    assert.match(seen.message, /force/);
    await detachAll();
  });
});

await describe('a volume that stays pending, and a sandbox that stops', { skip }, async () => {
  let daemon: TestDaemon;
  let path: string;
  before(async () => {
    daemon = await TestDaemon.start();
    path = await daemon.rawFile('pending.raw');
    // Ready when its agent answers: its PCI hotplug is up then, so that an unplug is answered at once.
    await daemon.client.createSandbox({
      sandboxId: 'deaf',
      spec: { vcpus: 2, kernelParameters: 'qshim.no_virtio_blk=1' },
    });
  });
  after(() => daemon[Symbol.asyncDispose]());

  function attach(timeoutMs: number, volumeId = 'v'): Promise<Volume__Output> {
    return daemon.client.attach({ sandboxId: 'deaf', volumeId, spec: { rawFile: { path } }, timeoutMs });
  }

  /** Begins an attach that cannot succeed, and waits until QEMU has the device. */
  async function beginPending(timeoutMs: number): Promise<{ readonly end: Promise<Refusal> }> {
    const end = refusal(attach(timeoutMs));
    end.catch(() => undefined);
    await until('QEMU has the device', async () => {
      const { qemus } = await worldState(daemon);
      return qemus['deaf']?.peripherals.some((name) => name.startsWith('vol-'));
    });
    return { end };
  }

  const untilRemoved = (): Promise<Volume__Output> =>
    until('the volume is REMOVED', async () => {
      const volume = await daemon.client.getVolume('deaf', 'v');
      return volume.state === 'VOLUME_STATE_REMOVED' && volume;
    });

  await it('refuses to detach or replace it, and undoes it at its deadline', async () => {
    // The first attach makes what is made once.
    await refusal(attach(200));
    const removed = await untilRemoved();
    const before = withoutHistory(await worldState(daemon));
    const { end } = await beginPending(PENDING_MS);
    for (const force of [false, true]) {
      const seen = await refusedWithoutTrace(daemon, () =>
        daemon.client.detach({ sandboxId: 'deaf', volumeId: 'v', force }),
      );
      assertRefusal(seen, { code: 'FAILED_PRECONDITION', reason: 'VOLUME_PENDING' });
      assert.deepEqual({ ...seen.metadata }, { sandboxId: 'deaf', volumeId: 'v', state: 'pending' });
    }
    const other = await refusedWithoutTrace(daemon, () =>
      daemon.client.attach({ sandboxId: 'deaf', volumeId: 'v', spec: { rawFile: { path }, readOnly: true } }),
    );
    assertRefusal(other, { code: 'ALREADY_EXISTS', reason: 'VOLUME_EXISTS' });
    const second = await refusedWithoutTrace(daemon, () => attach(PENDING_MS, 'w'));
    assertRefusal(second, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });

    const timedOut = { code: 'DEADLINE_EXCEEDED', reason: 'GUEST_DRIVER_TIMEOUT' };
    // A repeat joins the attach in progress and gets its answer.
    const [first, joined] = await Promise.all([end, refusal(attach(PENDING_MS))]);
    assertRefusal(first, timedOut);
    assertRefusal(joined, timedOut);
    assert.equal(joined.message, first.message);
    const volume = await untilRemoved();
    assert.equal(volume.generation, removed.generation + 1);
    assert.equal(volume.cause?.reason, 'GUEST_DRIVER_TIMEOUT');
    assert.equal(volume.attachedAt, null);
    assert.deepEqual(withoutHistory(await worldState(daemon)), before);
    const detached = await daemon.client.detach({ sandboxId: 'deaf', volumeId: 'v' });
    assert.deepEqual(detached, volume);
  });

  await it('ends it when the sandbox stops, and refuses every attach from then on', async () => {
    const { end } = await beginPending(WAIT_MAX_MS);
    // The guest is given a while: the sandbox is STOPPING for that long.
    const stopped = daemon.client.stopSandbox({ sandboxId: 'deaf', gracefulTimeoutMs: WAIT_MAX_MS });
    const atOnce = refusal(attach(WAIT_MAX_MS, 'at-once'));
    assertRefusal(await end, { code: 'ABORTED', reason: 'SANDBOX_STOPPING' });
    const raced = await atOnce;
    assert.match(
      `${raced.code} ${raced.reason}`,
      /^(FAILED_PRECONDITION|ABORTED) SANDBOX_STOPPING$|^FAILED_PRECONDITION BACKING_IN_USE$|^UNAVAILABLE /,
    );
    const during = await refusal(attach(WAIT_MAX_MS, 'during'));
    assert.equal(during.code, 'FAILED_PRECONDITION');
    assert.match(during.reason, /^SANDBOX_(STOPPING|NOT_RUNNING)$/);
    assert.equal((await stopped).state, 'SANDBOX_STATE_STOPPED');

    for (const volume of await daemon.client.listVolumes()) assert.equal(volume.state, 'VOLUME_STATE_REMOVED');
    const ended = await daemon.client.getSandbox('deaf');
    assert.equal(ended.volumesInUse, 0);
    assert.equal(ended.qemuPid, 0);
    const seen = await refusedWithoutTrace(daemon, () => attach(WAIT_MAX_MS, 'late'));
    assertRefusal(seen, { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_NOT_RUNNING' });
    assert.equal(seen.metadata['state'], 'stopped');
    const exec = await refusedWithoutTrace(daemon, () => daemon.client.exec('deaf', 'true'));
    assertRefusal(exec, { code: 'FAILED_PRECONDITION', reason: 'GUEST_AGENT_NOT_READY' });
    const detached = await daemon.client.detach({ sandboxId: 'deaf', volumeId: 'v' });
    assert.equal(detached.state, 'VOLUME_STATE_REMOVED');
    // Nothing holds the file any more: not the daemon, not its claims.
    await daemon.client.createSandbox({ sandboxId: 'next', spec: { vcpus: 2 } });
    const volume = await daemon.client.attach({ sandboxId: 'next', volumeId: 'v', spec: { rawFile: { path } } });
    assert.equal(volume.state, 'VOLUME_STATE_ATTACHED');
  });

  await it('refuses to stop or delete a sandbox that is being created', async () => {
    const created = daemon.client.createSandbox({ sandboxId: 'young', spec: { vcpus: 2 } });
    await until('the sandbox is CREATING', async () => {
      const list = await daemon.client.listSandboxes();
      return list.some(({ sandboxId, state }) => sandboxId === 'young' && state === 'SANDBOX_STATE_CREATING');
    });
    const creating = { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_CREATING' };
    assertRefusal(await refusal(daemon.client.stopSandbox({ sandboxId: 'young' })), creating);
    assertRefusal(await refusal(daemon.client.deleteSandbox('young')), creating);
    const early = await refusal(
      daemon.client.attach({ sandboxId: 'young', volumeId: 'v', spec: { rawFile: { path } } }),
    );
    assertRefusal(early, { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_NOT_RUNNING' });
    assert.equal((await created).state, 'SANDBOX_STATE_RUNNING');
  });
});
