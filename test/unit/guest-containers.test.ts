import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import fc from 'fast-check';
import { sleep } from '../../src/base/deadline.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgentError } from '../../src/guest/wire.ts';
import { Containers } from '../../src/guest/containers/containers.ts';
import type { ContainerHost } from '../../src/guest/containers/host.ts';
import { parseExit } from '../../src/guest/containers/exits.ts';
import { parseConfig } from '../../src/guest/containers/oci.ts';
import { readHostFiles } from '../../src/guest/containers/host-files.ts';
import { planContainer } from '../../src/guest/containers/plan.ts';
import { packTar } from '../../src/guest/containers/tar.ts';
import type { Ports } from '../../src/guest/containers/port.ts';
import type { ContainerProcess, ProcessActions } from '../../src/guest/containers/process.ts';
import { ProcessTable } from '../../src/guest/containers/process-table.ts';
import { Removal } from '../../src/guest/containers/removal.ts';
import { containersSchema, type ProcessRecord } from '../../src/guest/containers/records.ts';
import { GuestRuntime, type ExitRecord } from '../../src/guest/containers/runtime.ts';
import { TokenCut } from '../../src/guest/containers/token.ts';
import { translateConfig, translateLimits } from '../../src/guest/containers/translate.ts';
import type { ContainerPlan } from '../../src/guest/containers/types.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { ociConfig } from '../support/container-rig.ts';

describe('the token that ends a stream', () => {
  it('is found however the bytes are cut, and everything before it is passed on', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b') });
    fc.assert(
      fc.property(letters, fc.array(fc.nat(40)), (before, cuts) => {
        const token = 'abbaZ';
        const all = Buffer.from(`${before}${token}dropped`);
        const places = [0, ...cuts.map((cut) => Math.min(cut, all.length)).sort((a, b) => a - b), all.length];
        const cutter = new TokenCut(token);
        let text = '';
        for (const [index, from] of places.entries()) {
          const { bytes, ended } = cutter.take(all.subarray(from, places[index + 1] ?? all.length));
          text += bytes.toString();
          if (ended) break;
        }
        assert.equal(text, before);
      }),
    );
  });

  it('without a token nothing is kept back for ever', () => {
    const cutter = new TokenCut('abc');
    assert.equal(cutter.take(Buffer.from('xxab')).bytes.toString(), 'xx');
    assert.equal(cutter.rest().toString(), 'ab');
  });
});

describe('config.json in the guest’s terms', () => {
  const parts = {
    containerId: 'c',
    rootfs: '/r',
    terminal: false,
    binds: new Map(),
    devices: new Map(),
    hook: undefined,
  };
  const planOf = (config: object): ContainerPlan => planContainer(parseConfig(config));

  it('volumes, files and what the guest makes are told apart; the rest is refused by name', () => {
    const mounts = [
      {
        destination: '/v',
        type: 'ext4',
        source: '/img',
        options: ['loop', 'rw', 'noatime', 'data=journal', 'rprivate'],
      },
      { destination: '/etc/hosts', type: 'bind', source: '/h', options: ['rbind'] },
      { destination: '/dev/shm', type: 'bind', source: '/host/shm', options: ['rbind'] },
    ];
    const plan = planOf(ociConfig(['true'], { mounts }));
    assert.deepEqual(plan.volumes, [
      { destination: '/v', source: '/img', fsType: 'ext4', readOnly: false, options: ['data=journal'] },
    ]);
    assert.deepEqual(plan.files, [{ destination: '/etc/hosts', source: '/h' }]);
    const nfs = [{ destination: '/n', type: 'nfs', source: 's:/' }];
    assert.throws(() => planOf(ociConfig(['true'], { mounts: nfs })), /the mount at \/n .type nfs/);
    assert.throws(() => planOf({ ...ociConfig(['true']), hooks: { prestart: [{}] } }), /hooks\.prestart/);
  });

  it('a device that nobody in the container may write to is one that is only read', () => {
    const device = { path: '/dev/ledger', type: 'b', major: 7, minor: 3 };
    const none = { allow: false, access: 'rwm' };
    const all = { allow: true, access: 'rwm' };
    const own = (access: string, allow = true): object => ({ allow, type: 'b', major: 7, minor: 3, access });
    const other = { allow: true, type: 'b', major: 7, minor: 4, access: 'rwm' };
    for (const [rules, readOnly] of [
      [[], false],
      [[none, own('rm')], true],
      [[none, own('r')], true],
      [[none, own('rwm')], false],
      [[none, own('rm'), other], true],
      [[none, { allow: true, type: 'c', access: 'rwm' }, own('rm')], true],
      [[all], false],
      [[all, own('w', false)], true],
      [[none, own('rwm'), own('w', false), own('w')], false],
    ] as const) {
      const plan = planOf(ociConfig(['true'], { linux: { devices: [device], resources: { devices: rules } } }));
      assert.deepEqual(plan.devices, [{ path: '/dev/ledger', readOnly, major: 7, minor: 3 }], JSON.stringify(rules));
    }
  });

  it('network and namespaces with a path are dropped, with what needs them; the cgroup is ours', () => {
    const namespaces = [{ type: 'pid' }, { type: 'network' }, { type: 'uts', path: '/proc/1/ns/uts' }];
    const sysctl = { 'net.ipv4.ip_unprivileged_port_start': '0', 'kernel.hostname': 'x', 'vm.overcommit_memory': '1' };
    const plan = planOf(ociConfig(['true'], { linux: { namespaces, sysctl } }));
    const guest = translateConfig(plan, parts) as { hostname?: string; linux: Record<string, unknown> };
    assert.deepEqual(guest.linux['namespaces'], [{ type: 'pid' }]);
    assert.deepEqual(guest.linux['sysctl'], { 'vm.overcommit_memory': '1' });
    assert.equal(guest.linux['cgroupsPath'], '/qshim/c');
    assert.equal(guest.hostname, undefined);
  });

  it("a container does not inherit the agent's place before the out-of-memory killer", () => {
    const adjOf = (process: object): unknown => {
      const config = { ...ociConfig(['true']), process: { ...processOf(ociConfig(['true'])), ...process } };
      return (translateConfig(planOf(config), parts) as { process: { oomScoreAdj?: number } }).process.oomScoreAdj;
    };
    assert.equal(adjOf({}), 0);
    assert.equal(adjOf({ oomScoreAdj: -997 }), -997);
  });
});

it('announcements that are none are passed over', () => {
  const record = { code: 7, uptime: 1.5, oomKilled: false };
  assert.deepEqual(parseExit('exit c/x/e t 7 1.50 0'), { key: 'c/x/e', token: 't', record });
  for (const line of ['', 'exit', 'exit c t', 'exit c t x 1 0', 'hello c t 7 1 0'])
    assert.equal(parseExit(line), undefined);
});

it('new limits are without what names things of the host', () => {
  const resources = {
    cpu: { shares: 2, cpus: '0-3', mems: '0' },
    memory: { limit: 1 },
    blockIO: { weight: 1 },
    devices: [{ allow: true }],
  };
  assert.deepEqual(translateLimits(resources), { cpu: { shares: 2 }, memory: { limit: 1 } });
});

it('the process of an exec is in the journal as text, and gets the size that its terminal begins with', () => {
  const ports = { get: () => undefined } as unknown as Ports;
  const journalled = (process: ContainerProcess): ProcessRecord => {
    const text = JSON.stringify({ eventsPort: 0, processes: [process.record()] });
    const [record] = containersSchema.parse(JSON.parse(text)).processes;
    assert.ok(record);
    return record;
  };
  const what = { args: ['sh'], cwd: '/', terminal: true };
  const made = new ProcessTable('s', 4, { ports } as ProcessActions).register({
    ...{ containerId: 'c', execId: 'e', process: what },
    streams: { terminal: true, stdin: true, stdout: true, stderr: false },
  });
  assert.equal(journalled(made).process, JSON.stringify(what));
  const restored = new ProcessTable('s', 4, { ports } as ProcessActions).restore(journalled(made));
  for (const process of [made, restored]) {
    assert.deepEqual(JSON.parse(process.execJson()), what);
    process.size = { columns: 80, rows: 24 };
    assert.deepEqual(JSON.parse(process.execJson()), { ...what, consoleSize: { width: 80, height: 24 } });
    process.execProcess = undefined;
    assert.equal(journalled(process).process, undefined);
  }
});

it('a create that is refused while its ports are being plugged takes them out again', async () => {
  const plugged = new Set<number>();
  const removed: number[] = [];
  const plugging = Promise.withResolvers<void>();
  const ports = {
    add: async (kinds: readonly unknown[]) => {
      await plugging.promise;
      return kinds.map(() => {
        plugged.add(plugged.size + 1);
        return { nr: plugged.size };
      });
    },
    get: (nr: number) => (plugged.has(nr) ? { nr } : undefined),
    remove: (numbers: readonly number[]) => {
      removed.push(...numbers);
      return Promise.resolve();
    },
  } as unknown as Ports;
  const stdout = Buffer.from('ready=1\ndeleted=1\n');
  const exec = (): Promise<object> =>
    Promise.resolve({ exitCode: 0, stdout, stderr: Buffer.alloc(0), truncated: false, pid: 1 });
  const containers = new Containers({
    ...{ id: 's', log: silentLogger(), config: { container_timeout_ms: 1000, container_processes_max: 8 } },
    ...{ agent: { exec }, agentReady: true, gone: new AbortController().signal, ports },
    ...{ commit: () => Promise.resolve(), commitSoon: () => undefined, inBackground: () => undefined },
  } as unknown as ContainerHost);
  const mounts = [{ destination: '/x', type: 'bind', source: '/', options: ['bind'] }];
  const creating = containers.create({
    ...{ id: 'c', plan: planContainer(parseConfig(ociConfig(['true'], { mounts }))), rootfs: '/r' },
    ...{ volumes: new Map(), devices: new Map() },
    streams: { terminal: false, stdin: false, stdout: true, stderr: true },
  });
  const over = creating.then(
    () => true,
    () => true,
  );
  // Long enough for the file to be refused; what is refused waits for its ports.
  assert.equal(await Promise.race([over, sleep(300).then(() => false)]), false);
  plugging.resolve();
  await assert.rejects(creating, shimFailure('INVALID_ARGUMENT', 'MOUNT_NOT_SUPPORTED'));
  assert.equal(removed.length, 2);
  assert.deepEqual(containers.list(), []);
});

it('the removal of a process in a guest that never answers ends for whoever waits, and is joined by a repeat', async () => {
  let asked = 0;
  const exec = (): Promise<never> => {
    asked += 1;
    return new Promise(() => undefined);
  };
  const unwanted = (): Promise<void> => Promise.reject(new Error('must not be called'));
  const ports = { get: () => undefined, remove: () => Promise.resolve() } as unknown as Ports;
  const processes = new ProcessTable('s', 4, { ports } as ProcessActions);
  const process = processes.restore({
    ...{ containerId: 'c', execId: undefined, state: 'stopped', paused: false, pid: 1, token: 't', process: undefined },
    streams: { terminal: false, stdin: false, stdout: false, stderr: false },
    ...{ ports: { stdin: 0, stdout: 0, stderr: 0, terminal: 0 }, exit: undefined },
  });
  const host = {
    ...{ config: { container_timeout_ms: 50 }, gone: new AbortController().signal, log: silentLogger(), ports },
    ...{ inBackground: () => undefined, commitSoon: () => undefined },
  } as unknown as ContainerHost;
  const removal = new Removal(host, new GuestRuntime({ exec, writeFile: unwanted }, 1000), processes);
  for (let repeat = 0; repeat < 2; repeat += 1) {
    await assert.rejects(removal.delete(process, true), shimFailure('DEADLINE_EXCEEDED', 'CONTAINER_NOT_REMOVED'));
  }
  assert.equal(asked, 1);
});

function processOf(config: object): object {
  return 'process' in config && typeof config.process === 'object' && config.process !== null ? config.process : {};
}

describe('a guest without a process to spare', () => {
  const cannotFork = "Guest agent command failed, error was 'Failed to fork (Resource temporarily unavailable)'";
  const written: string[] = [];
  const runtime = (said: string): GuestRuntime =>
    new GuestRuntime(
      {
        exec: () => Promise.reject(new GuestAgentError('guest-exec', 'GenericError', said)),
        writeFile: (path, text) => Promise.resolve(void written.push(`${path}=${text}`)),
      },
      1000,
    );

  it('says what it lacks, and not that it has no shell', async () => {
    await assert.rejects(runtime(cannotFork).pids('c'), shimFailure('RESOURCE_EXHAUSTED', 'GUEST_OUT_OF_PROCESSES'));
    const missing = "Guest agent command failed, error was 'Failed to execute child process “/bin/sh” (No such file)'";
    await assert.rejects(runtime(missing).pids('c'), shimFailure('UNIMPLEMENTED', 'GUEST_TOOL_MISSING'));
  });

  it("a container's end is written by the agent itself; any other signal needs a process", async () => {
    await runtime(cannotFork).kill('c', 9, true);
    await runtime(cannotFork).kill('c', 9, false);
    assert.deepEqual(written, Array(2).fill('/sys/fs/cgroup/qshim/c/cgroup.kill=1'));
    for (const [key, signal] of [
      ['c', 15],
      ['c/x/e', 9],
    ] as const) {
      const refused = shimFailure('RESOURCE_EXHAUSTED', 'GUEST_OUT_OF_PROCESSES');
      await assert.rejects(runtime(cannotFork).kill(key, signal, false), refused);
    }
    assert.equal(written.length, 2);
  });
});

describe('a guest that lies', () => {
  const saying = (stdout: string): GuestRuntime =>
    new GuestRuntime(
      {
        exec: () =>
          Promise.resolve({
            exitCode: 0,
            stdout: Buffer.from(stdout),
            stderr: Buffer.alloc(0),
            truncated: false,
            pid: 1,
          }),
        writeFile: () => Promise.reject(new Error('must not be called')),
      },
      1000,
    );
  const numbers = fc.oneof(
    fc.constantFrom('100000000000000000000', '-1', 'x', '', '1e999', 'NaN', '256', '0', '7', '1.5', '12.25', '4194305'),
    fc.integer().map(String),
    fc.double().map(String),
  );
  const ports = { stdin: 0, stdout: 0, stderr: 0, terminal: 0 };

  it('nothing that it says of an end, a pid or its uptime makes a record that the next daemon cannot read', async () => {
    await fc.assert(
      fc.asyncProperty(numbers, numbers, numbers, async (code, uptime, pid) => {
        const settled: ProcessRecord['exit'][] = [];
        const keep = (record: ExitRecord | undefined, ageMs: number): void => {
          if (record === undefined) return;
          settled.push({ code: record.code, oomKilled: record.oomKilled, atMs: Date.now() - ageMs, vmGone: false });
        };
        keep(parseExit(`exit c t ${code} ${uptime} 0`)?.record, 0);
        const seen = await saying(`uptime=${uptime}\nprocess=c 1 1 ${pid} ${code} ${uptime} 0\n`)
          .look()
          .catch(() => undefined);
        const one = seen?.processes.get('c');
        keep(one?.record, ((seen?.uptime ?? 0) - (one?.record?.uptime ?? 0)) * 1000);
        const created = await saying(`pid=${pid}\n`)
          .create('c', 't', ports, Buffer.alloc(0))
          .catch(() => 0);
        for (const exit of [undefined, ...settled]) {
          for (const known of [created, one?.pid ?? 0]) {
            const process = {
              ...{ containerId: 'c', execId: undefined, state: 'stopped', paused: false, pid: known, token: 't', exit },
              ...{ streams: { terminal: false, stdin: true, stdout: true, stderr: true }, ports, process: undefined },
            };
            const text = JSON.stringify({ eventsPort: 0, processes: [process] });
            assert.ok(containersSchema.safeParse(JSON.parse(text)).success, text);
          }
        }
      }),
    );
  });

  for (const reason of ['VOLUME_BUSY', 'MADE_UP', 'constructor', '__proto__']) {
    it(`cannot make up why something failed (${reason})`, async () => {
      const refused = shimFailure('FAILED_PRECONDITION', 'CONTAINER_FAILED');
      await assert.rejects(saying(`error=${reason}\n`).pids('c'), refused);
    });
  }

  it('an exit code is one byte, and a lie about one ends nothing', () => {
    for (const code of ['256', '100000000000000000000', '-1', '1.5', '1e2']) {
      assert.equal(parseExit(`exit c t ${code} 1 0`), undefined, code);
    }
    assert.equal(parseExit('exit c t 255 1 0')?.record.code, 255);
    for (const uptime of ['x', 'NaN', '1e999', ''])
      assert.equal(parseExit(`exit c t 0 ${uptime} 0`), undefined, uptime);
  });
});

it('a copied file keeps owner, group, mode and time', async () => {
  const content = Buffer.from('s3cret');
  const archive = packTar([
    { name: 'plain', mode: 0o600, content },
    { name: 'owned', mode: 0o102750, uid: 1000, gid: 2000, mtimeSeconds: 1_700_000_000, content },
    { name: 'far', mode: 0o100440, uid: 3_000_000_000, gid: 4_294_967_294, mtimeSeconds: 0.5, content },
  ]);
  const { stdout } = await execa('tar', ['-tvf', '-', '--numeric-owner', '--full-time', '--utc'], { input: archive });
  assert.deepEqual(
    stdout.split('\n').map((line) => line.split(/\s+/)),
    [
      ['-rw-------', '0/0', '6', '1970-01-01', '00:00:00', 'plain'],
      ['-rwxr-s---', '1000/2000', '6', '2023-11-14', '22:13:20', 'owned'],
      ['-r--r-----', '3000000000/4294967294', '6', '1970-01-01', '00:00:00', 'far'],
    ],
  );
  await using cleanup = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-copied-'));
  cleanup.defer(() => rm(directory, { recursive: true }));
  const source = join(directory, 'secret');
  await writeFile(source, content, { mode: 0o640 });
  await utimes(source, 1_600_000_000, 1_600_000_000);
  const { uid, gid } = await stat(source);
  const [copied] = await readHostFiles([{ destination: '/secret', source }]);
  assert.ok(copied);
  const { mode, mtimeSeconds } = copied;
  assert.deepEqual([copied.uid, copied.gid, mode & 0o7777, mtimeSeconds], [uid, gid, 0o640, 1_600_000_000]);
});
