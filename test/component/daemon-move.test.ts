import assert from 'node:assert/strict';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { MigrateVolumeRequest } from '../../src/grpc/generated/qshim/v1/MigrateVolumeRequest.ts';
import type { Operation__Output as Operation } from '../../src/grpc/generated/qshim/v1/Operation.ts';
import type { QmpCommandName } from '../../src/qmp/protocol.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeMirror } from '../support/fake-mirror.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** Moves, where QEMU, the connection or the daemon does what a real one will not do on request. */

interface Parts {
  readonly rig: FakeVmRig;
  readonly vm: FakeVm;
  readonly mirror: FakeMirror;
  readonly source: string;
  readonly target: string;
}

async function parts(rig: FakeVmRig, copying?: 'manual'): Promise<Parts> {
  const vm = await rig.sandbox();
  const mirror = new FakeMirror(vm, copying);
  const { resolvedSource: source } = await rig.attach('a');
  return { rig, vm, mirror, source, target: join(rig.daemon.volumeDir, 'target.raw') };
}

function migrate({ rig, target }: Parts, more: MigrateVolumeRequest = {}): Promise<Operation> {
  const request = { sandboxId: 'one', volumeId: 'a', operationId: 'move', rawFile: { path: target } };
  return call((done) => rig.client.volumes.migrate({ ...request, createIfMissing: true, ...more }, done));
}

function get({ rig }: Parts): Promise<Operation> {
  return call((done) => rig.client.operations.get({ sandboxId: 'one', operationId: 'move' }, done));
}

async function ended(all: Parts): Promise<Operation> {
  return await until('the move has ended', async () => {
    const now = await get(all);
    return now.endedAt === null ? undefined : now;
  });
}

/** What QEMU has is the volume on that file, and nothing else; so say record and journal; the other file is free. */
async function checkOn({ rig, vm, mirror, source, target }: Parts, where: 'source' | 'target'): Promise<void> {
  const path = where === 'source' ? source : target;
  assert.equal((await rig.volume('a')).resolvedSource, path);
  await until('the journal says so', async () => {
    const [record] = (await rig.journal()).volumes as unknown as readonly Record<string, unknown>[];
    return record?.['resolvedPath'] === path && !('otherMedia' in record) && !('operation' in record);
  });
  assert.deepEqual([...mirror.jobs.keys()], []);
  assert.equal(vm.model.nodes.size, 2, `a format and a protocol node: ${[...vm.model.nodes.keys()].join(' ')}`);
  assert.deepEqual(
    [...vm.model.fdsets.values()].map((text) => text.split(' ')[1]),
    [path],
  );
  const isThere = await stat(target).then(
    () => true,
    () => false,
  );
  assert.equal(isThere, where === 'target', 'a file that was made goes with a move that fails');
  if (where === 'target') {
    await rig.client.attach({ sandboxId: 'one', volumeId: 'next', spec: { rawFile: { path: source } } });
    await rig.client.detach({ sandboxId: 'one', volumeId: 'next' });
  }
  assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
  assert.equal(vm.model.nodes.size + vm.model.fdsets.size + vm.model.devices.size, 0);
}

describe('move', { timeout: 600_000 }, () => {
  it('with every reply lost: it looks, and does nothing twice', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 3000 });
    const all = await parts(rig);
    for (const name of ['blockdev-mirror', 'job-complete', 'job-dismiss', 'blockdev-del'] as const) {
      all.vm.loseReply(name);
    }
    await migrate(all);
    const end = await ended(all);
    assert.equal(end.state, 'OPERATION_STATE_SUCCEEDED', JSON.stringify(end.problem));
    assert.equal(all.vm.qmp.receivedOf('blockdev-mirror').length, 1, 'looked for, and not begun twice');
    assert.equal(all.vm.qmp.receivedOf('job-complete').length, 1);
    assert.equal((await migrate(all)).operationId, 'move', 'the same again is answered with what became of it');
    await checkOn(all, 'target');
  });

  const KILLS: readonly (readonly [QmpCommandName, 'source' | 'target'])[] = [
    ['blockdev-add', 'source'],
    ['blockdev-mirror', 'target'],
    ['job-complete', 'target'],
    ['job-dismiss', 'target'],
    ['blockdev-del', 'target'],
  ];
  for (const [command, where] of KILLS) {
    it(`a daemon that is killed while QEMU works on ${command}: the next one has it on the ${where}`, async () => {
      await using rig = await FakeVmRig.start();
      const all = await parts(rig);
      const held = all.vm.hold(command);
      await migrate(all);
      await held.came;
      await rig.restartAfter('SIGKILL', () => {
        held.release();
        return Promise.resolve();
      });
      const end = await ended(all);
      const expected = where === 'target' ? 'OPERATION_STATE_SUCCEEDED' : 'OPERATION_STATE_FAILED';
      assert.equal(end.state, expected, JSON.stringify(end.problem));
      if (where === 'source') assert.equal(end.problem?.reason, 'MOVE_INTERRUPTED');
      await checkOn(all, where);
    });
  }

  for (const phase of ['copying', 'in step', 'killed'] as const) {
    it(`cancelled: ${phase}`, async () => {
      await using own = await FakeVmRig.start();
      const all = await parts(own, 'manual');
      await migrate(all, { pivot: 'PIVOT_ASKED' });
      await until('it copies', async () => (await get(all)).phase === 'copying');
      if (phase === 'in step') {
        all.mirror.ready();
        await until('it is in step', async () => (await get(all)).phase === 'in step');
      }
      const held = phase === 'killed' ? all.vm.hold('job-cancel') : undefined;
      await call((done) => own.client.operations.cancel({ sandboxId: 'one', operationId: 'move' }, done));
      if (held !== undefined) {
        await held.came;
        await own.restartAfter('SIGKILL', () => {
          held.release();
          return Promise.resolve();
        });
      }
      assert.equal((await ended(all)).state, 'OPERATION_STATE_CANCELLED');
      await checkOn(all, 'source');
    });
  }

  it('an error on the target, and one in the moment of the switch, leave it on its source', async () => {
    await using rig = await FakeVmRig.start();
    const all = await parts(rig, 'manual');
    await migrate(all);
    await until('it copies', async () => (await get(all)).phase === 'copying');
    all.mirror.fail('No space left on device');
    const end = await ended(all);
    assert.deepEqual([end.state, end.problem?.reason], ['OPERATION_STATE_FAILED', 'MOVE_FAILED']);
    assert.match(end.problem?.message ?? '', /No space left on device/);
    all.mirror.copying = 'at once';
    all.mirror.completing = { error: 'Input/output error' };
    await migrate(all, { operationId: 'second' });
    const second = await until('the second has ended', async () => {
      const now: Operation = await call((done) =>
        rig.client.operations.get({ sandboxId: 'one', operationId: 'second' }, done),
      );
      return now.endedAt === null ? undefined : now;
    });
    assert.equal(second.problem?.reason, 'MOVE_FAILED');
    await checkOn(all, 'source');
  });

  it('a detach with force ends the copy, and REMOVED covers both media', async () => {
    await using rig = await FakeVmRig.start();
    const all = await parts(rig, 'manual');
    await migrate(all);
    await until('it copies', async () => (await get(all)).phase === 'copying');
    assert.equal((await rig.detach('a', { force: true })).state, 'VOLUME_STATE_REMOVED');
    const { model } = all.vm;
    assert.equal(model.nodes.size + model.fdsets.size + model.devices.size + all.mirror.jobs.size, 0);
    assert.equal((await get(all)).problem?.reason, 'VOLUME_REMOVED');
    await assert.rejects(stat(all.target), /ENOENT/);
  });

  it('a VM that ends in the moment of the switch: both copies stay, and it is said that nobody saw which', async () => {
    await using rig = await FakeVmRig.start();
    const all = await parts(rig);
    all.mirror.completing = 'never';
    await migrate(all);
    await until('it switches', async () => (await get(all)).phase === 'switching');
    const refused = await refusal(
      call((done) => rig.client.volumes.resize({ sandboxId: 'one', volumeId: 'a', sizeBytes: 2 * 1024 * 1024 }, done)),
    );
    assert.equal(refused.reason, 'OPERATION_IN_PROGRESS');
    all.vm.exit(1);
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    const { problem } = await get(all);
    assert.equal(problem?.reason, 'MOVE_OUTCOME_UNKNOWN');
    assert.deepEqual({ ...problem.metadata }, { from: all.source, to: all.target });
    assert.ok((await stat(all.target)).isFile() && (await stat(all.source)).isFile());
  });

  it('with the journal lost in the midst, it is where QEMU has it, and the copy is cleared away', async () => {
    await using rig = await FakeVmRig.start();
    const all = await parts(rig, 'manual');
    await migrate(all);
    await until('it copies', async () => (await get(all)).phase === 'copying');
    await rig.restartAfter('SIGKILL', () => rm(join(rig.daemon.directoryOf('one'), 'state.json')));
    const found = await rig.until('a', 'VOLUME_STATE_ATTACHED');
    assert.equal(found.resolvedSource, all.source);
    await until('the copy is gone', () => Promise.resolve(all.vm.model.nodes.size === 2 && all.mirror.jobs.size === 0));
  });
});
