import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir, readlink, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { isJsonObject } from '../../src/base/versions.ts';
import { sandboxDirectory, sandboxesDirectory } from '../../src/qemu/files.ts';
import { identify, type ProcessIdentity } from '../../src/qemu/process.ts';
import { TestDaemon } from '../support/daemon.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { stranger } from '../support/stranger.ts';
import { until } from '../support/until.ts';

/** Names in the state directory: the daemon's own, those of sandboxes, and the processes that they lead to. */

async function adopted(rig: FakeVmRig, sandboxId = 'one'): Promise<void> {
  await until('the sandbox is adopted', async () => {
    const sandbox = (await rig.client.listSandboxes()).find((each) => each.sandboxId === sandboxId);
    return sandbox?.state === 'SANDBOX_STATE_RUNNING' && sandbox.agentReady ? true : undefined;
  });
}

async function refusedSecond(rig: FakeVmRig): Promise<string> {
  const { directory } = rig.daemon;
  const config = { ...rig.settings, socket: join(directory, 'run/second.sock') };
  return await TestDaemon.start({ directory, config }).then(
    () => 'it started',
    (error: unknown) => String(error),
  );
}

/** Puts a sandbox where daemons of before had it. */
async function toOlderPlace(rig: FakeVmRig, sandboxId: string, name = sandboxId): Promise<string> {
  const older = join(rig.daemon.stateDir, name);
  await rename(rig.daemon.directoryOf(sandboxId), older);
  return older;
}

describe('names in the state directory', { timeout: 240_000 }, () => {
  it('an id is a name of nothing: not the lock, not the events, not what was put aside, not the place of another', async () => {
    await using rig = await FakeVmRig.start();
    const ids = ['lock.sock', 'events.jsonl', 'boot-id', 'x.left-1', 'x', basename(sandboxDirectory('/', 'x'))];
    for (const sandboxId of ids) await rig.client.createSandbox({ sandboxId });
    const before = await rig.client.listSandboxes();
    assert.deepEqual(before.map(({ sandboxId }) => sandboxId).sort(), [...ids].sort());
    assert.match(
      await refusedSecond(rig),
      new RegExp(`another daemon \\(pid ${rig.daemon.child.pid}\\) has the state`),
    );
    for (const { qemuPid } of before) {
      const open = await Promise.all(
        (await readdir(`/proc/${qemuPid}/fd`)).map((fd) => readlink(`/proc/${qemuPid}/fd/${fd}`).catch(() => '')),
      );
      assert.ok(!open.some((path) => path.endsWith('/lock.sock')), 'QEMU has not inherited the lock');
    }
    const newest = async (): Promise<number> => {
      const lines = (await readFile(join(rig.daemon.stateDir, 'events.jsonl'), 'utf8')).trim().split('\n');
      const last: unknown = JSON.parse(lines.at(-1) ?? '{}');
      assert.ok(isJsonObject(last));
      return Number(last['sequence']);
    };
    const events = await newest();
    assert.ok(events >= 2 * ids.length);
    await rig.restart('SIGKILL');
    for (const id of ids) await adopted(rig, id);
    const pids = new Map(before.map(({ sandboxId, qemuPid }) => [sandboxId, qemuPid]));
    for (const { sandboxId, qemuPid } of await rig.client.listSandboxes()) {
      assert.equal(qemuPid, pids.get(sandboxId), sandboxId);
    }
    assert.ok((await newest()) > events, 'the numbers go on');
    await rig.client.deleteSandbox('x');
    await rig.client.deleteSandbox('x.left-1');
    await rig.client.createSandbox({ sandboxId: 'x' });
    await rig.restart('SIGKILL');
    assert.equal((await rig.client.listSandboxes()).length, ids.length - 1);
  });

  it('of daemons of before: what they left is moved to its place and adopted, whether it runs or has stopped', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    for (const sandboxId of ['stopped', 'x.left-1', 'events.jsonl']) await rig.client.createSandbox({ sandboxId });
    await rig.client.stopSandbox({ sandboxId: 'stopped', force: true });
    const { stateDir } = rig.daemon;
    const aside = join(stateDir, 'y.left-1');
    await rig.restartAfter('SIGKILL', async () => {
      await toOlderPlace(rig, 'one');
      await toOlderPlace(rig, 'stopped');
      await toOlderPlace(rig, 'x.left-1');
      await rm(join(stateDir, 'events.jsonl'));
      await toOlderPlace(rig, 'events.jsonl');
      // What daemons of before have put aside, and their lock, which nobody holds.
      await mkdir(aside);
      await writeFile(join(aside, 'state.json'), '{"sandbox":{"id":"y"}}');
      await rmdir(sandboxesDirectory(stateDir));
      await rm(join(stateDir, 'lock.sock'));
      const older = createServer().listen(join(stateDir, 'lock.older'));
      await once(older, 'listening');
      await rename(join(stateDir, 'lock.older'), join(stateDir, 'lock.sock'));
      older.close();
    });
    for (const id of ['one', 'x.left-1', 'events.jsonl']) await adopted(rig, id);
    const sandbox = await rig.client.getSandbox('one');
    assert.deepEqual([sandbox.qemuPid, sandbox.stateDir], [vm.pid, rig.daemon.directoryOf('one')]);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    await rig.attach('b');
    await rig.detach('a');
    assert.deepEqual(await rig.client.startSandbox('stopped').then(({ state }) => state), 'SANDBOX_STATE_RUNNING');
    assert.ok((await stat(join(stateDir, 'lock.sock'))).isFile());
    assert.ok((await stat(join(stateDir, 'events.jsonl'))).isFile());
    assert.deepEqual(await readdir(aside), ['state.json'], 'what was put aside stays');
    // Its QEMU, whose command line has the older path, is found without a journal too.
    await rig.restartAfter('SIGKILL', () => rm(join(rig.daemon.directoryOf('one'), 'state.json')));
    await adopted(rig);
    assert.equal((await rig.client.getSandbox('one')).qemuPid, vm.pid);
    await rm(aside, { recursive: true });
  });

  it('of which two are of one sandbox: the one in its place is adopted, the other left alone and named', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const second = join(rig.daemon.stateDir, 'one');
    await rig.restartAfter('SIGKILL', async () => {
      await mkdir(second);
      await writeFile(join(second, 'state.json'), await readFile(join(rig.daemon.directoryOf('one'), 'state.json')));
    });
    await adopted(rig);
    assert.equal((await rig.client.getSandbox('one')).qemuPid, vm.pid);
    assert.match(await rig.daemon.log(), /a second directory of one sandbox left alone/);
    assert.deepEqual(await readdir(second), ['state.json']);
    await rm(second, { recursive: true });
  });

  it('under a daemon of before that lives: refused', async () => {
    await using rig = await FakeVmRig.start();
    const { directory, stateDir } = rig.daemon;
    await rig.daemon.kill('SIGTERM');
    await rm(join(stateDir, 'lock.sock'));
    const older = createServer((socket) => {
      socket.end('qshimd 4711\n');
    }).listen(join(stateDir, 'lock.sock'));
    await once(older, 'listening');
    const config = { ...rig.settings };
    await assert.rejects(
      TestDaemon.start({ directory, config }),
      /another daemon \(pid 4711\) listens on .*lock\.sock/,
    );
    older.close();
    await once(older, 'close');
    await rig.restartAfter('SIGTERM', () => Promise.resolve());
  });
});

/** Has the journal name another process. @returns the sandbox's UUID */
async function nameInJournal(directory: string, process: ProcessIdentity): Promise<void> {
  const path = join(directory, 'state.json');
  const journal: unknown = JSON.parse(await readFile(path, 'utf8'));
  assert.ok(isJsonObject(journal) && isJsonObject(journal['sandbox']));
  await writeFile(path, JSON.stringify({ ...journal, sandbox: { ...journal['sandbox'], process } }));
}

describe('the process that a journal names', { timeout: 240_000 }, () => {
  it('is a stranger with that pid and start time: neither adopted nor killed; the VM is found all the same', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await using other = await stranger();
    await rig.restartAfter('SIGKILL', () => nameInJournal(rig.daemon.directoryOf('one'), other.identity));
    await adopted(rig);
    assert.equal((await rig.client.getSandbox('one')).qemuPid, vm.pid);
    await rig.restartAfter('SIGKILL', async () => {
      vm.exit(0);
      await vm.ended;
      await nameInJournal(rig.daemon.directoryOf('one'), other.identity);
    });
    assert.equal((await rig.client.getSandbox('one')).state, 'SANDBOX_STATE_STOPPED');
    await rig.client.deleteSandbox('one');
    assert.deepEqual(await identify(other.identity.pid), other.identity, 'it lives');
  });

  it('is of an earlier boot of the host: whatever has its pid, its start time and its UUID now is a stranger', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const uuid = vm.args[vm.args.indexOf('-uuid') + 1] ?? '';
    await using other = await stranger('-uuid', uuid);
    const note = join(rig.daemon.stateDir, 'boot-id');
    const now = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    assert.equal(await readFile(note, 'utf8'), now);
    await rig.restartAfter('SIGKILL', async () => {
      vm.exit(0);
      await vm.ended;
      await nameInJournal(rig.daemon.directoryOf('one'), other.identity);
      await writeFile(note, 'another boot\n');
    });
    assert.equal((await rig.client.getSandbox('one')).state, 'SANDBOX_STATE_STOPPED');
    await rig.client.deleteSandbox('one');
    assert.deepEqual(await identify(other.identity.pid), other.identity, 'it lives');
    assert.equal(await readFile(note, 'utf8'), now, 'the next daemon will know');
    assert.ok(!existsSync(`${note}.new`));
  });
});
