import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { parseConfig } from '../../src/guest/containers/oci.ts';
import { guestMountPoint, planContainer } from '../../src/guest/containers/plan.ts';
import type { ContainerSpec, GuestContainers, GuestProcess, StreamSpec } from '../../src/guest/containers/types.ts';
import type { RequestedSandboxSpec } from '../../src/sandbox/spec.ts';
import type { Sandbox } from '../../src/sandbox/sandbox.ts';
import { ALL, OUTPUT, TERMINAL, all, attachImage, busyboxImage, ociConfig, sha256 } from '../support/container-rig.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { InProcess, zeroes } from '../support/in-process.ts';
import { openFiles, qemuInventory, type QemuInventory } from '../support/leaks.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();
const DATA_BYTES = 5_000_000;
const VM = {
  ...{ vcpus: 2, memoryMib: 0, kernel: '', initrd: '', kernelParameters: '', volumeCapacity: 0, iothreads: 0 },
  accelerator: 'tcg',
  labels: {},
  readyWhen: 'agent',
  template: undefined,
} as const satisfies RequestedSandboxSpec;

await describe('containers in the guest', { skip }, async () => {
  let rig: InProcess;
  let before_: { qemu: QemuInventory; host: readonly string[]; guest: string };
  const sandbox = (): Sandbox => rig.manager.sandbox('vm');
  const containers = (): GuestContainers => sandbox().containers;

  /** Runs a script in the guest itself and gives its output. */
  async function guest(script: string): Promise<string> {
    const done = await sandbox().agent.exec({ path: '/bin/sh', args: ['-c', script], timeoutMs: 60_000 });
    return done.stdout.toString() + done.stderr.toString();
  }

  /** What containers could leave: in QEMU, among this process's files, and in the guest. */
  async function inventory(): Promise<typeof before_> {
    const { files, qemu } = sandbox();
    return {
      qemu: await qemuInventory(files.directory, qemu?.pid ?? 0),
      // FIFOs; the journal's files come and go.
      host: (await openFiles(process.pid)).filter((path) => path.includes('/ports/')),
      guest:
        await guest(`ls -R /run/qshim/c /run/crun; ls -d /sys/fs/cgroup/qshim/*/; cut -d" " -f5 /proc/self/mountinfo
        ls /dev/vport*; for p in /proc/[0-9]*; do read -r name < $p/comm && echo $name; done 2>/dev/null | grep -E "crun|conmon|socat"`),
    };
  }

  /** conmon ends a moment after the exit that it told of. */
  async function inventoryAtRest(): Promise<typeof before_> {
    await until('no process of a container is left', async () => {
      return !/^(crun|conmon|socat)$/m.test((await inventory()).guest);
    });
    return await inventory();
  }

  function spec(id: string, args: readonly string[], streams: StreamSpec = OUTPUT, extra = {}): ContainerSpec {
    const plan = planContainer(parseConfig(ociConfig(args, extra)));
    return { id, plan, rootfs: guestMountPoint('root'), volumes: new Map(), devices: new Map(), streams };
  }

  async function started(id: string, script: string, streams: StreamSpec = OUTPUT, extra = {}): Promise<GuestProcess> {
    const process = await containers().create(spec(id, ['sh', '-c', script], streams, extra));
    await process.start();
    return process;
  }

  function execSpec(id: string, args: readonly string[], streams: StreamSpec = ALL) {
    return { id, process: { args: [...args], cwd: '/', env: ['PATH=/bin'], user: { uid: 0, gid: 0 } }, streams };
  }

  before(async () => {
    rig = await InProcess.start();
    await busyboxImage(join(rig.volumeDir, 'root.img'));
    await rig.manager.create('vm', VM);
    await attachImage(rig, 'vm', 'root', join(rig.volumeDir, 'root.img'));
    // What the first container makes for all that follow is there before the first look.
    const first = await started('first', 'exit 0');
    await first.exited;
    await first.delete();
    before_ = await inventoryAtRest();
  });
  after(() => rig[Symbol.asyncDispose]());

  await it('exit codes 0, 7 and of a signal; the kernel inside is the guest’s', async () => {
    for (const [id, script, code] of [
      ['zero', 'uname -r', 0],
      ['seven', 'exit 7', 7],
      ['killed', 'kill -9 $$; sleep 100', 137],
    ] as const) {
      const process = await containers().create(spec(id, ['sh', '-c', script]));
      assert.equal(process.state, 'created');
      const output = all(process.stdout);
      // Inside its pid namespace init is proof against its own signals: the signal comes from outside.
      const pid = await process.start();
      assert.ok(pid > 1);
      if (code === 137) await process.kill(9);
      const exit = await process.exited;
      assert.deepEqual([exit.code, exit.vmGone, exit.oomKilled], [code, false, false], id);
      if (id === 'zero') assert.equal((await output).toString().trim(), (await guest('uname -r')).trim());
      assert.equal((await process.delete()).code, code);
      assert.equal(containers().find(id), undefined);
    }
  });

  await it('5 MB on each of stdin, stdout and stderr, byte for byte, and the end of input', async () => {
    const process = await started('bytes', 'tee /dev/stderr; exit 3', ALL);
    const data = randomBytes(DATA_BYTES);
    const [stdout, stderr] = [all(process.stdout), all(process.stderr)];
    process.stdin?.end(data);
    assert.equal((await process.exited).code, 3);
    assert.equal(sha256(await stdout), sha256(data));
    assert.equal(sha256(await stderr), sha256(data));
    await process.delete();
  });

  // The guest's kernel queues up to 127 buffers of at most 32 KiB for a port: it takes more than 4 MiB to fill that.
  await it('nobody reads: the guest waits, and nothing is lost', async () => {
    const process = await started(
      'patient',
      `dd if=/dev/zero bs=65536 count=128 2>/dev/null | tr '\\0' a; touch /tmp/done`,
    );
    await until('the writer waits', async () => (await guest(`cat /proc/${process.pid}/status`)).includes('sleeping'));
    assert.equal(await guest(`ls -A ${guestMountPoint('root')}/tmp`), '');
    assert.equal(process.exit, undefined);
    const output = await all(process.stdout);
    assert.equal(sha256(output), sha256(Buffer.alloc(128 * 65_536, 'a')));
    await process.exited;
    await process.delete();
  });

  await it('exec beside the first process, with its own streams and code; several at once', async () => {
    const process = await started('host', 'sleep 1000');
    const execs = await Promise.all(
      ['a', 'b', 'c'].map(async (id, index) => {
        const exec = await containers().exec('host', execSpec(id, ['sh', '-c', `cat; echo ${id} >&2; exit ${index}`]));
        const output = [all(exec.stdout), all(exec.stderr)];
        await exec.start();
        exec.stdin?.end(`to ${id}`);
        const { code } = await exec.exited;
        const texts = (await Promise.all(output)).map(String);
        await exec.delete();
        return [code, ...texts];
      }),
    );
    assert.deepEqual(execs, [
      [0, 'to a', 'a\n'],
      [1, 'to b', 'b\n'],
      [2, 'to c', 'c\n'],
    ]);
    const bad = await containers().exec('host', execSpec('bad', ['nonexistent']));
    await assert.rejects(bad.start(), (error: Error) => /executable file `nonexistent` not found/.test(error.message));
    await bad.delete();
    await process.kill(9, { all: true });
    await process.exited;
    await process.delete();
  });

  await it('an exec whose ports the guest has lost, read from and written to before its start, loses nothing', async () => {
    const process = await started('lossy', 'sleep 1000');
    const known = new Set(sandbox().ports.all());
    const exec = await containers().exec('lossy', execSpec('e', ['sh', '-c', 'cat; echo error >&2; exit 3']));
    const output = [all(exec.stdout), all(exec.stderr)];
    exec.stdin?.end('before its start');
    const lost = sandbox()
      .ports.all()
      .filter((port) => !known.has(port));
    assert.equal(lost.length, 3);
    assert.equal(await guest(`rm ${lost.map(({ nr }) => `/dev/vport*p${nr}`).join(' ')}`), '');
    await exec.start();
    assert.equal((await exec.exited).code, 3);
    assert.deepEqual((await Promise.all(output)).map(String), ['before its start', 'error\n']);
    await exec.delete();
    await process.kill(9);
    await process.exited;
    await process.delete();
  });

  await it('a terminal whose process ends right after writing loses nothing', async () => {
    for (let round = 0; round < 8; round += 1) {
      const bytes = [1, 255, 256, 3000][round % 4] ?? 0;
      const process = await started(`brief${round}`, `head -c ${bytes} /dev/zero | tr '\\0' a; exit 4`, TERMINAL);
      assert.deepEqual([(await all(process.stdout)).toString(), (await process.exited).code], ['a'.repeat(bytes), 4]);
      await process.delete();
    }
  });

  await it('signals, pids, stats, pause, resume and limits', async () => {
    const limits = { linux: { resources: { memory: { limit: 32 * 1024 * 1024 }, pids: { limit: 20 } } } };
    const process = await started('ruled', 'trap "exit 5" TERM; sleep 1000 & wait', OUTPUT, limits);
    await until('both run', async () => (await containers().pids('ruled')).length === 2);
    assert.ok((await containers().pids('ruled')).includes(process.pid));
    const stats = await containers().stats('ruled');
    assert.equal(stats.memoryMaxBytes, 32 * 1024 * 1024);
    assert.equal(stats.pidsMax, 20);
    assert.equal(stats.pidsCurrent, 2);
    assert.ok((stats.cpu['usage_usec'] ?? 0) > 0 && (stats.memoryCurrentBytes ?? 0) > 0);
    await containers().pause('ruled');
    assert.equal(process.state, 'paused');
    assert.match(await guest('cat /sys/fs/cgroup/qshim/ruled/cgroup.events'), /frozen 1/);
    await containers().resume('ruled');
    await containers().update('ruled', { pids: { limit: 30 } });
    assert.equal((await containers().stats('ruled')).pidsMax, 30);
    await assert.rejects(process.delete(), { reason: 'CONTAINER_STATE' });
    await process.kill(15);
    assert.equal((await process.exited).code, 5);
    await process.kill(15);
    await process.delete();
  });

  await it('out of memory is told from other ends', async () => {
    const limits = { linux: { resources: { memory: { limit: 8 * 1024 * 1024 } } } };
    const process = await started('hungry', 'tail -c 64m /dev/zero', OUTPUT, limits);
    assert.deepEqual([(await process.exited).code, process.exit?.oomKilled], [137, true]);
    await process.delete();
  });

  await it('a terminal: its size, Ctrl-C, its end; and one for an exec', async () => {
    const process = await containers().create(spec('tty', ['sh'], TERMINAL));
    await process.resize({ columns: 101, rows: 37 });
    const output = all(process.stdout);
    await process.start();
    const exec = await containers().exec('tty', execSpec('more', ['sh', '-c', 'stty size; exit 4'], TERMINAL));
    const more = all(exec.stdout);
    await exec.resize({ columns: 44, rows: 22 });
    await exec.start();
    assert.equal((await exec.exited).code, 4);
    assert.match((await more).toString(), /^22 44\r\n$/);
    await exec.delete();
    await process.resize({ columns: 120, rows: 40 });
    process.stdin?.write('stty size; sleep 1000\r');
    await until('sleep runs', async () => (await containers().pids('tty')).length === 2);
    process.stdin?.write('\u0003');
    await until('sleep is interrupted', async () => (await containers().pids('tty')).length === 1);
    process.stdin?.write('echo code $?; exit 9\r');
    assert.equal((await process.exited).code, 9);
    const text = (await output).toString();
    assert.match(text, /40 120\r\n/);
    assert.match(text, /code 130\r\n/);
    await process.delete();
  });

  await it('a terminal that is never started, and a command that is not there', async () => {
    const never = await containers().create(spec('never', ['sh'], TERMINAL));
    await never.delete();
    const bad = await containers().create(spec('bad-tty', ['nonexistent'], TERMINAL));
    await assert.rejects(bad.start(), { reason: 'CONTAINER_REFUSED' });
    await bad.delete();
  });

  await it('files of the host are copied in, a volume is bound, and two containers share it', async () => {
    await writeFile(join(rig.directory, 'hosts'), '127.0.0.1 pod\n');
    const path = await zeroes(join(rig.volumeDir, 'shared.img'), 16 * 1024 * 1024);
    const { execa } = await import('execa');
    await execa('mkfs.ext4', ['-q', '-F', path]);
    await attachImage(rig, 'vm', 'shared', path);
    const mounts = [
      {
        destination: '/etc/hosts',
        type: 'bind',
        source: join(rig.directory, 'hosts'),
        options: ['rbind', 'rprivate', 'ro'],
      },
      { destination: '/data', type: 'ext4', source: path, options: ['rw'] },
    ];
    const volumes = new Map([['/data', guestMountPoint('shared')]]);
    const make = async (id: string, script: string): Promise<string> => {
      const made = await containers().create({ ...spec(id, ['sh', '-c', script], OUTPUT, { mounts }), volumes });
      const output = all(made.stdout);
      await made.start();
      await made.exited;
      const text = (await output).toString();
      await made.delete();
      return text;
    };
    assert.equal(
      await make('one', 'cat /etc/hosts; echo from one > /data/file; echo x > /etc/hosts || echo read-only'),
      '127.0.0.1 pod\nread-only\n',
    );
    assert.equal(await make('two', 'cat /data/file'), 'from one\n');
    await rig.manager.detach('vm', 'shared', { force: false, timeoutMs: 0 });
  });

  await it('what cannot be is refused by name, and a failed create leaves nothing', async () => {
    const refused = (mount: object, pattern: RegExp): Promise<void> =>
      assert.rejects(
        async () => await containers().create(spec('no', ['true'], OUTPUT, { mounts: [mount] })),
        (error: Error) => pattern.test(error.message),
      );
    await refused({ destination: '/x', type: 'nfs', source: 'server:/x' }, /mount at \/x \(type nfs/);
    await refused(
      { destination: '/x', type: 'bind', source: rig.directory, options: ['bind'] },
      /at \/x is not supported: only regular files/,
    );
    await assert.rejects(containers().create(spec('no', ['nonexistent'])), (error: Error) =>
      /executable file `nonexistent` not found in \$PATH/.test(error.message),
    );
    const twice = await containers().create(spec('twice', ['true']));
    await assert.rejects(containers().create(spec('twice', ['true'])), { reason: 'CONTAINER_EXISTS' });
    await twice.delete();
    assert.deepEqual(containers().list(), []);
  });

  await it('a daemon restarts: output, input and codes go on where they were', async () => {
    const script = 'echo before; read -r line; echo "got $line"; cat; sleep 1; exit 6';
    const process = await started('lives', script, ALL);
    process.stdin?.write('one\n');
    let text = '';
    process.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await until('it has begun', () => Promise.resolve(text.includes('before\n')));
    await started('ends', 'sleep 1; echo last words; exit 11');
    await containers().create(spec('held', ['sh', '-c', 'echo started; exit 4'], TERMINAL));
    await rig.restart(async () => {
      await new Promise((resolve) => setTimeout(resolve, 4000));
    });
    // In the daemon's first moment, before the guest was asked: it waits.
    assert.ok((await containers().stats('lives')).pidsCurrent);
    const again = containers().find('lives');
    assert.ok(again?.stdin && again.stdout);
    assert.equal(again.exit, undefined, 'it has not taken the absence of a daemon for the end of its input');
    const output = all(again.stdout);
    again.stdin.end('two\n');
    assert.equal((await again.exited).code, 6);
    assert.equal(text + (await output).toString(), 'before\ngot one\ntwo\n');
    const ended = containers().find('ends');
    const exit = await ended?.exited;
    assert.equal(exit?.code, 11);
    assert.ok(Date.now() - exit.atMs > 1500, 'it ended before anybody asked');
    assert.equal((await all(ended?.stdout)).toString(), 'last words\n');
    await again.delete();
    await ended?.delete();
    const held = containers().find('held');
    assert.equal(held?.exit, undefined, 'a terminal that waits to be started lives');
    const shown = all(held?.stdout);
    await held?.start();
    assert.equal((await held?.exited)?.code, 4);
    assert.equal((await shown).toString(), 'started\r\n');
    await held?.delete();
  });

  await it('after all this nothing is left: no port, back end, file, mount, cgroup or process', async () => {
    assert.deepEqual(await inventoryAtRest(), before_);
    assert.deepEqual(sandbox().ports.all().length, 1, 'the port of events stays');
  });

  await it('the VM ends: so does every process, and says why', async () => {
    const process = await started('doomed', 'echo up; sleep 1000');
    let text = '';
    process.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await until('it has begun', () => Promise.resolve(text === 'up\n'));
    const ended = once(process.stdout ?? new Readable(), 'end');
    await rig.manager.stop('vm', { force: true, gracefulTimeoutMs: 1 });
    const exit = await process.exited;
    assert.deepEqual([exit.code, exit.vmGone], [255, true]);
    await ended;
    assert.equal(text, 'up\n');
    await process.delete();
    assert.deepEqual(containers().list(), []);
  });
});
