import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import type { Reason } from '../../src/base/reasons.ts';
import type { Mount } from '../../src/grpc/generated/qshim/v1/Mount.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { refusal } from '../support/errors.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';

/** What is wrong in itself is refused before QEMU hears of it, and before the source is written to. */

const SOURCE_BYTES = 8 * 1024 * 1024;

const ENCRYPTIONS = {
  plain: {},
  'host_luks, to be made': {
    encryption: { hostLuks: { key: { file: '/nowhere/key' }, format: 'FORMAT_IF_EMPTY' } },
  },
  'guest_luks2, to be made': { encryption: { guestLuks2: { ephemeralKey: {}, mode: 'LUKS_MODE_CREATE' } } },
} as const satisfies Record<string, VolumeSpec>;

const WRONG: readonly { readonly mount: Mount; readonly reason: Reason }[] = [
  { mount: { mountPoint: '/mnt/a/' }, reason: 'INVALID_MOUNT_POINT' },
  { mount: { mountPoint: '/mnt//a' }, reason: 'INVALID_MOUNT_POINT' },
  { mount: { mountPoint: '/mnt/a\n' }, reason: 'INVALID_MOUNT_POINT' },
  { mount: { mountPoint: '/mnt/a', options: ['ro'] }, reason: 'INVALID_MOUNT_OPTION' },
  { mount: { mountPoint: '/mnt/a', options: ['noatime', '=x'] }, reason: 'INVALID_MOUNT_OPTION' },
];

describe('a mount that no guest would make', { timeout: 120_000 }, () => {
  for (const [kind, encryption] of Object.entries(ENCRYPTIONS)) {
    it(`of a volume that is ${kind}: Attach, AttachMany and Plan refuse it, and nothing is touched`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      const path = await rig.daemon.rawFile('source', SOURCE_BYTES);
      const before = vm.qmp.received.length;
      for (const { mount, reason } of WRONG) {
        const wanted: Mount = { fsType: 'ext4', format: 'FORMAT_IF_EMPTY', ...mount };
        const spec: VolumeSpec = { rawFile: { path }, ...encryption, mount: wanted };
        const seen = await refusal(rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec }));
        assert.deepEqual([seen.code, seen.reason], ['INVALID_ARGUMENT', reason]);
        const volumes = [{ volumeId: 'a', spec }];
        const [plan] = await rig.client.plan({ sandboxId: 'one', volumes });
        assert.deepEqual(
          plan?.problems.map((problem) => problem.reason),
          [reason],
        );
        const [member] = await rig.client.attachMany({ sandboxId: 'one', volumes });
        assert.equal(member?.problem?.reason, reason);
      }
      assert.equal(vm.qmp.received.length, before, 'QEMU heard nothing');
      assert.ok((await readFile(path)).equals(Buffer.alloc(SOURCE_BYTES)), 'the source is as it was');
      assert.deepEqual(await rig.client.listVolumes('one'), [], 'there is no record of it');
    });
  }

  it('a mount point that another volume of the sandbox, or of the batch, is to have', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const held = vm.hold('blockdev-add');
    const [first, second, third] = await Promise.all(
      ['first', 'second', 'third'].map((name) => rig.daemon.rawFile(name, SOURCE_BYTES)),
    );
    const spec = (path = '', mountPoint = '/mnt/a'): VolumeSpec => ({
      rawFile: { path },
      mount: { fsType: 'ext4', mountPoint },
    });
    const attach = refusal(
      rig.client.attach({ sandboxId: 'one', volumeId: 'first', timeoutMs: 500, spec: spec(first) }),
    );
    await held.came;
    const seen = await refusal(rig.client.attach({ sandboxId: 'one', volumeId: 'second', spec: spec(second) }));
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'GUEST_MOUNT_POINT_BUSY']);
    assert.equal(seen.metadata['volumeId'], 'first');
    const plans = await rig.client.plan({
      sandboxId: 'one',
      volumes: [
        { volumeId: 'second', spec: spec(second, '/mnt/b') },
        { volumeId: 'third', spec: spec(third, '/mnt/b') },
      ],
    });
    assert.deepEqual(
      plans.map(({ problems }) => problems.map(({ reason }) => reason)),
      [[], ['GUEST_MOUNT_POINT_BUSY']],
    );
    held.release();
    await attach;
  });
});
