import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { TestDaemon } from '../support/daemon.ts';
import { assertRefusal, refusal, refusedWithoutTrace, withoutHistory, worldState } from '../support/errors.ts';
import { startBareQemu } from '../support/bare-qemu.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** What the host itself refuses: locks of other processes, permissions, an accelerator that does not work. */

const skip = await realVmSkipReason();
const NOBODY = 65_534;
const KVM_FALLBACK_MS = 3000;

await describe('a file that another process uses', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
    const spec = { rawFile: { path: await daemon.rawFile('first.raw') } };
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'first', spec });
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'first' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  for (const { kind, holderReadOnly, readOnly } of [
    { kind: 'rawFile', holderReadOnly: false, readOnly: false },
    { kind: 'rawFile', holderReadOnly: false, readOnly: true },
    { kind: 'rawFile', holderReadOnly: true, readOnly: false },
    { kind: 'qcow2File', holderReadOnly: false, readOnly: false },
  ]) {
    const what = `${kind}, ${readOnly ? 'read-only' : 'writable'}, beside a ${holderReadOnly ? 'reader' : 'writer'}`;
    await it(`is refused without a trace and can be attached afterwards: ${what}`, async () => {
      const path = await daemon.rawFile(`held-${kind}-${holderReadOnly}-${readOnly}`);
      if (kind === 'qcow2File') await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', path, '16M']);
      const attach = () =>
        daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec: { [kind]: { path }, readOnly } });
      const before = withoutHistory(await worldState(daemon));
      {
        await using _holder = await startBareQemu([
          ...['-machine', 'q35', '-accel', 'tcg', '-S'],
          ...['-blockdev', `driver=file,node-name=held,filename=${path},read-only=${holderReadOnly ? 'on' : 'off'}`],
          ...['-device', 'virtio-blk-pci,drive=held'],
        ]);
        const seen = await refusal(attach());
        assertRefusal(seen, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });
        assert.equal(seen.metadata['path'], path);
        assert.ok(seen.message.includes(path), seen.message);
        assert.match(seen.message, /another process/);
        assert.deepEqual(withoutHistory(await worldState(daemon)), before);
        const volume = await daemon.client.getVolume('vm', 'v');
        assert.equal(volume.state, 'VOLUME_STATE_REMOVED');
        assert.equal(volume.cause?.reason, 'BACKING_IN_USE');
        assert.equal(volume.attachedAt, null);
      }
      assert.equal((await attach()).state, 'VOLUME_STATE_ATTACHED');
      await daemon.client.detach({ sandboxId: 'vm', volumeId: 'v' });
      assert.deepEqual(withoutHistory(await worldState(daemon)), before);
    });
  }
});

/** Why no daemon can be started as another user here, or false. */
async function unprivilegedSkipReason(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'only root can start a daemon as another user';
  const look = ['-e', 'fs.accessSync(process.argv[1], fs.constants.R_OK)', import.meta.filename];
  return await promisify(execFile)(process.execPath, look, { uid: NOBODY, cwd: '/' }).then(
    () => skip,
    () => 'other users may not enter the directory of this checkout',
  );
}

const unprivileged = await unprivilegedSkipReason();

await describe('a daemon without privileges', { skip: unprivileged }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start({ uid: NOBODY });
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
    const first = await daemon.rawFile('first.raw');
    await chmod(first, 0o666);
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'first', spec: { rawFile: { path: first } } });
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'first' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  const denied = { code: 'PERMISSION_DENIED', reason: 'SOURCE_NOT_ACCESSIBLE', field: 'spec.source.path' };

  await it('refuses a file that it may not read, and one that it may not write', async () => {
    const path = await daemon.rawFile('root.raw');
    const attach = (readOnly: boolean) => () =>
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec: { rawFile: { path }, readOnly } });
    await chmod(path, 0o600);
    for (const readOnly of [false, true]) {
      assertRefusal(await refusedWithoutTrace(daemon, attach(readOnly)), { ...denied, value: path });
    }
    await chmod(path, 0o644);
    assertRefusal(await refusedWithoutTrace(daemon, attach(false)), { ...denied, value: path });
    assert.equal((await attach(true)()).state, 'VOLUME_STATE_ATTACHED');
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'v' });
  });

  await it('refuses a file in a directory that it may not enter', async () => {
    const directory = join(daemon.volumeDir, 'closed');
    await mkdir(directory);
    const path = join(directory, 'disk.raw');
    await writeFile(path, Buffer.alloc(1024 * 1024), { mode: 0o666 });
    await chmod(directory, 0o700);
    const seen = await refusedWithoutTrace(daemon, () =>
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec: { rawFile: { path } } }),
    );
    assertRefusal(seen, { ...denied, value: path });
  });

  await it('refuses a kernel that it may not read', async () => {
    const kernel = join(daemon.bootDir, 'vmlinuz');
    await writeFile(kernel, 'secret', { mode: 0o600 });
    const seen = await refusedWithoutTrace(daemon, () =>
      daemon.client.createSandbox({ sandboxId: 'bad', spec: { kernel } }),
    );
    assertRefusal(seen, { ...denied, field: 'spec.kernel', value: kernel });
    await rm(kernel);
  });
});

await describe('the accelerator', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
  });
  after(() => daemon[Symbol.asyncDispose]());

  await it('is TCG for AUTO where KVM does not work, found out in 3 s, and Get says why', async (t) => {
    const started = await daemon.client.createSandbox({ sandboxId: 'auto', spec: { readyWhen: 'READY_WHEN_STARTED' } });
    const sandbox = await daemon.client.getSandbox('auto');
    assert.equal(sandbox.accelerator, started.accelerator);
    assert.notEqual(sandbox.accelerator, 'ACCELERATOR_AUTO');
    assert.notEqual(sandbox.acceleratorReason, '');
    if (sandbox.accelerator === 'ACCELERATOR_KVM') {
      t.skip('KVM works on this host');
      return;
    }
    assert.match(sandbox.acceleratorReason, /^KVM is not usable: .{10,}/);
    const line = (await daemon.log()).split('\n').find((text) => text.includes('"kvm probed"')) ?? '';
    const probe = JSON.parse(line) as { readonly usable: boolean; readonly milliseconds: number };
    assert.equal(probe.usable, false);
    // The payload is killed after kvm_probe_timeout_ms (2 s); the rest is what a busy host may take to do so.
    assert.ok(probe.milliseconds < KVM_FALLBACK_MS, `the probe took ${probe.milliseconds} ms`);
  });

  await it('is refused when KVM is asked for and does not work', async (t) => {
    const { accelerator } = await daemon.client.getSandbox('auto');
    if (accelerator === 'ACCELERATOR_KVM') {
      t.skip('KVM works on this host');
      return;
    }
    const seen = await refusedWithoutTrace(daemon, () =>
      daemon.client.createSandbox({ sandboxId: 'kvm', spec: { accelerator: 'ACCELERATOR_KVM' } }),
    );
    assertRefusal(seen, { code: 'FAILED_PRECONDITION', reason: 'KVM_UNUSABLE' });
    assert.deepEqual({ ...seen.metadata }, { field: 'spec.accelerator', value: 'kvm' });
  });
});
