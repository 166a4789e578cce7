import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { z } from 'zod';
import { silentLogger } from '../../src/base/log.ts';
import {
  checkAllowedRoots,
  checkFolderLock,
  checkPrivateFolder,
  checkReadableFile,
} from '../../src/doctor/folder-checks.ts';
import { commandFindings, fenceFinding } from '../../src/doctor/command-checks.ts';
import { examineHost } from '../../src/doctor/host.ts';
import {
  aioFinding,
  checkAllocator,
  checkKvm,
  checkQemu,
  missingWords,
  qemuVersionFinding,
} from '../../src/doctor/qemu-checks.ts';
import { checkLoopDevices, memoryFinding } from '../../src/doctor/resource-checks.ts';

async function folder(cleanup: AsyncDisposableStack): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'qshim-doctor-'));
  cleanup.defer(() => rm(path, { recursive: true, force: true }));
  return path;
}

describe('KVM', () => {
  it('the remedy is for what is at fault: no device, one on which QEMU fails', async () => {
    await using cleanup = new AsyncDisposableStack();
    const qemuBinary = join(await folder(cleanup), 'qemu');
    await writeFile(qemuBinary, '#!/bin/sh\necho "assertion failed" >&2\nkill -ABRT $$\n', { mode: 0o755 });
    const at = async (device: string): Promise<string> =>
      (await checkKvm({ qemuBinary, kvmProbeTimeoutMs: 60_000, device })).remedy ?? '';
    assert.match(await at('/nonexistent/kvm'), /load kvm_intel or kvm_amd/);
    const aborts = await at('/dev/null');
    assert.match(aborts, /this user may open \/dev\/kvm, but guests do not run/);
    assert.doesNotMatch(aborts, /allow this user/);
  });
});

describe('QEMU', () => {
  it('7.2 is the oldest that passes, whatever the packager adds', () => {
    const statusOf = (version: string): string => qemuVersionFinding('q', `QEMU emulator version ${version}`).status;
    assert.deepEqual(['7.2.22 (Debian 1:7.2+dfsg-7)', '7.2', '10.0.2', '11.1.0-rc1'].map(statusOf), [
      'ok',
      'ok',
      'ok',
      'ok',
    ]);
    assert.deepEqual(['7.1.9', '6.2.0', '2.11', 'unknown', ''].map(statusOf), Array(5).fill('failure'));
  });

  it('a feature counts only as a word of its own', () => {
    const text = 'name "virtio-blk-pci-non-transitional", bus PCI\nname "pci-bridge", bus PCI\n';
    assert.deepEqual(missingWords(text, ['virtio-blk-pci', 'pci-bridge']), ['virtio-blk-pci']);
  });

  it('a binary that is missing or broken is one failure with a remedy', async () => {
    for (const binary of ['/nonexistent/qemu', 'false']) {
      const { runs, findings } = await checkQemu(binary);
      assert.equal(runs, false);
      assert.deepEqual(
        findings.map(({ status, remedy }) => [status, remedy !== undefined]),
        [['failure', true]],
      );
    }
    assert.match((await checkQemu('/nonexistent/qemu')).findings[0]?.detail ?? '', /was not found/);
  });

  it('one that lacks the devices says which', async () => {
    await using cleanup = new AsyncDisposableStack();
    const binary = join(await folder(cleanup), 'qemu');
    await writeFile(binary, '#!/bin/sh\necho "QEMU emulator version 8.0.0 q35 pci-bridge -sandbox"\n', { mode: 0o755 });
    const { runs, findings } = await checkQemu(binary);
    assert.equal(runs, true);
    assert.match(findings[1]?.detail ?? '', /^missing: virtio-blk-pci, virtio-serial-pci/);
  });

  it('the allocator: tried, and said when it is passed over', async () => {
    const tried = (qemuAllocator: string) => checkAllocator({ qemuBinary: '/bin/true', qemuAllocator });
    assert.equal((await tried('system')).status, 'ok');
    const missing = await tried('/nowhere/lib.so');
    assert.equal(missing.status, 'warning');
    assert.match(missing.detail, /\/nowhere\/lib\.so is passed over: .*cannot be preloaded/);
  });

  it('commands: what works, and what qshim does without', () => {
    const works = { outcome: 'works', detail: '' } as const;
    const fatal = { outcome: 'fatal', detail: 'QEMU was ended by SIGABRT' } as const;
    const trials = { 'x-query-virtio-status': fatal, 'x-blockdev-amend': works } as const;
    const [contract, status, amend, ...others] = commandFindings({ contractFindings: [], trials });
    assert.deepEqual([contract?.status, status?.status, amend?.status, others], ['ok', 'warning', 'ok', []]);
    assert.equal(status?.detail, 'fatal when tried in a VM of its own: QEMU was ended by SIGABRT');
    assert.match(status.remedy ?? '', /does not send it.*reads/);
    const [lacking, ...untried] = commandFindings({
      contractFindings: ['a', 'b', 'c', 'd', 'e', 'f', 'g'],
      trials: {},
    });
    assert.deepEqual([lacking?.status, lacking?.detail], ['warning', 'a; b; c; d; e; and 2 more']);
    assert.deepEqual(
      untried.map(({ status: one, detail }) => [one, detail]),
      Array(2).fill(['warning', 'not tried']),
    );
  });

  it('a QEMU without the device for fences is told', () => {
    assert.equal(fenceFinding(true).status, 'ok');
    assert.equal(fenceFinding(false).status, 'warning');
    assert.match(fenceFinding(false).remedy ?? '', /another QEMU|a QEMU that has it/);
  });

  it('aio: threads must work, the others may be missing', () => {
    const probes = (threads: boolean, uring: boolean): Parameters<typeof aioFinding>[0] => [
      { mode: 'threads', usable: threads, reason: 'r' },
      { mode: 'io_uring', usable: uring, reason: 'refused by the kernel' },
    ];
    assert.equal(aioFinding(probes(true, true)).status, 'ok');
    assert.equal(aioFinding(probes(true, false)).status, 'warning');
    assert.match(aioFinding(probes(true, false)).detail, /io_uring: refused by the kernel/);
    assert.equal(aioFinding(probes(false, true)).status, 'failure');
  });
});

describe('files and folders', () => {
  it('a guest image must be there and not be empty', async () => {
    await using cleanup = new AsyncDisposableStack();
    const path = join(await folder(cleanup), 'vmlinuz');
    assert.equal((await checkReadableFile('k', path, 'r')).status, 'failure');
    await writeFile(path, '');
    assert.match((await checkReadableFile('k', path, 'r')).detail, /is empty/);
    await writeFile(path, 'x');
    assert.equal((await checkReadableFile('k', path, 'r')).status, 'ok');
  });

  it('a folder that does not exist yet is locked at its nearest parent; held, or where it fails, is a failure', async () => {
    await using cleanup = new AsyncDisposableStack();
    const parent = await folder(cleanup);
    const found = await checkFolderLock(join(parent, 'not/yet'));
    assert.deepEqual([found.status, found.detail], ['ok', `${parent} can be locked`]);
    const held = await checkFolderLock(parent, () => false);
    assert.deepEqual([held.status, held.detail], ['failure', `${parent} was locked by another process for 5000 ms`]);
    const failed = await checkFolderLock(parent, () => {
      throw new Error('flock: EOPNOTSUPP');
    });
    assert.deepEqual([failed.status, failed.detail], ['failure', `${parent} cannot be locked: flock: EOPNOTSUPP`]);
    assert.match(failed.remedy ?? '', /local file system/);
  });

  it('private folders: open to others is a warning, makeable is fine, in the way is a failure', async () => {
    await using cleanup = new AsyncDisposableStack();
    const root = await folder(cleanup);
    const path = join(root, 'state');
    assert.match((await checkPrivateFolder('s', join(path, 'deeper'), 'o')).detail, /the daemon makes it/);
    await mkdir(path);
    await chmod(path, 0o755);
    const open = await checkPrivateFolder('s', path, 'o');
    assert.deepEqual([open.status, open.remedy], ['warning', `chmod 0700 ${path}`]);
    await chmod(path, 0o700);
    assert.equal((await checkPrivateFolder('s', path, 'o')).status, 'ok');
    await writeFile(join(path, 'file'), '');
    assert.equal((await checkPrivateFolder('s', join(path, 'file', 'below'), 'o')).status, 'failure');
  });

  it('what this user may not is no fault of the file system, the image or the program', async () => {
    await using cleanup = new AsyncDisposableStack();
    const root = await folder(cleanup);
    await mkdir(join(root, 'closed'));
    for (const name of ['image', 'program', 'device']) await writeFile(join(root, name), '#!/bin/sh\n');
    for (const name of ['closed', 'image', 'program', 'device']) await chmod(join(root, name), 0);
    await chmod(root, 0o755);
    const user = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
    const main = join(import.meta.dirname, '../support/doctor-main.ts');
    const { stdout } = await execa(process.execPath, ['--disable-warning=ExperimentalWarning', main, root], user);
    const found = z.array(z.object({ check: z.string(), status: z.string(), detail: z.string(), remedy: z.string() }));
    const lines = found.parse(JSON.parse(stdout)).map(({ check, detail, remedy }) => `${check}: ${detail}; ${remedy}`);
    const locked = /^folder lock: .* cannot be opened, so locks are not tried: EACCES.*; run as the user of the daemon/;
    const folders = /^state folder: .* may not be used by this user; run as the user of the daemon/;
    const expected = [
      ...[locked, locked, folders, folders],
      /^guest kernel: .* cannot be read: EACCES.*; let the user of the daemon read it/,
      /^qemu: .* does not run: .*; let the user of the daemon execute it/s,
      /^kvm: .*device may not be opened by this user.*; allow this user to open \/dev\/kvm \(group kvm\)/,
    ];
    assert.equal(lines.length, expected.length);
    for (const [index, pattern] of expected.entries()) assert.match(lines[index] ?? '', pattern);
  });

  it('allowed roots that are not there are named', async () => {
    assert.equal((await checkAllowedRoots([tmpdir()])).status, 'ok');
    assert.match((await checkAllowedRoots([tmpdir(), '/nonexistent/a'])).detail, /: \/nonexistent\/a$/);
  });
});

describe('resources', () => {
  it('memory for at least one sandbox', () => {
    assert.equal(memoryFinding('MemTotal: 1 kB\nMemAvailable:   655360 kB\n', 512).status, 'ok');
    assert.equal(memoryFinding('MemAvailable:   655359 kB\n', 512).status, 'warning');
    assert.equal(memoryFinding('MemTotal: 1 kB\n', 512).status, 'warning');
  });

  it('loop devices', async () => {
    assert.equal((await checkLoopDevices('/dev/null')).status, 'ok');
    assert.equal((await checkLoopDevices('/nonexistent')).status, 'warning');
  });
});

it('an interruption ends the examination; without QEMU nothing is started', async () => {
  const options = {
    qemuBinary: '/nonexistent/qemu',
    kernel: '/nonexistent/k',
    initrd: '/nonexistent/i',
    stateDir: tmpdir(),
    socketDir: tmpdir(),
    allowedRoots: [tmpdir()],
    memoryMib: 64,
    qemuAllocator: 'system',
    kvmProbeTimeoutMs: 1000,
    confine: 'off' as const,
    confineUids: '1900000000-1900065535',
    log: silentLogger(),
  };
  const findings = await examineHost({ ...options, signal: new AbortController().signal });
  assert.deepEqual(
    findings.map(({ check }) => check),
    [
      'qemu',
      'guest kernel',
      'guest initrd',
      'state folder',
      'socket folder',
      'folder lock',
      'allowed roots',
      'memory',
      'loop devices',
    ],
  );
  const reason = new Error('enough');
  await assert.rejects(examineHost({ ...options, signal: AbortSignal.abort(reason) }), reason);
});
