import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { identify, type ProcessIdentity } from '../../src/qemu/process.ts';
import { TestDaemon } from '../support/daemon.ts';
import { stranger } from '../support/stranger.ts';
import { until } from '../support/until.ts';

interface JournalRead {
  readonly later?: number;
  readonly sandbox: { readonly uuid: string; readonly later?: number };
}

const read = async (path: string): Promise<JournalRead> => JSON.parse(await readFile(path, 'utf8')) as JournalRead;

/** Has the journal name another process, and members that only a later version knows. */
async function change(path: string, process: ProcessIdentity): Promise<void> {
  const journal = await read(path);
  const sandbox = { ...journal.sandbox, process, later: 2 };
  await writeFile(path, JSON.stringify({ ...journal, minor: 7, later: 1, sandbox }));
}

it('a process that is not the VM, with the pid and start time of the journal, is neither adopted nor killed', async () => {
  await using other = await stranger();
  let daemon = await TestDaemon.start();
  const { directory } = daemon;
  const labels = { a: 'b' };
  await daemon.client.createSandbox({
    sandboxId: 'vm',
    spec: { vcpus: 1, readyWhen: 'READY_WHEN_STARTED', accelerator: 'ACCELERATOR_TCG', labels },
  });
  const { qemuPid } = await daemon.client.getSandbox('vm');
  const path = join(daemon.directoryOf('vm'), 'state.json');
  await daemon.kill('SIGKILL');
  await change(path, other.identity);
  daemon = await TestDaemon.start({ directory });
  const adopted = await daemon.client.getSandbox('vm');
  assert.deepEqual([adopted.qemuPid, adopted.spec?.labels], [qemuPid, labels], 'the VM itself is found');
  await until('the journal is written', async () => !(await readFile(path, 'utf8')).includes('"minor":7'));
  const written = await read(path);
  assert.deepEqual([written.later, written.sandbox.later], [1, 2], 'members of a later version are kept');

  // The VM ends while no daemon is there.
  await daemon.kill('SIGKILL');
  process.kill(qemuPid, 'SIGKILL');
  await until('the VM has ended', async () => (await identify(qemuPid)) === undefined);
  await change(path, other.identity);
  daemon = await TestDaemon.start({ directory });
  assert.equal((await daemon.client.getSandbox('vm')).state, 'SANDBOX_STATE_STOPPED');

  // And the host boots meanwhile: then not even the UUID is a proof.
  await daemon.kill('SIGKILL');
  await using twin = await stranger('-uuid', written.sandbox.uuid);
  await writeFile(path, JSON.stringify({ ...written, sandbox: { ...written.sandbox, process: twin.identity } }));
  await writeFile(join(daemon.stateDir, 'boot-id'), 'another\n');
  daemon = await TestDaemon.start({ directory });
  assert.equal((await daemon.client.getSandbox('vm')).state, 'SANDBOX_STATE_STOPPED');
  await daemon.client.deleteSandbox('vm');
  for (const { identity } of [other, twin]) assert.deepEqual(await identify(identity.pid), identity, 'it lives');
  await daemon[Symbol.asyncDispose]();
});
