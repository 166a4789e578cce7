/** What `kata-ctl direct-volume` and `kata-runtime direct-volume` find and ask of a pod. */
import assert from 'node:assert/strict';
import { readFile, readdir, stat } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { podConfig } from '../support/containerd/cri.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

const MIB = 1024 * 1024;

interface Answer {
  readonly status: number;
  readonly body: string;
}

describe('Kata’s tools', () => {
  let rig: ContainerdRig;
  let podId: string;
  const config = podConfig('kata');
  before(async () => {
    rig = await ContainerdRig.start('2.1');
    podId = await rig.cri.runPod(config);
  });
  after(() => rig[Symbol.asyncDispose]());

  /** Names of the sandboxes that have a volume, as Kata's tools look: what lies beside its record. */
  async function sandboxesOf(volumePath: string): Promise<readonly string[]> {
    const encoded = Buffer.from(volumePath).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
    return (await readdir(join(rig.directory, 'direct', encoded))).filter((name) => name !== 'mountInfo.json');
  }

  function socket(): string {
    return join(rig.directory, 'kt', podId, 'shim-monitor.sock');
  }

  async function ask(method: string, path: string, body = ''): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const headers = { 'content-type': 'application/json' };
    const asked = request({ socketPath: socket(), method, path, headers }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    asked.on('error', reject);
    asked.end(body);
    return await promise;
  }

  /** Bytes of the file system, as the tools hear them. */
  async function totalOf(device: string): Promise<number> {
    const { status, body } = await ask('GET', `/direct-volume/stats?path=${encodeURIComponent(device)}`);
    assert.equal(status, 200, body);
    const answer = JSON.parse(body) as { usage: { total: number; used: number; available: number; unit: number }[] };
    assert.deepEqual(
      answer.usage.map(({ unit }) => unit),
      [1, 2],
    );
    for (const { total, used, available } of answer.usage) assert.ok(used > 0 && used + available <= total);
    return answer.usage[0]?.total ?? 0;
  }

  it('find the volume’s pod, hear its figures and grow it, also of the next daemon; nothing is left', async () => {
    const device = await rig.daemon.rawFile('kata.raw', 32 * MIB);
    await execa('mkfs.ext4', ['-q', device]);
    const volumePath = await rig.directVolume('kata', { device, fstype: 'ext4' });
    const mounts = [{ containerPath: '/data', hostPath: volumePath }];
    assert.deepEqual(await sandboxesOf(volumePath), []);
    const id = await rig.cri.createContainer(podId, config, 'user', { command: ['/bin/sleep', '1000'], mounts });
    await rig.cri.startContainer(id);
    assert.deepEqual(await sandboxesOf(volumePath), [podId]);
    assert.equal((await stat(socket())).mode & 0o777, 0o600);

    const total = await totalOf(device);
    const seen = await rig.cri.shell(id, 'stat -f -c "%S %b" /data');
    const [blockBytes = 0, blocks = 0] = seen.trim().split(' ').map(Number);
    assert.equal(total, blockBytes * blocks);

    // As kata-runtime asks, and as kata-ctl does.
    const { status, body } = await ask(
      'POST',
      '/direct-volume/resize',
      JSON.stringify({ VolumePath: device, Size: 48 * MIB }),
    );
    assert.deepEqual([status, body], [200, '']);
    assert.ok((await totalOf(device)) > total);
    const again = JSON.stringify({ volume_guest_path: device, size: 64 * MIB });
    assert.equal((await ask('POST', '/direct-volume/resize', again)).status, 200);
    assert.equal((await stat(device)).size, 64 * MIB);

    const less = JSON.stringify({ VolumePath: device, Size: MIB });
    assert.match((await ask('POST', '/direct-volume/resize', less)).body, /may only grow/);
    assert.equal((await ask('POST', '/direct-volume/resize', 'no JSON')).status, 400);
    assert.equal(
      (await ask('POST', '/direct-volume/resize', `"${'x'.repeat(MIB)}"`).catch(() => undefined))?.status ?? 400,
      400,
    );
    assert.equal((await ask('GET', '/direct-volume/stats?path=/dev/other')).status, 404);
    assert.equal((await ask('GET', '/metrics')).status, 404);

    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      await rig.restartDaemon(signal);
      assert.deepEqual(await sandboxesOf(volumePath), [podId]);
      assert.ok((await totalOf(device)) > total);
    }
    await rig.cri.stopContainer(id, 0);
    await rig.cri.removeContainer(id);
    assert.deepEqual(await sandboxesOf(volumePath), []);
    assert.deepEqual(await readdir(join(rig.directory, 'kt')), []);
  });

  it('find nothing of a pod that has ended', async () => {
    const device = await rig.daemon.rawFile('ended.raw', 32 * MIB);
    await execa('mkfs.ext4', ['-q', device]);
    const volumePath = await rig.directVolume('ended', { device, fstype: 'ext4' });
    const mounts = [{ containerPath: '/data', hostPath: volumePath }];
    const id = await rig.cri.createContainer(podId, config, 'ended', { command: ['/bin/sleep', '1000'], mounts });
    await rig.cri.startContainer(id);
    assert.deepEqual(await sandboxesOf(volumePath), [podId]);
    const { qemuPid } = await rig.daemon.client.getSandbox(podId);
    assert.match(await readFile(`/proc/${qemuPid}/cmdline`, 'utf8'), /qemu/);
    process.kill(qemuPid, 'SIGKILL');
    await rig.until(async () => (await sandboxesOf(volumePath)).length === 0);
    await rig.until(async () => (await readdir(join(rig.directory, 'kt'))).length === 0);
  });
});
