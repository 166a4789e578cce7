import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import { ApiClient } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { ownNamespaces, statusLines } from '../support/process-facts.ts';
import { QSHIM } from '../support/run-qshim.ts';
import { until } from '../support/until.ts';

/** In the VM of `npm run test:host`: Debian, systemd as process 1, packaging/ as an operator installs it. */

const SOCKET = '/run/qshim/qshim.sock';
const UNITS = '/etc/systemd/system';
const DROP_IN = join(UNITS, 'qshimd.service.d');
const SLICE = '/sys/fs/cgroup/qshim.slice';
const NO_CAPABILITY = '0000000000000000';
const MIB = 1_048_576;
const MEMORY_MIB = 256;
const SIZE = { memoryMib: MEMORY_MIB, vcpus: 1 } as const;

async function systemctl(...args: readonly string[]): Promise<string> {
  const { stdout } = await execa('systemctl', args, { stdin: 'ignore' });
  return stdout.trim();
}

async function show(unit: string, property: string): Promise<string> {
  return await systemctl('show', unit, '--value', '--property', property);
}

/** What is slow here: QEMU translates this host's code, and that of the guest where it has no KVM. */
const SLOW_MS = 600_000;

const PATIENT = {
  QSHIM_TEMPLATE: 'off',
  ...Object.fromEntries(
    ['KVM_PROBE', 'BOOT', 'ATTACH', 'DETACH', 'KILL', 'QMP_REPLY', 'AGENT'].map((what) => [
      `QSHIM_${what}_TIMEOUT_MS`,
      String(SLOW_MS),
    ]),
  ),
};

/** Options of the daemon besides, which begins with them. */
async function configure(options: Readonly<Record<string, string>>): Promise<void> {
  const lines = Object.entries({ ...PATIENT, ...options }).map(([name, value]) => `Environment="${name}=${value}"`);
  await writeFile(join(DROP_IN, 'zz-test.conf'), `[Service]\n${lines.join('\n')}\n`);
  await systemctl('daemon-reload');
  await systemctl('restart', 'qshimd');
}

/** The control group of a process, below the root of the hierarchy. */
async function groupOf(pid: number): Promise<string> {
  return /^0::(.*)$/m.exec(await readFile(`/proc/${pid}/cgroup`, 'utf8'))?.[1] ?? '';
}

/** Scopes that systemd knows, in whatever state. */
async function scopes(): Promise<readonly string[]> {
  const listed = await systemctl('list-units', '--all', '--plain', '--no-legend', '--type=scope', 'qshim-*');
  return listed.split('\n').filter((line) => line !== '');
}

async function nothingLeft(): Promise<void> {
  await until('no scope', async () => (await scopes()).length === 0, SLOW_MS);
  const groups = existsSync(SLICE) ? await readdir(SLICE, { withFileTypes: true }) : [];
  assert.deepEqual(
    groups.filter((entry) => entry.isDirectory()).map(({ name }) => name),
    [],
  );
  const { stdout } = await execa('pgrep', ['-c', 'qemu-system|bwrap'], { reject: false });
  assert.equal(stdout.trim(), '0');
}

/** Major and minor number of a disk, as io.max has them. */
async function numbersOf(path: string): Promise<string> {
  const { rdev } = await stat(path);
  return `${rdev >> 8}:${rdev & 255}`;
}

describe('a host with systemd', { timeout: 3_600_000 }, () => {
  let client = new ApiClient(SOCKET);
  let disk = '';
  const create = async (sandboxId: string): Promise<Sandbox__Output> =>
    await client.createSandbox({ sandboxId, spec: { ...SIZE, readyWhen: 'READY_WHEN_STARTED' } });
  /** After a restart: a channel that was refused tries again only after a while. */
  const connect = (): void => {
    client[Symbol.dispose]();
    client = new ApiClient(SOCKET);
  };
  const scopeOf = async ({ qemuPid }: Sandbox__Output): Promise<string> => basename(await groupOf(qemuPid));

  before(async () => {
    assert.equal((await readFile('/proc/1/comm', 'utf8')).trim(), 'systemd');
    disk = await numbersOf('/dev/vda');
    const packaging = join(import.meta.dirname, '../../packaging');
    await mkdir(DROP_IN, { recursive: true });
    await cp(join(packaging, 'qshimd.service'), join(UNITS, 'qshimd.service'));
    await cp(join(packaging, 'confined.conf'), join(DROP_IN, 'confined.conf'));
    await execa('useradd', ['--system', '--home-dir', '/var/lib/qshim', '--shell', '/usr/sbin/nologin', 'qshim']);
    await configure({ QSHIM_CONFINE_IO_MAX: `${disk} rbps=104857600 wiops=2000` });
  });

  after(() => {
    client[Symbol.dispose]();
  });

  it('doctor finds every wall, and who makes control groups', async () => {
    const { stdout, stderr, exitCode, signal } = await execa(QSHIM, ['--json', 'doctor'], {
      reject: false,
      env: { QSHIM_CONFINE: 'full' },
    });
    assert.notEqual(stdout, '', `${exitCode ?? signal}: ${stderr}`);
    const { findings } = JSON.parse(stdout) as { findings: { check: string; status: string; detail: string }[] };
    const found = findings.find(({ check }) => check === 'confinement');
    const walls = 'namespaces, uid, cgroup (as scopes of systemd), landlock';
    assert.deepEqual([found?.status, found?.detail], ['ok', `confine = full; this host has ${walls}`]);
  });

  it('confine = full starts a QEMU in a scope of its own, with what the kernel says of it', async (t) => {
    const sandbox = await create('one');
    const { qemuPid: pid, confinement } = sandbox;
    t.diagnostic(`${sandbox.accelerator}: ${sandbox.acceleratorReason}`);
    assert.deepEqual([confinement?.level, confinement?.missing], ['CONFINEMENT_LEVEL_FULL', []]);
    assert.deepEqual(await statusLines(pid, { [String(confinement?.uid)]: 'UID' }), [
      ...['Uid: UID UID UID UID', 'Gid: UID UID UID UID'],
      // Debian gives /dev/kvm to a group.
      `Groups: ${sandbox.accelerator === 'ACCELERATOR_KVM' ? (await stat('/dev/kvm')).gid : ''}`,
      ...['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((set) => `${set}: ${NO_CAPABILITY}`),
      ...['NoNewPrivs: 1', 'Seccomp: 2'],
    ]);
    assert.deepEqual(await ownNamespaces(pid), ['mnt', 'pid', 'ipc', 'uts', 'net']);
    const group = await groupOf(pid);
    assert.match(group, /^\/qshim\.slice\/qshim-[\w.:-]+\.scope$/);
    const read = async (file: string): Promise<string> =>
      (await readFile(`/sys/fs/cgroup${group}/${file}`, 'utf8')).trim();
    const translated = sandbox.accelerator === 'ACCELERATOR_KVM' ? 0 : 1024;
    assert.deepEqual((await read('cgroup.procs')).split('\n'), [String(pid)]);
    assert.equal(Number(await read('memory.max')) % MIB, 0);
    assert.ok(Number(await read('memory.max')) > (MEMORY_MIB + translated) * MIB);
    assert.match(await read('pids.max'), /^[0-9]+$/);
    assert.match(await read('cpu.max'), /^[0-9]+ 100000$/);
    assert.equal(await read('io.max'), `${disk} rbps=104857600 wbps=max riops=max wiops=2000`);
    const unit = basename(group);
    assert.deepEqual([await show(unit, 'ActiveState'), await show(unit, 'Slice')], ['active', 'qshim.slice']);
    assert.equal(await show(unit, 'MemoryMax'), await read('memory.max'));
    assert.match(await systemctl('status', '--no-pager', 'qshimd'), /Active: active \(running\)/);
  });

  it('setpriv has set up a Landlock that this kernel enforces', async () => {
    const { qemuPid } = await client.getSandbox('one');
    const parent = /^PPid:\s+(\d+)$/m.exec(await readFile(`/proc/${qemuPid}/status`, 'utf8'))?.[1] ?? '';
    const words = (await readFile(`/proc/${parent}/cmdline`, 'utf8')).split('\0');
    const landlock = words.flatMap((word, index) =>
      word.startsWith('--landlock') ? [word, words[index + 1] ?? ''] : [],
    );
    assert.ok(landlock.length >= 4, words.join(' '));
    const directory = await execa('mktemp', ['-d'], { stdin: 'ignore' }).then(({ stdout }) => stdout);
    const write = async (path: string, ...rules: readonly string[]): Promise<number | undefined> => {
      const args = [...rules, '/bin/sh', '-c', `: > ${path}`];
      return (await execa('setpriv', args, { reject: false, stdin: 'ignore' })).exitCode;
    };
    assert.equal(await write(`${directory}/before`), 0);
    assert.notEqual(await write(`${directory}/walls`, ...landlock), 0);
    assert.ok(!existsSync(`${directory}/walls`));
  });

  it('a restart, and a reload of systemd, change nothing of it', async () => {
    const was = await client.getSandbox('one');
    const group = await groupOf(was.qemuPid);
    const limits = await readFile(`/sys/fs/cgroup${group}/memory.max`, 'utf8');
    await systemctl('restart', 'qshimd');
    await systemctl('daemon-reload');
    connect();
    const is = await client.getSandbox('one');
    assert.deepEqual([is.qemuPid, is.confinement], [was.qemuPid, was.confinement]);
    assert.equal(is.state, 'SANDBOX_STATE_RUNNING');
    assert.equal(await groupOf(is.qemuPid), group);
    assert.equal(await readFile(`/sys/fs/cgroup${group}/memory.max`, 'utf8'), limits);
  });

  it('QEMU outlives a stop of the unit', async () => {
    const { qemuPid } = await client.getSandbox('one');
    await systemctl('stop', 'qshimd');
    assert.ok(existsSync(`/proc/${qemuPid}`));
    await systemctl('start', 'qshimd');
    connect();
    assert.equal((await client.getSandbox('one')).qemuPid, qemuPid);
  });

  it('stopped and started again it has a scope of the same name', async () => {
    const unit = await scopeOf(await client.getSandbox('one'));
    await client.stopSandbox({ sandboxId: 'one', force: true });
    const again = await client.startSandbox('one');
    assert.equal(await scopeOf(again), unit);
    assert.equal(again.confinement?.level, 'CONFINEMENT_LEVEL_FULL');
  });

  it('kill -9 of the daemon: adopted, and nothing is left after Delete', async () => {
    const { qemuPid, confinement } = await client.getSandbox('one');
    const daemon = await show('qshimd', 'MainPID');
    await systemctl('kill', '--kill-whom=main', '--signal=KILL', 'qshimd');
    await until(
      'another daemon',
      async () => {
        const [pid, state] = [await show('qshimd', 'MainPID'), await show('qshimd', 'ActiveState')];
        return pid !== daemon && state === 'active';
      },
      SLOW_MS,
    );
    connect();
    const adopted = await client.getSandbox('one');
    assert.deepEqual([adopted.qemuPid, adopted.confinement], [qemuPid, confinement]);
    await client.deleteSandbox('one');
    await nothingLeft();
  });

  it('its end is no failure that stays: killed, or for want of memory', async () => {
    for (const end of ['SIGKILL', 'memory']) {
      const sandbox = await create(end);
      const unit = await scopeOf(sandbox);
      if (end === 'SIGKILL') process.kill(sandbox.qemuPid, 'SIGKILL');
      else await systemctl('set-property', '--runtime', unit, 'MemoryMax=4M', 'MemorySwapMax=0');
      await until('stopped', async () => (await client.getSandbox(end)).state === 'SANDBOX_STATE_STOPPED', SLOW_MS);
      await client.deleteSandbox(end);
      await nothingLeft();
    }
  });

  it('the agent answers, and a volume is attached and detached', async () => {
    const sandboxId = 'guest';
    await client.createSandbox({ sandboxId, spec: SIZE });
    const path = '/var/lib/qshim/volumes/volume.raw';
    await mkdir(dirname(path), { recursive: true });
    await execa('truncate', ['-s', '64M', path]);
    const volume = await client.attach({ sandboxId, volumeId: 'v', spec: { rawFile: { path } } });
    assert.equal(volume.state, 'VOLUME_STATE_ATTACHED');
    await client.detach({ sandboxId, volumeId: 'v' });
    await client.deleteSandbox(sandboxId);
    await nothingLeft();
  });

  it('without a system bus: full refuses and says why, degraded goes on without a group', async () => {
    await systemctl('stop', 'dbus.socket', 'dbus.service');
    try {
      await configure({});
      connect();
      const { reason, message } = await refusal(create('none'));
      assert.equal(reason, 'CONFINEMENT_MISSING');
      assert.match(message, /cgroup: systemd's StartTransientUnit failed: .*bus/);
      await configure({ QSHIM_CONFINE: 'degraded' });
      connect();
      const { confinement, qemuPid } = await create('few');
      assert.equal(confinement?.level, 'CONFINEMENT_LEVEL_DEGRADED');
      assert.deepEqual(
        confinement.missing.map(({ part }) => part),
        ['cgroup'],
      );
      assert.doesNotMatch(await groupOf(qemuPid), /qshim\.slice/);
      await client.deleteSandbox('few');
    } finally {
      await systemctl('start', 'dbus.socket', 'dbus.service');
    }
    await nothingLeft();
  });
});
