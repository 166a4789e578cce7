import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { podConfig } from '../support/containerd/cri.ts';
import { IMAGE } from '../support/containerd/image.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

/** A client that waits for what does not come is ended, so that the test says what is missing. */
const CLIENT_TIMEOUT_MS = 60_000;
const DEVICE_BYTES = 16 * 1024 * 1024;
const MIB = 1024 * 1024;

describe('what people’s containers met', () => {
  let rig: ContainerdRig;
  let podId: string;
  const config = podConfig('field');
  before(async () => {
    rig = await ContainerdRig.start('2.1');
    podId = await rig.cri.runPod(config);
  });
  after(() => rig[Symbol.asyncDispose]());

  async function started(name: string, more: object = {}): Promise<string> {
    const id = await rig.cri.createContainer(podId, config, name, { command: ['/bin/sleep', '1000'], ...more });
    await rig.cri.startContainer(id);
    return id;
  }

  async function gone(id: string): Promise<void> {
    await rig.cri.stopContainer(id, 0);
    await rig.cri.removeContainer(id);
  }

  it('a process with little on its standard input has it, and its end', async () => {
    const id = await started('input');
    // With none at all ctr sees its end before it knows the process, whatever the shim does.
    for (const bytes of [4, 70_000, 5 * MIB]) {
      const input = Buffer.alloc(bytes, 'x');
      const exec = ['tasks', 'exec', '--exec-id', `e${bytes}`, id, '/bin/cat'];
      const { exitCode, stdout } = await rig.ctr(exec, { input, timeoutMs: CLIENT_TIMEOUT_MS });
      assert.deepEqual([exitCode, stdout.length], [0, bytes]);
    }
    await gone(id);
  });

  it('a container with little on its standard input has it, and its end', async () => {
    const run = [
      'run',
      '--rm',
      '--snapshotter',
      'blockfile',
      '--runtime',
      'io.containerd.qshim.v2',
      IMAGE,
      'in',
      '/bin/cat',
    ];
    const { exitCode, stdout, stderr } = await rig.ctr(run, {
      ...{ namespace: 'default', input: Buffer.from('abcd'), timeoutMs: 2 * CLIENT_TIMEOUT_MS },
    });
    assert.deepEqual([exitCode, stdout.toString(), stderr], [0, 'abcd', '']);
  });

  it('each byte of a living process is passed on at once', async () => {
    const id = await started('echo');
    const [file, ...args] = rig.ctrCommand(['tasks', 'exec', '--exec-id', 'echo', id, '/bin/cat']);
    const client = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'], timeout: CLIENT_TIMEOUT_MS });
    const closed = once(client, 'close');
    for (const byte of '0123456789abcdef') {
      client.stdin.write(byte);
      assert.equal(String(((await once(client.stdout, 'data')) as [Buffer])[0]), byte);
    }
    client.stdin.end();
    assert.deepEqual(await closed, [0, null]);
    await gone(id);
  });

  it('a device that the container may only read is attached read-only, and so is one that the host only reads', async (t) => {
    const image = await rig.daemon.rawFile('ledger.raw', DEVICE_BYTES);
    for (const [hostFlags, permissions] of [
      [[], 'rm'],
      [['--read-only'], 'r'],
      [['--read-only'], 'rwm'],
    ] as const) {
      const loop = await execa('losetup', [...hostFlags, '--find', '--show', image], { reject: false });
      if (loop.exitCode !== 0) {
        t.skip(`no loop device: ${loop.stderr}`);
        return;
      }
      const hostPath = loop.stdout.trim();
      try {
        const id = await started(`device-${hostFlags.length}-${permissions}`, {
          devices: [{ containerPath: '/dev/ledger', hostPath, permissions }],
        });
        const volumes = await rig.daemon.client.listVolumes(podId);
        const attached = volumes.filter(
          ({ state, volumeId }) => state === 'VOLUME_STATE_ATTACHED' && !volumeId.startsWith('rootfs-'),
        );
        assert.deepEqual(
          attached.map(({ spec }) => spec?.readOnly),
          [true],
        );
        assert.equal(await rig.cri.shell(id, 'head -c 512 /dev/ledger | wc -c'), '512\n');
        await gone(id);
      } finally {
        await execa('losetup', ['--detach', hostPath]);
      }
    }
  });

  it('a file of the host that is bound keeps owner, group, mode and time', async (t) => {
    if (process.getuid?.() !== 0) {
      t.skip('only root can give files away');
      return;
    }
    const hostPath = join(rig.directory, 'secret');
    await writeFile(hostPath, 's3cret');
    await chown(hostPath, 1000, 2000);
    await chmod(hostPath, 0o2750);
    await utimes(hostPath, 1_600_000_000, 1_600_000_000);
    const id = await started('owner', { mounts: [{ containerPath: '/secret', hostPath, readonly: true }] });
    assert.equal(await rig.cri.shell(id, 'stat -c "%u %g %a %Y" /secret'), '1000 2000 2750 1600000000\n');
    await gone(id);
  });

  it('a further process has the container’s place before the out-of-memory killer', async () => {
    const linux = {
      securityContext: { namespaceOptions: { network: 'NODE', pid: 'CONTAINER' } },
      resources: { oomScoreAdj: 937 },
    };
    const id = await started('oom', { linux });
    for (const who of ['1', 'self']) {
      assert.equal(await rig.cri.shell(id, `cat /proc/${who}/oom_score_adj`), '937\n', who);
    }
    await gone(id);
  });

  it('two records of one direct-assigned volume, with other flags, are one volume; its group is Kata’s fsGroup', async () => {
    const device = await rig.daemon.rawFile('direct.raw', DEVICE_BYTES);
    await execa('mkfs.ext4', ['-q', device]);
    const record = { device, fstype: 'ext4', metadata: { fsGroup: '2000', fsGroupChangePolicy: 'OnRootMismatch' } };
    const first = await rig.directVolume('first', Object.assign(record, { options: ['noatime'] }));
    const second = await rig.directVolume('second', Object.assign(record, { options: ['nosuid', 'noexec'] }));
    const id = await started('direct', {
      mounts: [
        { containerPath: '/first', hostPath: first },
        { containerPath: '/second', hostPath: second },
      ],
    });
    assert.equal(await rig.cri.shell(id, 'echo same > /first/note; cat /second/note'), 'same\n');
    assert.equal(await rig.cri.shell(id, 'stat -c "%g %A" /first; stat -c %g /first/note'), '2000 drwxrwsr-x\n2000\n');
    const flags = await rig.cri.shell(id, "awk '$2 ~ /^.(first|second)$/ { print $2, $4 }' /proc/mounts");
    assert.match(flags, /^\/first .*noatime/m);
    assert.match(flags, /^\/second .*nosuid.*noexec/m);
    await gone(id);
    assert.deepEqual(await rig.attachedVolumes(podId), []);
  });

  it('a pod that asks for a network or sysctls, which it would not get, is refused', async () => {
    const linux = { securityContext: { namespaceOptions: { network: 'NODE' as const } } };
    const sysctls = { 'kernel.shm_rmid_forced': '1' };
    await assert.rejects(rig.cri.runPod({ ...podConfig('sysctls'), linux: { ...linux, sysctls } }), /sysctls/);
    // Without hostNetwork CNI comes first; without any CNI the pod fails there.
    await assert.rejects(rig.cri.runPod({ ...podConfig('network'), linux: {} }));
    assert.equal((await rig.daemon.client.listSandboxes()).length, 1);
  });

  it('the pod stops and leaves nothing', async () => {
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
