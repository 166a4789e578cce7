import assert from 'node:assert/strict';
import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import { brokenQemuMissing } from '../support/broken-qemu.ts';
import { TestDaemon } from '../support/daemon.ts';
import { INITRD, KERNEL, realVmSkipReason } from '../support/guest-image.ts';
import { descriptorLines, mountLines, ownNamespaces, statusLines, type Names } from '../support/process-facts.ts';
import { endHoldersBelow } from '../support/template-holders.ts';
import { until } from '../support/until.ts';

const skip = brokenQemuMissing() || (await realVmSkipReason());
const VOLUMES = 20;
const NO_CAPABILITY = '0000000000000000';

/** What the kernel says of each confined QEMU, whatever it does and however it was started. */
const STATUS = [
  ...['Uid: UID UID UID UID', 'Gid: UID UID UID UID', 'Groups: '],
  ...['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((set) => `${set}: ${NO_CAPABILITY}`),
  ...['NoNewPrivs: 1', 'Seccomp: 2'],
];
const OWN_NAMESPACES = ['mnt', 'pid', 'ipc', 'uts', 'net'];
/** Read-only but for the sandbox's directory, which QEMU can enter and not write in; devices are character devices. */
const MOUNTS = [
  '/ ro,nosuid,nodev',
  '/dev/null rw,nosuid',
  '/dev/urandom rw,nosuid',
  '/proc/self/fd ro,nosuid,nodev',
  '/usr/bin/qemu-system-x86_64 ro,nosuid,nodev',
  '/usr/bin/setpriv ro,nosuid,nodev',
  '/usr/lib/ipxe/qemu ro,nosuid,nodev',
  '/usr/lib/qemu ro,nosuid,nodev',
  '/usr/lib/x86_64-linux-gnu ro,nosuid,nodev',
  '/usr/lib64/ld-linux-x86-64.so.2 ro,nosuid,nodev',
  '/usr/share/qemu ro,nosuid,nodev',
  '/usr/share/seabios ro,nosuid,nodev',
  'DIRECTORY rw,nosuid,nodev',
  'INITRD ro,nosuid,nodev',
  'KERNEL ro,nosuid,nodev',
];
const DESCRIPTORS = [
  ...['/dev/null r', '/dev/urandom r', 'DIRECTORY/console.log w', 'DIRECTORY/qemu.log w'],
  ...['anon_inode:[eventfd] rw', 'anon_inode:[signalfd] rw', 'socket rw'],
];

interface Expected {
  readonly mounts?: readonly string[];
  readonly descriptors?: readonly string[];
}

/** Holds a running QEMU against the table. */
async function assertConfined(sandbox: Sandbox__Output, names: Names, expected: Expected = {}): Promise<void> {
  const { qemuPid: pid, stateDir, confinement } = sandbox;
  const uid = confinement?.uid ?? 0;
  assert.ok(uid >= 1_900_000_000, `user ${uid}`);
  const [kernel, initrd] = [await realpath(KERNEL), await realpath(INITRD)];
  const all = { ...names, [stateDir]: 'DIRECTORY', [String(uid)]: 'UID', [kernel]: 'KERNEL', [initrd]: 'INITRD' };
  assert.deepEqual(await statusLines(pid, all), STATUS);
  assert.deepEqual(await ownNamespaces(pid), OWN_NAMESPACES);
  // The allocator may be bound over the link that it is; it is not part of every host, nor is noexec on /proc.
  const mounts = (await mountLines(pid, all))
    .filter((line) => !line.includes('malloc'))
    .map((line) => line.replace(/^(\/proc\S* .*),noexec$/, '$1'));
  assert.deepEqual(mounts, [...MOUNTS, ...(expected.mounts ?? [])].sort());
  const descriptors = [...DESCRIPTORS, ...(expected.descriptors ?? [])].sort();
  // A thread of QEMU's, or a look, may have something open for a moment.
  for (let tries = 0; tries < 20; tries += 1) {
    if (JSON.stringify(await descriptorLines(pid, all)) === JSON.stringify(descriptors)) return;
    await sleep(100);
  }
  assert.deepEqual(await descriptorLines(pid, all), descriptors);
}

/** The control group that the sandbox's facts promise, or none. */
async function assertCgroup({ qemuPid, confinement }: Sandbox__Output): Promise<void> {
  const missing = (confinement?.missing ?? []).some(({ part }) => part === 'cgroup');
  const groups = await readFile(`/proc/${qemuPid}/cgroup`, 'utf8');
  const group = /^0::(.*\/qshim\/.*)$/m.exec(groups)?.[1];
  assert.equal(group === undefined, missing);
  if (group === undefined) return;
  const read = async (file: string): Promise<string> =>
    (await readFile(`/sys/fs/cgroup${group}/${file}`, 'utf8')).trim();
  for (const file of ['memory.max', 'pids.max']) assert.match(await read(file), /^[0-9]+$/);
  assert.match(await read('cpu.max'), /^[0-9]+ 100000$/);
}

describe('the table of a confined QEMU', { skip }, () => {
  it('a cold boot, with 20 volumes, adopted by another daemon', async () => {
    await using first = await TestDaemon.start({ config: { confine: 'degraded' } });
    const sandbox = await first.client.createSandbox({ sandboxId: 'cold' });
    await assertConfined(sandbox, {});
    await assertCgroup(sandbox);
    const names: Record<string, string> = { [first.volumeDir]: 'VOLUMES' };
    const paths = await Promise.all(Array.from({ length: VOLUMES }, (_, index) => first.rawFile(`v${index}.raw`)));
    for (const [index, path] of paths.entries()) {
      // Every other one for reading only.
      const spec = { rawFile: { path }, readOnly: index % 2 === 1, aio: 'AIO_MODE_THREADS' as const };
      await first.client.attach({ sandboxId: 'cold', volumeId: `v${index}`, spec });
    }
    const descriptors = paths.map((_, index) => `VOLUMES/v${index}.raw ${index % 2 === 1 ? 'r' : 'rw'}`);
    await assertConfined(await first.client.getSandbox('cold'), names, { descriptors });
    await first.kill('SIGKILL');
    await using second = await TestDaemon.start({ directory: first.directory, config: { confine: 'degraded' } });
    await until('the agent', async () => (await second.client.getSandbox('cold')).agentReady);
    const adopted = await second.client.getSandbox('cold');
    assert.equal(adopted.qemuPid, sandbox.qemuPid);
    assert.deepEqual(adopted.confinement, sandbox.confinement);
    await assertConfined(adopted, names, { descriptors });
    // No two have one user, also not when the second comes after the adoption.
    const other = await second.client.createSandbox({ sandboxId: 'other' });
    assert.notEqual(other.confinement?.uid, adopted.confinement?.uid);
  });

  it('a clone', async () => {
    const templates = await mkdtemp('/dev/shm/qshim-confined-');
    await using _removed = {
      [Symbol.asyncDispose]: async () => {
        await endHoldersBelow(templates);
        await rm(templates, { recursive: true });
      },
    };
    const config = { confine: 'degraded', template: 'required', templates_dir: templates };
    await using daemon = await TestDaemon.start({ config });
    const clone = await daemon.client.createSandbox({ sandboxId: 'clone' });
    assert.equal(clone.start?.kind, 'START_KIND_CLONE');
    // As it was given, and as QEMU opens it: nobody can write to it (template-memory.test.ts).
    const memory = `/memfd:qshim-template-${clone.start.templateId} (deleted)`;
    await assertConfined(clone, {}, { descriptors: [`${memory} r`, `${memory} rw`] });
  });
});
