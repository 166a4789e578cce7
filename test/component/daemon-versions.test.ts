import assert from 'node:assert/strict';
import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isJsonObject } from '../../src/base/versions.ts';
import { refusal } from '../support/errors.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';
import { withLaterMembers } from '../support/journal-fixtures.ts';

/** The real daemon comes to what a daemon of a later version has left. */

/** The sandbox is the new daemon's own: adopted, and connected. */
async function adopted(rig: FakeVmRig): Promise<void> {
  await until('the sandbox is adopted', async () => {
    const [sandbox] = await rig.client.listSandboxes();
    return sandbox?.state === 'SANDBOX_STATE_RUNNING' && sandbox.agentReady ? true : undefined;
  });
}

describe('a daemon that comes', { timeout: 240_000 }, () => {
  it('to a journal of a later minor version: what it does not know is still there after an attach and a detach', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    await rig.attach('b');
    const journal = join(rig.daemon.directoryOf('one'), 'state.json');
    const logged = (await rig.daemon.log()).length;
    await rig.restartAfter('SIGKILL', async () => {
      const later = withLaterMembers(JSON.parse(await readFile(journal, 'utf8')));
      assert.ok(isJsonObject(later));
      await writeFile(journal, JSON.stringify({ ...later, minor: 3 }));
    });
    await adopted(rig);
    assert.equal((await rig.attach('a')).generation, 1, 'the same request is the same volume');
    await rig.detach('b');
    await rig.attach('c');
    await rig.restart('SIGTERM');
    await adopted(rig);
    assert.deepEqual(vm.changes.slice(0, 4), ['blockdev-add', 'device_add', 'blockdev-add', 'device_add']);
    const found: unknown = JSON.parse(await readFile(journal, 'utf8'));
    assert.ok(isJsonObject(found) && isJsonObject(found['sandbox']) && Array.isArray(found['volumes']));
    const volumes: readonly unknown[] = found['volumes'];
    const hasLater = (value: unknown): boolean => isJsonObject(value) && 'later' in value;
    const specOf = (value: unknown): unknown => (isJsonObject(value) ? value['spec'] : undefined);
    assert.deepEqual([found, found['sandbox'], found['sandbox']['spec']].map(hasLater), [true, true, true]);
    assert.deepEqual(volumes.map(hasLater), [true, true, false], 'the third came later');
    assert.deepEqual(volumes.map(specOf).map(hasLater), [true, true, false]);
    assert.equal('minor' in found, false, 'the volume that came later lacks what that minor is about');
    const lines = (await rig.daemon.log()).slice(logged).split('\n');
    const times = lines.filter((line) => line.includes('not known here are kept')).length;
    assert.equal(times, 2, 'once for each daemon that has read it');
    assert.deepEqual(
      (await readdir(rig.daemon.directoryOf('one'))).filter((name) => name.includes('.corrupt-')),
      [],
    );
  });

  const LATER: readonly (readonly [string, (ours: string) => string, string])[] = [
    ['of a later major version', () => '{"version":2,"in":["another","way"]}', 'has version 2'],
    [
      'with a kind of source that it does not know',
      (ours) => ours.replace('"kind":"raw-file"', '"kind":"rbd","pool":"p"'),
      'volumes.0.spec.source',
    ],
    [
      'with an operation that it does not know',
      (ours) => ours.replace('"creating":null', '"creating":null,"operation":{"kind":"mirror"}'),
      'volumes.0.operation.kind',
    ],
  ];
  for (const [what, change, problem] of LATER) {
    it(`to a journal ${what}: VM and file stay as they are, and the daemon that can read it adopts`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      await rig.attach('a');
      const journal = join(rig.daemon.directoryOf('one'), 'state.json');
      let ours = '';
      let theirs = '';
      await rig.restartAfter('SIGKILL', async () => {
        ours = await readFile(journal, 'utf8');
        theirs = change(ours);
        assert.notEqual(theirs, ours);
        await writeFile(journal, theirs);
      });
      assert.deepEqual(await rig.client.listSandboxes(), []);
      const refused = await refusal(rig.client.createSandbox({ sandboxId: 'one' }));
      assert.equal(refused.reason, 'SANDBOX_NOT_ADOPTED');
      const line = (await rig.daemon.log()).split('\n').find((each) => each.includes('sandbox not adopted')) ?? '';
      assert.ok(line.includes(journal) && line.includes(problem), line);
      assert.equal(await readFile(journal, 'utf8'), theirs);
      await rig.restartAfter('SIGTERM', () => writeFile(journal, ours));
      await adopted(rig);
      assert.equal((await rig.client.getSandbox('one')).qemuPid, vm.pid);
      assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
      assert.deepEqual(vm.changes, ['blockdev-add', 'device_add'], 'QEMU was not touched');
    });
  }

  it('to such a journal of a sandbox that has ended: its directory is not taken for another', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const directory = rig.daemon.directoryOf('one');
    const theirs = '{"version":2}';
    await rig.restartAfter('SIGKILL', async () => {
      await writeFile(join(directory, 'state.json'), theirs);
      vm.exit(0);
    });
    const refused = await refusal(rig.client.createSandbox({ sandboxId: 'one' }));
    assert.equal(refused.reason, 'SANDBOX_NOT_ADOPTED');
    assert.equal(await readFile(join(directory, 'state.json'), 'utf8'), theirs);
    await rm(directory, { recursive: true });
  });
});
