import assert from 'node:assert/strict';
import { copyFile, link, realpath, stat, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { TestDaemon, type ApiClient } from '../support/daemon.ts';
import { decodeRefusal } from '../support/errors.ts';
import { INITRD } from '../support/guest-image.ts';

/** The reason with which a call is refused; fails when it is not. */
async function refused(work: Promise<unknown>): Promise<string> {
  const outcome = await work.then(
    () => undefined,
    (error: unknown) => decodeRefusal(error),
  );
  assert.ok(outcome !== undefined, 'the call was not refused');
  return outcome.reason;
}

/** A sandbox whose VM runs; its guest may still boot. */
async function started(client: ApiClient, sandboxId: string, initrd = ''): Promise<void> {
  await client.createSandbox({ sandboxId, spec: { initrd, readyWhen: 'READY_WHEN_STARTED' } });
}

describe("what one tenant writes to is in nobody's boot", { timeout: 300_000 }, () => {
  it('a volume is no ramdisk: by its own name, by a link, or by another name of the same file', async () => {
    await using daemon = await TestDaemon.start();
    const { client, bootDir } = daemon;
    const secret = await daemon.rawFile('tenant-a.raw');
    await client.createSandbox({ sandboxId: 'a' });
    await client.attach({ sandboxId: 'a', volumeId: 'data', spec: { rawFile: { path: secret } } });
    assert.equal(await refused(started(client, 'b', secret)), 'OUTSIDE_BOOT_ROOTS');
    await symlink(secret, join(bootDir, 'soft'));
    assert.equal(await refused(started(client, 'b', join(bootDir, 'soft'))), 'OUTSIDE_BOOT_ROOTS');
    await link(secret, join(bootDir, 'hard'));
    assert.equal(await refused(started(client, 'b', join(bootDir, 'hard'))), 'BACKING_IN_USE');
    await client.deleteSandbox('a');
  });

  it('nor is a boot image a volume that is written to, also after the daemon was killed', async () => {
    let daemon = await TestDaemon.start();
    const { bootDir, volumeDir, directory } = daemon;
    await copyFile(INITRD, join(bootDir, 'initrd.img'));
    await symlink('initrd.img', join(bootDir, 'current'));
    const volume = join(volumeDir, 'innocent.raw');
    await link(join(bootDir, 'initrd.img'), volume);
    const { mtimeMs } = await stat(volume);
    const attach = (): Promise<unknown> =>
      daemon.client.attach({ sandboxId: 'b', volumeId: 'innocent', spec: { rawFile: { path: volume } } });
    await started(daemon.client, 'b', join(bootDir, 'current'));
    const { bootImages } = await daemon.client.getSandbox('b');
    assert.equal(bootImages?.initrd, await realpath(join(bootDir, 'initrd.img')));
    assert.equal(await refused(attach()), 'BACKING_IN_USE');
    await daemon.kill('SIGKILL');
    daemon = await TestDaemon.start({ directory });
    assert.equal(await refused(attach()), 'BACKING_IN_USE');
    assert.equal((await stat(volume)).mtimeMs, mtimeMs);
    await daemon.client.deleteSandbox('b');
    await daemon.kill('SIGTERM');
    // Whoever allows both roots at once has not allowed this.
    await using wide = await TestDaemon.start({ directory, config: { allowed_roots: `${volumeDir},${bootDir}` } });
    await started(wide.client, 'c');
    const spec = { rawFile: { path: join(bootDir, 'initrd.img') } };
    assert.equal(await refused(wide.client.attach({ sandboxId: 'c', volumeId: 'v', spec })), 'BOOT_IMAGE_READ_ONLY');
    await wide.client.deleteSandbox('c');
  });
});
