/** bin/qshim against a real qshimd with one sandbox, whose QEMU is scripted. */
import assert from 'node:assert/strict';
import { realpath, symlink, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { ListVolumesResponse__Output } from '../../src/grpc/generated/qshim/v1/ListVolumesResponse.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { call } from '../support/daemon.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { FakeScripts } from '../support/fake-scripts.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { run } from '../support/run-qshim.ts';

const MIB = 1024 * 1024;

/** Runs the command against the rig's daemon, and gives what it printed. */
async function qshim(rig: FakeVmRig, ...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await run(args, { socket: rig.daemon.socket });
  assert.equal(exitCode, 0, stderr);
  return stdout.toString();
}

describe('volume list', () => {
  it('leaves removed volumes out; --all and --state show them; the API filters by state', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox();
    await rig.attach('here');
    await rig.attach('gone');
    await rig.detach('gone');
    const ids = async (...args: string[]): Promise<string[]> => {
      const lines = (await qshim(rig, 'volume', 'list', ...args)).trimEnd().split('\n').slice(1);
      return lines.map((line) => line.split(/ +/)[1] ?? '').sort();
    };
    assert.deepEqual(await ids(), ['here']);
    assert.deepEqual(await ids('one'), ['here']);
    assert.deepEqual(await ids('one', '--all'), ['gone', 'here']);
    assert.deepEqual(await ids('--state', 'removed'), ['gone']);
    assert.deepEqual(await ids('--state', 'removed', '--state', 'attached'), ['gone', 'here']);
    assert.deepEqual(await ids('--state', 'detaching'), []);
    const wrong = await run(['volume', 'list', '--state', 'lost'], { socket: rig.daemon.socket });
    assert.equal(wrong.exitCode, 2);
    assert.match(wrong.stderr, /pending, attached, detaching, removed/);
    // Without states, as clients of before ask: everything.
    assert.equal((await rig.client.listVolumes('one')).length, 2);
    const nothing = await refusal(
      call<ListVolumesResponse__Output>((done) =>
        rig.client.volumes.list({ sandboxId: 'one', states: ['VOLUME_STATE_UNSPECIFIED'] }, done),
      ),
    );
    assertRefusal(nothing, { code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELD' });
  });
});

describe('a source that is a symbolic link', () => {
  it('get shows where it led to, and shows one that is none as it was', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox();
    const path = await rig.daemon.rawFile('real.img', MIB);
    const real = await realpath(path);
    const link = join(rig.daemon.volumeDir, 'link.img');
    await symlink('real.img', link);
    const spec = { rawFile: { path: link } };
    const attached = await rig.client.attach({ sandboxId: 'one', volumeId: 'linked', spec });
    assert.equal(attached.spec?.rawFile?.path, link);
    assert.equal(attached.resolvedSource, real);
    assert.ok((await qshim(rig, 'volume', 'get', 'one', 'linked')).includes(`raw ${link} -> ${real}\n`));
    await rig.attach('plain');
    assert.match(await qshim(rig, 'volume', 'get', 'one', 'plain'), /^source +raw [^ ]+plain$/m);
  });
});

describe('resize to what there is', () => {
  it('max: what the file has now; +SIZE: that much more than the volume has', async () => {
    await using rig = await FakeVmRig.start();
    const scripts = new FakeScripts(await rig.sandbox());
    await rig.attach('v');
    await truncate(join(rig.daemon.volumeDir, 'v'), 5 * MIB);
    await qshim(rig, 'volume', 'resize', 'one', 'v', 'max');
    assert.equal((await rig.volume('v')).sizeBytes, 5 * MIB);
    await qshim(rig, 'volume', 'resize', 'one', 'v', '+5G');
    assert.equal((await rig.volume('v')).sizeBytes, 5 * MIB + 5 * 1024 * MIB);
    assert.deepEqual(scripts.ran, ['resize', 'resize']);
  });

  it('a source that is shorter than the volume is no size to resize to', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox();
    await rig.attach('v');
    await truncate(join(rig.daemon.volumeDir, 'v'), MIB / 2);
    const small = await refusal(
      call<Volume__Output>((done) => rig.client.volumes.resize({ sandboxId: 'one', volumeId: 'v' }, done)),
    );
    assertRefusal(small, { code: 'FAILED_PRECONDITION', reason: 'SHRINK_REFUSED' });
    assert.equal((await rig.volume('v')).sizeBytes, MIB);
  });
});
