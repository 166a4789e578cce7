import assert from 'node:assert/strict';
import { chmod, chown, link, mkdir, mkdtemp, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { configWith, type Config } from '../../src/config.ts';
import { holdBootImages, type BootImages } from '../../src/volume/boot-images.ts';
import { BackingClaims } from '../../src/volume/claims.ts';
import { findBootImages } from '../../src/volume/looks.ts';
import { fileIdentity } from '../../src/volume/source/open-file.ts';
import { inspectSource } from '../../src/volume/spec.ts';
import { BASE_SPEC } from '../support/base-spec.ts';

const ANYBODY = 12_345;

/** Boot images in their root, those of the configuration elsewhere, and volumes. */
class Scratch implements AsyncDisposable {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Scratch> {
    const scratch = new Scratch(await realpath(await mkdtemp(join(tmpdir(), 'qshim-boot-'))));
    for (const name of ['boot', 'boot/6.1', 'boot-other', 'own', 'volumes']) await mkdir(scratch.path(name));
    for (const name of ['boot/k', 'boot/6.1/k', 'boot-other/k', 'own/k', 'own/i', 'volumes/a.raw']) {
      await writeFile(scratch.path(name), 'x'.repeat(512));
    }
    return scratch;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  get config(): Config {
    const [kernel, initrd] = [this.path('own/k'), this.path('own/i')];
    return configWith({ kernel, initrd, boot_roots: [this.path('boot')], allowed_roots: [this.directory] });
  }

  /** With a kernel of the caller's, and the configured ramdisk. */
  find(kernel: string): Promise<BootImages> {
    return findBootImages({ kernel: this.path(kernel), initrd: this.config.initrd }, this.config);
  }

  async attach(path: string, readOnly = false): Promise<void> {
    await inspectSource({ ...BASE_SPEC, readOnly, source: { kind: 'raw-file', path: this.path(path) } }, this.config);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

describe('a root that is a link on a file system of its own', () => {
  it('is still no place to write in', async () => {
    await using scratch = await Scratch.make();
    // Neither / nor where the file lies.
    const elsewhere = await mkdtemp('/dev/shm/qshim-boot-');
    try {
      await symlink(scratch.path('boot'), join(elsewhere, 'images'));
      const config = { ...scratch.config, boot_roots: [join(elsewhere, 'images')] };
      const source = { kind: 'raw-file', path: scratch.path('boot/k') } as const;
      const refused = { code: 'PERMISSION_DENIED', reason: 'BOOT_IMAGE_READ_ONLY' };
      await assert.rejects(inspectSource({ ...BASE_SPEC, readOnly: false, source }, config), refused);
    } finally {
      await rm(elsewhere, { recursive: true });
    }
  });
});

describe('which boot images may be named', () => {
  it("those below boot_roots, with every link resolved, and the configuration's own anywhere", async () => {
    await using scratch = await Scratch.make();
    await symlink('6.1', scratch.path('boot/current'));
    const found = await scratch.find('boot/current/k');
    assert.deepEqual(found, { kernel: scratch.path('boot/6.1/k'), initrd: scratch.path('own/i') });
    const { kernel, initrd } = scratch.config;
    assert.deepEqual(await findBootImages({ kernel, initrd }, scratch.config), { kernel, initrd });
  });

  it('none from elsewhere: not a volume, not through a link, not by a root that is only a prefix', async () => {
    await using scratch = await Scratch.make();
    await symlink('../volumes/a.raw', scratch.path('boot/innocent'));
    await symlink('../volumes', scratch.path('boot/folder'));
    for (const name of ['volumes/a.raw', 'boot/innocent', 'boot/folder/a.raw', 'boot-other/k']) {
      await assert.rejects(scratch.find(name), { code: 'PERMISSION_DENIED', reason: 'OUTSIDE_BOOT_ROOTS' }, name);
    }
    await assert.rejects(scratch.find('boot/nothing'), { reason: 'BOOT_IMAGE_NOT_FOUND' });
    await assert.rejects(scratch.find('boot/6.1'), { reason: 'WRONG_FILE_TYPE' });
  });

  it("none that others may change, by the file's or a directory's mode or owner", async () => {
    const refused = { code: 'PERMISSION_DENIED', reason: 'BOOT_IMAGE_WRITABLE' };
    for (const spoil of [
      (path: string) => chmod(path, 0o775),
      (path: string) => chmod(path, 0o757),
      ...(process.getuid?.() === 0 ? [(path: string) => chown(path, ANYBODY, 0)] : []),
    ]) {
      for (const name of ['boot/6.1/k', 'boot/6.1', 'boot']) {
        await using scratch = await Scratch.make();
        await scratch.find('boot/6.1/k');
        await spoil(scratch.path(name));
        await assert.rejects(scratch.find('boot/6.1/k'), refused, name);
      }
    }
    await using scratch = await Scratch.make();
    await chmod(scratch.path('boot'), 0o1777);
    await scratch.find('boot/k');
    await chmod(scratch.path('own/i'), 0o666);
    await assert.rejects(scratch.find('boot/k'), refused, "the configuration's own too, where anybody may write");
  });
});

describe('boot images are not written to', () => {
  it('neither below boot_roots, nor those of the configuration, by whatever name', async () => {
    await using scratch = await Scratch.make();
    await link(scratch.path('own/i'), scratch.path('volumes/hard.raw'));
    await symlink('../boot/k', scratch.path('volumes/soft.raw'));
    for (const name of ['boot/k', 'own/k', 'volumes/hard.raw', 'volumes/soft.raw']) {
      const refusal = { code: 'PERMISSION_DENIED', reason: 'BOOT_IMAGE_READ_ONLY' };
      await assert.rejects(scratch.attach(name), refusal, name);
      await scratch.attach(name, true);
    }
    await scratch.attach('volumes/a.raw');
  });

  it('by nobody while a VM has them; and no VM boots what somebody writes to', async () => {
    await using scratch = await Scratch.make();
    const claims = new BackingClaims();
    const images = await scratch.find('boot/k');
    const identityOf = async (path: string): Promise<string> => fileIdentity(await stat(path));
    const volume = { identity: await identityOf(images.kernel), described: images.kernel };
    {
      using _one = await holdBootImages(claims, images, 'sandbox one');
      using _two = await holdBootImages(claims, images, 'sandbox two');
      assert.match(claims.conflict(volume, 'a volume', true)?.message ?? '', /is in use by sandbox one$/);
      assert.equal(claims.conflict(volume, 'a volume', false), undefined);
    }
    claims.claim(volume, 'a volume', true);
    const held = holdBootImages(claims, images, 'sandbox three');
    await assert.rejects(held, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });
    claims.release(volume.identity, 'a volume');
    // Nothing was left of the hold that failed: neither image is held.
    await rename(images.initrd, scratch.path('moved'));
    const initrd = { identity: await identityOf(scratch.path('moved')), described: 'initrd' };
    for (const image of [volume, initrd]) assert.equal(claims.conflict(image, 'a volume', true), undefined);
  });
});
