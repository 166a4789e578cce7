import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import { guestScript, playerProgram } from '../../src/guest/programs.ts';
import { makeTemplate, type TemplateLaunch } from '../../src/template/vm.ts';
import { shellScripts } from '../../scripts/lib/shell-lint.ts';
import { KERNEL_PARAMETERS } from '../support/guest-image.ts';
import { cellsFor } from '../support/cells.ts';

const folder = join(import.meta.dirname, '../../src/guest/programs');
const names = globSync(['*.sh', 'containers/*.sh'], { cwd: folder }).map((path) => path.slice(0, -'.sh'.length));

describe('scripts for the guest', () => {
  for (const name of names) {
    it(`${name} is whole: with all that it includes, which the shell can read`, async () => {
      const text = guestScript(name);
      assert.doesNotMatch(text, /^\s*(\.|source) /m, 'the guest has none of the files');
      await execa('/bin/sh', ['-n'], { input: text });
      const functions = [...text.matchAll(/^(\w+)\(\)/gm)].map(([, found]) => found);
      // These replace what a library has, on purpose.
      const again = functions.filter((one, index) => functions.indexOf(one) !== index);
      const replaced: Readonly<Record<string, readonly string[]>> = {
        'open-luks2': ['fail', 'blank', 'ends_zero'],
        holders: ['busy'],
      };
      assert.deepEqual(again, replaced[name] ?? []);
    });
  }

  it('what is included twice is there once, before what needs it', () => {
    const text = guestScript('unmount');
    assert.equal(text.split('find_disk() {').length, 2);
    assert.ok(text.indexOf('find_disk() {') < text.indexOf('lock_disk() {'));
  });

  it('a script that is not there stops the daemon that would need it', () => {
    assert.throws(() => guestScript('no-such-script'), { code: 'ENOENT' });
  });

  it('a refusal is a fact, not a failure of the shell: no such disk', async () => {
    const args = ['-c', guestScript('unmount'), 'sh', 'ffff:ff:1f.7', 'serial'];
    const { stdout, stderr, exitCode } = await execa('/bin/sh', args, { reject: false });
    assert.deepEqual([exitCode, stdout, stderr], [1, 'error=GUEST_DISK_NOT_FOUND', 'no virtio disk at ffff:ff:1f.7']);
  });
});

describe('shell scripts that lint looks at', () => {
  it('are all of them, with a name that says so or without', async () => {
    const found = await shellScripts();
    const scripts = [...names, ...globSync('lib/*.sh', { cwd: folder }).map((path) => path.slice(0, -'.sh'.length))];
    for (const name of scripts) assert.ok(found.includes(`src/guest/programs/${name}.sh`), name);
    for (const path of ['bin/qshimd', 'scripts/run.sh', 'scripts/guest/rootfs/init', '.ci/run']) {
      assert.ok(found.includes(path), path);
    }
    assert.ok(!found.some((path) => /\.(ts|c|h|ld)$/.test(path)));
  });
});

describe('without the player', () => {
  const absent = '/nonexistent/player';
  const refusal = {
    name: 'ShimError',
    code: 'FAILED_PRECONDITION',
    reason: 'TEMPLATE_UNAVAILABLE',
    message:
      'the program that gives clones their identity cannot be read (npm run guest builds it): ' +
      `ENOENT: no such file or directory, open '${absent}'`,
  };

  it('it is said what is missing, and how it comes to be there', async () => {
    await assert.rejects(playerProgram(absent), refusal);
  });

  it('no template is made, and no VM started for it', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-no-player-'));
    try {
      const launch: TemplateLaunch = {
        ...{ accelerator: 'tcg', vcpus: 1, memoryMib: 64, kernel: '/k', initrd: '/i', iothreads: [] },
        ...{ kernelParameters: KERNEL_PARAMETERS, bridges: [], portsMax: 2 },
      };
      const target = {
        ...{ directory, memory: -1, stateFile: join(directory, 'state') },
        signal: new AbortController().signal,
      };
      const options = {
        cells: await cellsFor({ qemu_binary: '/nonexistent/qemu' }),
        launch,
        log: silentLogger(),
        timeoutMs: 1000,
      };
      await assert.rejects(makeTemplate(target, { ...options, playerPath: absent }), refusal);
      assert.deepEqual(await readdir(directory), []);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
