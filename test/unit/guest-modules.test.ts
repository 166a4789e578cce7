import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { isKernelPackage } from '../../scripts/guest/contents.ts';
import { isCompressed, unpackModule, withoutCompression } from '../../scripts/guest/modules.ts';

/** "a module\n", as `xz -9` of XZ Utils 5.4 writes it. */
const XZ = '/Td6WFoAAATm1rRGAgAhARwAAAAQz1jMAQAIYSBtb2R1bGUKAAAAAO7t3yA1q4g2AAEhCWwYxdUftvN9AQAAAAAEWVo=';

describe('kernels of other Debian suites', () => {
  it('compressed modules are unpacked, under the name of what they hold', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-modules-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const packed = { gz: gzipSync('a module\n'), zst: zstdCompressSync('a module\n'), xz: Buffer.from(XZ, 'base64') };
    for (const [extension, bytes] of Object.entries(packed)) {
      const path = join(directory, `dm-mod.ko.${extension}`);
      assert.equal(isCompressed(path), true);
      assert.equal(withoutCompression(path), join(directory, 'dm-mod.ko'));
      await writeFile(path, bytes);
      await unpackModule(path, withoutCompression(path));
      assert.equal(await readFile(join(directory, 'dm-mod.ko'), 'utf8'), 'a module\n', extension);
      await writeFile(path, bytes.subarray(0, -6));
      await assert.rejects(unpackModule(path, join(directory, 'half.ko')), Error, `${extension}, cut short`);
    }
    assert.equal(isCompressed('kernel/fs/xfs/xfs.ko'), false);
    assert.equal(withoutCompression('kernel/fs/xfs/xfs.ko'), 'kernel/fs/xfs/xfs.ko');
  });

  it('the packages of a kernel proper, in one or in several; no meta package, no tool', () => {
    const kernel = [
      'linux-image-5.10.0-32-cloud-amd64',
      'linux-image-6.12.117+deb13-cloud-amd64',
      'linux-binary-7.2.13+deb14-cloud-amd64',
      'linux-modules-7.2.13+deb14-cloud-amd64',
      'linux-base-7.2.13+deb14-cloud-amd64',
    ];
    assert.deepEqual(kernel.filter(isKernelPackage), kernel);
    const others = ['linux-image-cloud-amd64', 'linux-base', 'linux-libc-dev', 'initramfs-tools', 'dracut', 'kmod'];
    assert.deepEqual(others.filter(isKernelPackage), []);
  });
});
