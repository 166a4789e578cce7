import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import { configWith } from '../../src/config.ts';
import { Templates } from '../../src/template/templates.ts';
import { VM_DIRECTORY } from '../../src/template/vm.ts';
import { cellsFor } from '../support/cells.ts';
import { makeHostCgroup } from '../support/host-cgroup.ts';
const MAIN = join(import.meta.dirname, '../support/template-key-main.ts');
const FILES_MAX = 64;
const LAUNCH = {
  accelerator: 'tcg',
  vcpus: 1,
  memoryMib: 128,
  kernelParameters: '',
  bridges: [],
  iothreads: [],
  portsMax: 1,
} as const;
const KEY = /^[0-9a-f]{64}$/;

it('a template whose key cannot be told for want of descriptors is found once there are some', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-keys-'));
  try {
    const script = `ulimit -n ${FILES_MAX}; exec "$0" --disable-warning=ExperimentalWarning "$@"`;
    const { stdout } = await execa('sh', ['-c', script, process.execPath, MAIN, directory], { stdin: 'ignore' });
    const [first, second] = JSON.parse(stdout) as readonly string[];
    assert.doesNotMatch(first ?? '', KEY);
    assert.match(second ?? '', KEY);
  } finally {
    await rm(directory, { recursive: true });
  }
});

it('a directory that would not do when the daemon started, and was put right, is used', async () => {
  const directory = await mkdtemp('/dev/shm/qshim-open-');
  try {
    // Any file will do for one that is booted, any program for one that tells its version.
    const file = process.execPath;
    const path = join(directory, 't');
    await mkdir(path);
    await chmod(path, 0o755);
    await using templates = await Templates.open(
      configWith({ templates_dir: path, qemu_binary: file }),
      silentLogger(),
      await cellsFor(),
      () => Promise.resolve(new DisposableStack()),
    );
    const why = async (): Promise<string> => {
      const found = await templates.find(
        { ...LAUNCH, kernel: file, initrd: file },
        'auto',
        AbortSignal.timeout(60_000),
      );
      return 'reason' in found ? found.reason : '';
    };
    assert.match(await why(), /there are no templates here: .* nobody else may enter/);
    await chmod(path, 0o700);
    assert.match(await why(), /there was no template for it yet/);
  } finally {
    await rm(directory, { recursive: true });
  }
});

it('of a template that a killed daemon was making the control group goes too', async (test) => {
  const path = await mkdtemp(join(tmpdir(), 'qshim-left-'));
  try {
    const left = join(path, `building-${process.pid}-1-00000000`);
    await mkdir(left, { mode: 0o700 });
    const group = await makeHostCgroup(join(left, VM_DIRECTORY));
    if (group === undefined) {
      test.skip('no cgroup2 that this user may change');
      return;
    }
    const config = configWith({ templates_dir: path, qemu_binary: process.execPath });
    await using _templates = await Templates.open(config, silentLogger(), await cellsFor(), () =>
      Promise.resolve(new DisposableStack()),
    );
    assert.equal(existsSync(group), false);
    assert.equal(existsSync(left), false);
  } finally {
    await rm(path, { recursive: true });
  }
});
