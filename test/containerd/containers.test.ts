import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import type { PodSandboxConfig } from '../../src/grpc/generated/runtime/v1/PodSandboxConfig.ts';
import { podConfig } from '../support/containerd/cri.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

const MIB = 1024 * 1024;
const STREAM_BYTES = 5 * MIB;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('containers in a pod, by containerd 2.1 through CRI', () => {
  let rig: ContainerdRig;
  let config: PodSandboxConfig;
  let podId: string;
  before(async () => {
    rig = await ContainerdRig.start('2.1');
    config = { ...podConfig('containers'), logDirectory: join(rig.directory, 'logs') };
    await mkdir(join(rig.directory, 'logs'));
    podId = await rig.cri.runPod(config);
  });
  after(() => rig[Symbol.asyncDispose]());

  async function started(name: string, script: string, more: object = {}): Promise<string> {
    const command = ['/bin/sh', '-c', script];
    const id = await rig.cri.createContainer(podId, config, name, { command, logPath: `${name}.log`, ...more });
    await rig.cri.startContainer(id);
    return id;
  }

  it('exit codes 0 and 7, and 137 after SIGKILL', async () => {
    for (const code of [0, 7]) {
      const id = await started(`exit-${code}`, `exit ${code}`);
      const status = await rig.exited(id);
      assert.equal(status.exitCode, code);
      assert.equal(status.reason, code === 0 ? 'Completed' : 'Error');
      await rig.cri.removeContainer(id);
    }
    const id = await started('killed', 'trap "" TERM; while :; do sleep 1; done');
    await rig.cri.stopContainer(id, 1);
    assert.equal((await rig.exited(id)).exitCode, 137);
    await rig.cri.removeContainer(id);
    assert.deepEqual(await rig.attachedVolumes(podId), []);
  });

  it("the kernel is the guest's, the log has what was written, exec tells exit codes", async () => {
    const id = await started('kernel', 'uname -r; echo to-stderr >&2; sleep 1000');
    const kernel = (await rig.cri.shell(id, 'uname -r')).trim();
    assert.notEqual(kernel, release());
    assert.equal((await rig.daemon.client.guest(podId, 'uname -r')).trim(), kernel);
    const log = await readFile(join(rig.directory, 'logs/kernel.log'), 'utf8');
    assert.match(log, new RegExp(`stdout F ${kernel}\n`));
    assert.match(log, /stderr F to-stderr\n/);
    const result = await rig.cri.exec(id, ['/bin/sh', '-c', 'echo out; echo err >&2; exit 7']);
    assert.equal(result.exitCode, 7);
    assert.equal(result.stdout.toString(), 'out\n');
    assert.equal(result.stderr.toString(), 'err\n');
    await rig.cri.stopContainer(id, 0);
    await rig.cri.removeContainer(id);
  });

  it('stdout and stderr of 5 MB each arrive byte for byte', async () => {
    const id = await started('streams', 'sleep 1000');
    const make = (name: string): string =>
      `head -c ${STREAM_BYTES} /dev/urandom > /tmp/${name}; sha256sum < /tmp/${name}`;
    const sums = await rig.cri.shell(id, `${make('a')}; ${make('b')}`);
    const result = await rig.cri.exec(id, ['/bin/sh', '-c', 'cat /tmp/a & cat /tmp/b >&2; wait']);
    assert.equal(result.stdout.length, STREAM_BYTES);
    assert.deepEqual(
      [sha256(result.stdout), sha256(result.stderr)],
      sums
        .trim()
        .split('\n')
        .map((line) => line.split(' ')[0]),
    );
    await rig.cri.stopContainer(id, 0);
    await rig.cri.removeContainer(id);
  });

  it('stdin of 5 MB arrives byte for byte, and ends', async () => {
    const id = await started('stdin', 'sleep 1000');
    const input = randomBytes(STREAM_BYTES);
    const exec = ['tasks', 'exec', '--exec-id', 'feed', id, '/bin/sha256sum'];
    const result = await rig.ctr(exec, { input });
    assert.equal(result.exitCode, 0, result.stderr);
    assert.equal(result.stdout.toString().split(' ')[0], sha256(input));
    await rig.cri.stopContainer(id, 0);
    await rig.cri.removeContainer(id);
  });

  it('containers share a direct-assigned volume, which one only reads: attached once, gone with the last', async () => {
    const image = await rig.daemon.rawFile('shared.raw', 32 * MIB);
    await execa('mkfs.ext4', ['-q', image]);
    const mount = await rig.directVolume('shared', { device: image, fstype: 'ext4' });
    const mounts = [{ containerPath: '/data', hostPath: mount }];
    const first = await started('first', 'sleep 1000', { mounts });
    const second = await started('second', 'sleep 1000', { mounts });
    await rig.cri.shell(first, 'echo written by the first > /data/note; sync');
    assert.equal((await rig.cri.shell(second, 'cat /data/note')).trim(), 'written by the first');
    const volumes = await rig.attachedVolumes(podId);
    assert.equal(volumes.filter((name) => name.startsWith('volume-')).length, 1);
    const readonly = [{ containerPath: '/data', hostPath: mount, readonly: true }];
    const reader = await started('reader', 'sleep 1000', { mounts: readonly });
    const refused = 'cat /data/note; echo spoilt > /data/note || echo refused';
    assert.equal((await rig.cri.shell(reader, refused)).trim(), 'written by the first\nrefused');
    await rig.cri.stopContainer(reader, 0);
    await rig.cri.removeContainer(reader);
    await rig.cri.stopContainer(first, 0);
    await rig.cri.removeContainer(first);
    assert.equal((await rig.cri.shell(second, 'echo more >> /data/note; cat /data/note')).split('\n')[1], 'more');
    await rig.cri.stopContainer(second, 0);
    await rig.cri.removeContainer(second);
    assert.deepEqual(await rig.attachedVolumes(podId), []);
    const { stdout } = await execa('debugfs', ['-R', 'cat /note', image]);
    assert.equal(stdout, 'written by the first\nmore');
  });

  it("a block device of the host among CRI's devices: a disk of the guest, under the name that was asked for", async (context) => {
    const image = await rig.daemon.rawFile('device.raw', 16 * MIB);
    await writeFile(image, 'written by the host', { flag: 'r+' });
    const loop = await execa('losetup', ['--find', '--show', image], { reject: false });
    if (loop.exitCode !== 0) {
      context.skip(`no loop device: ${loop.stderr}`);
      return;
    }
    const hostPath = loop.stdout.trim();
    try {
      const devices = [{ containerPath: '/dev/ledger', hostPath, permissions: 'rwm' }];
      const id = await started('device', 'sleep 1000', { devices });
      assert.equal(await rig.cri.shell(id, 'head -c 19 /dev/ledger'), 'written by the host');
      await rig.cri.shell(id, 'printf "by the guest now  " | dd of=/dev/ledger conv=notrunc,fsync');
      await rig.cri.stopContainer(id, 0);
      await rig.cri.removeContainer(id);
      assert.deepEqual(await rig.attachedVolumes(podId), []);
    } finally {
      await execa('losetup', ['--detach', hostPath]);
    }
    assert.match((await readFile(image)).subarray(0, 19).toString(), /^by the guest now/);
  });

  it('a container that takes more memory than it may is killed, and CRI hears why', async () => {
    const resources = { memoryLimitInBytes: 48 * MIB };
    const securityContext = { namespaceOptions: { network: 'NODE', pid: 'CONTAINER' } };
    const id = await started('greedy', 'tail /dev/zero', { linux: { resources, securityContext } });
    const status = await rig.exited(id);
    assert.deepEqual([status.exitCode, status.reason], [137, 'OOMKilled']);
    await rig.cri.removeContainer(id);
  });

  it('what the guest cannot have is refused by name, and nothing is left of the container', async () => {
    const directory = join(rig.directory, 'plain');
    await mkdir(directory);
    const mounts = [{ containerPath: '/plain', hostPath: directory }];
    await assert.rejects(started('refused', 'true', { mounts }), /\/plain/);
    const broken = await rig.directVolume('broken', { device: '/nowhere', fstype: 'ntfs' });
    const direct = [{ containerPath: '/broken', hostPath: broken }];
    await assert.rejects(
      started('broken', 'true', { mounts: direct }),
      /csi\/broken.*is no usable record: file system ntfs is not ext4 or xfs/,
    );
    assert.match(await rig.daemon.log(), /INVALID_DIRECT_VOLUME/);
    assert.deepEqual(await rig.attachedVolumes(podId), []);
    assert.deepEqual((await rig.daemon.client.getSandbox(podId)).state, 'SANDBOX_STATE_RUNNING');
  });

  it('figures of container and pod', async () => {
    const id = await started('figures', 'while :; do :; done');
    const stats = await rig.cri.stats(id);
    assert.ok((stats.cpu?.usageCoreNanoSeconds?.value ?? 0) > 0);
    assert.ok((stats.memory?.workingSetBytes?.value ?? 0) > 0);
    await rig.cri.stopContainer(id, 0);
    await rig.cri.removeContainer(id);
  });

  it('stopped and removed, the pod leaves nothing', async () => {
    await started('last', 'sleep 1000');
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
