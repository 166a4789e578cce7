import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { allocatorEnvironment, chooseAllocator, findAllocator } from '../../src/qemu/allocator.ts';
import { QemuProcess } from '../../src/qemu/process.ts';

describe("QEMU's allocator", () => {
  it('tcmalloc before jemalloc, wherever they are; none where there is none', async () => {
    const one = await mkdtemp(join(tmpdir(), 'qshim-lib-'));
    const other = await mkdtemp(join(tmpdir(), 'qshim-lib-'));
    try {
      assert.equal(await findAllocator([one, other]), undefined);
      await writeFile(join(one, 'libjemalloc.so.2'), '');
      assert.equal(await findAllocator([one, other]), join(one, 'libjemalloc.so.2'));
      await writeFile(join(other, 'libtcmalloc_minimal.so.4'), '');
      assert.equal(await findAllocator([one, other]), join(other, 'libtcmalloc_minimal.so.4'));
    } finally {
      for (const directory of [one, other]) await rm(directory, { recursive: true });
    }
  });

  it('`system` adds nothing, and a path is preloaded', () => {
    assert.deepEqual(allocatorEnvironment('system'), {});
    assert.deepEqual(allocatorEnvironment('/opt/lib/mine.so'), { LD_PRELOAD: '/opt/lib/mine.so' });
  });

  it('one that QEMU was not seen to run with is not used', async () => {
    assert.deepEqual(await chooseAllocator('/bin/true', 'system'), { allocator: 'system', problem: undefined });
    const missing = await chooseAllocator('/bin/true', '/nowhere/lib.so');
    assert.equal(missing.allocator, 'system');
    assert.match(missing.problem ?? '', /^\/nowhere\/lib\.so is passed over: .*cannot be preloaded/);
    const broken = await chooseAllocator('/bin/false', '/nowhere/lib.so');
    assert.equal(broken.allocator, 'system');
    assert.match(broken.problem ?? '', /does not run with/);
  });

  it('one that cannot be loaded does not keep QEMU from running', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-lib-'));
    try {
      const log = join(directory, 'log');
      const child = await QemuProcess.spawn('/bin/sh', ['-c', 'echo ran'], directory, log, '/nowhere/lib.so');
      assert.deepEqual(await child.exited, { code: 0, signal: undefined });
      const said = await readFile(log, 'utf8');
      assert.match(said, /ran/);
      assert.match(said, /nowhere/);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
