import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { readProcStat } from '../../src/base/proc-stat.ts';
import { hasUuid } from '../../src/qemu/find.ts';
import { QemuProcess, describeExit, identify, type ProcessIdentity } from '../../src/qemu/process.ts';
import { Scratch } from '../support/shell-qemu.ts';
import { until } from '../support/until.ts';

/** A child of this test that is not QEMU: somebody else's process. */
async function bystander(): Promise<AsyncDisposable & { readonly identity: ProcessIdentity }> {
  const child = spawn('/bin/sleep', ['600'], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  await once(child, 'spawn');
  const identity = await identify(child.pid ?? 0);
  assert.ok(identity !== undefined);
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  return { identity, [Symbol.asyncDispose]: end };
}

const isSleep = (args: readonly string[]): boolean => args[0] === '/bin/sleep';

describe('process identity', () => {
  it('one that lives, the same each time', async () => {
    const mine = await identify(process.pid);
    assert.ok(mine !== undefined && mine.startTicks > 0);
    assert.equal(mine.pid, process.pid);
    assert.deepEqual(await identify(process.pid), mine);
  });

  it('one that does not exist, and one that is only a zombie', async () => {
    assert.equal(await identify(2 ** 22 + 1), undefined);
    // The shell replaces itself by a sleep, which does not reap the child that it inherits.
    const child = spawn('/bin/sh', ['-c', 'sleep 0.05 & echo $!; exec sleep 600'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const exited = once(child, 'exit');
    try {
      const [line] = (await once(child.stdout, 'data')) as [Buffer];
      const zombie = Number(line.toString());
      await until('the child is a zombie', async () => (await readProcStat(zombie)).state === 'Z');
      assert.equal(await identify(zombie), undefined);
    } finally {
      child.kill('SIGKILL');
      await exited;
    }
  });

  it('a command name with brackets and spaces does not shift the fields', async () => {
    await using scratch = await Scratch.make();
    const odd = join(scratch.directory, 'a) S 1 (b');
    await copyFile('/bin/sleep', odd);
    const qemu = await QemuProcess.spawn(odd, ['600'], scratch.directory, scratch.log);
    const plain = await scratch.shell('exec sleep 600');
    assert.ok(
      Math.abs(qemu.identity.startTicks - plain.identity.startTicks) < 100 * 60,
      'started at about the same time',
    );
    for (const each of [qemu, plain]) {
      await each.kill('SIGKILL');
      await each.exited;
    }
  });
});

describe('QEMU process', () => {
  it('its exit code is seen, its output is in the log, which is for its owner only', async () => {
    await using scratch = await Scratch.make();
    const qemu = await scratch.shell('pwd; echo oops >&2; exit 3');
    assert.deepEqual(await qemu.exited, { code: 3, signal: undefined });
    assert.deepEqual(qemu.exit, { code: 3, signal: undefined });
    assert.equal(await readFile(scratch.log, 'utf8'), `${scratch.directory}\noops\n`);
    assert.equal((await stat(scratch.log)).mode & 0o777, 0o600);
  });

  it('its signal is seen, and it leads a session of its own', async () => {
    await using scratch = await Scratch.make();
    const qemu = await scratch.shell('exec sleep 600');
    const { processGroup, session } = await readProcStat(qemu.pid);
    assert.deepEqual([processGroup, session], [qemu.pid, qemu.pid]);
    await qemu.kill('SIGKILL');
    assert.deepEqual(await qemu.exited, { code: undefined, signal: 'SIGKILL' });
    await qemu.kill('SIGKILL');
  });

  it('a binary that cannot be run is a clear error', async () => {
    await using scratch = await Scratch.make();
    await assert.rejects(QemuProcess.spawn('/nowhere/qemu', [], scratch.directory, scratch.log), {
      code: 'FAILED_PRECONDITION',
      reason: 'QEMU_NOT_STARTED',
      message: /\/nowhere\/qemu/,
    });
    await assert.rejects(QemuProcess.spawn('no-such-qemu', [], scratch.directory, scratch.log), {
      reason: 'QEMU_NOT_STARTED',
    });
  });

  it('adoption finds the process, and notices its end without being its parent', async () => {
    await using other = await bystander();
    const adopted = await QemuProcess.adopt(other.identity, isSleep);
    assert.ok(adopted !== undefined);
    assert.equal(adopted.exit, undefined);
    await adopted.kill('SIGKILL');
    assert.deepEqual(await adopted.exited, { code: undefined, signal: undefined });
    assert.equal(await QemuProcess.adopt(other.identity, isSleep), undefined, 'it is gone');
  });

  it('a pid that belongs to another process now is neither adopted nor killed', async () => {
    await using other = await bystander();
    const { pid, startTicks } = other.identity;
    assert.equal(await QemuProcess.adopt({ pid, startTicks: startTicks - 1 }, isSleep), undefined);
    assert.equal(await QemuProcess.adopt({ pid, startTicks: 0 }, isSleep), undefined);

    const adopted = await QemuProcess.adopt(other.identity, isSleep);
    assert.ok(adopted !== undefined);
    // As if the pid had been given to another process since.
    Object.assign(adopted, { identity: { pid, startTicks: startTicks - 1 } });
    await adopted.kill('SIGKILL');
    assert.deepEqual(await identify(pid), other.identity, 'it still lives');
  });

  it('a process that is not the one by its command line is neither adopted nor killed, whatever its start time', async () => {
    await using other = await bystander();
    assert.equal(await QemuProcess.adopt(other.identity, hasUuid('a-uuid')), undefined);
    let ours = true;
    const adopted = await QemuProcess.adopt(other.identity, () => ours);
    assert.ok(adopted !== undefined);
    ours = false;
    await adopted.kill('SIGKILL');
    assert.deepEqual(await identify(other.identity.pid), other.identity, 'it still lives');
  });

  it('a UUID is that of the option, whole', () => {
    assert.equal(hasUuid('u')(['qemu', '-uuid', 'u', '']), true);
    assert.equal(hasUuid('u')(['qemu', '-uuid', 'uu', 'u']), false);
    assert.equal(hasUuid('u')(['qemu', '-name', 'u']), false);
    assert.equal(hasUuid('')(['qemu', '-uuid']), false);
  });

  it('exits are told in words', () => {
    assert.equal(describeExit({ code: 1, signal: undefined }), 'QEMU exited with code 1');
    assert.equal(describeExit({ code: undefined, signal: 'SIGKILL' }), 'QEMU was ended by SIGKILL');
    assert.match(describeExit({ code: undefined, signal: undefined }), /an earlier daemon had started it/);
  });
});
