import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { CtrRun } from '../support/containerd/ctr-run.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

const STREAM_BYTES = 5 * 1024 * 1024;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

for (const version of ['1.7', '2.1'] as const) {
  describe(`ctr run, by an unmodified containerd ${version}: a VM for each container`, () => {
    let rig: ContainerdRig;
    let ctr: CtrRun;
    before(async () => {
      rig = await ContainerdRig.start(version, { containerd_annotations: 'vcpus' });
      ctr = new CtrRun(rig);
    });
    after(() => rig[Symbol.asyncDispose]());

    it("exit codes, and the guest's kernel", async () => {
      const result = await ctr.run('plain', ['/bin/sh', '-c', 'uname -r; echo err >&2; exit 7']);
      assert.equal(result.exitCode, 7, result.stderr);
      assert.notEqual(result.stdout.toString().trim(), release());
      assert.match(result.stdout.toString(), /^\d+\.\d+\./);
      assert.equal(result.stderr, 'err\n');
      await ctr.nothingIsLeft();
    });

    it('stdin, stdout and stderr of 5 MB each, byte for byte', async () => {
      const input = randomBytes(STREAM_BYTES);
      const result = await ctr.run('streams', ['/bin/sh', '-c', 'tee /tmp/in; cat /tmp/in >&2'], ['--rm'], input);
      assert.equal(result.exitCode, 0);
      assert.equal(sha256(result.stdout), sha256(input));
      assert.equal(sha256(result.stderrBytes), sha256(input));
      await ctr.nothingIsLeft();
    });

    it('output that is read slowly arrives to its last byte, though the process has long ended', async () => {
      // A port of the guest queues most of it: the process is gone while megabytes are still on their way.
      const child = await ctr.spawn('slow', [
        '/bin/sh',
        '-c',
        `head -c ${STREAM_BYTES} /dev/zero | tr '\\0' x; echo end`,
      ]);
      const ended = once(child, 'exit');
      const chunks: Buffer[] = [];
      assert.ok(child.stdout);
      for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
        chunks.push(chunk);
        await sleep(50);
      }
      assert.deepEqual(await ended, [0, null]);
      const output = Buffer.concat(chunks);
      assert.equal(output.length, STREAM_BYTES + 'end\n'.length);
      assert.equal(output.subarray(-5).toString(), 'xend\n');
      await ctr.nothingIsLeft();
    });

    it('a file system from --mount, and the size of the VM from annotations', async () => {
      const image = await rig.daemon.rawFile('mount.raw', 32 * 1024 * 1024);
      await execa('mkfs.ext4', ['-q', image]);
      const more = ['--rm', '--mount', `type=ext4,src=${image},dst=/data,options=rw`];
      const script = 'echo kept > /data/note; nproc';
      const result = await ctr.run('mount', ['/bin/sh', '-c', script], [...more, '--annotation', 'io.qshim.vcpus=2']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.equal(result.stdout.toString().trim(), '2');
      assert.equal((await execa('debugfs', ['-R', 'cat /note', image])).stdout, 'kept');
      await ctr.nothingIsLeft();
    });

    it('exec and kill in a detached container; containerd and qshimd are killed under it', async () => {
      const started = await ctr.run('detached', ['/bin/sleep', '1000'], ['-d']);
      assert.equal(started.exitCode, 0, started.stderr);
      await rig.stopContainerd('SIGKILL');
      await rig.startContainerd();
      await rig.restartDaemon('SIGKILL');
      const result = await ctr.exec('detached', 'e1', ['/bin/sh', '-c', 'echo in; exit 3']);
      assert.equal(result.exitCode, 3, result.stderr);
      assert.equal(result.stdout.toString(), 'in\n');
      assert.match((await ctr.remove('detached')).stderr, /exit code 137/);
      await ctr.nothingIsLeft();
    });

    it('a running container that containerd has lost is ended by the runtime binary', async () => {
      assert.equal((await ctr.run('lost', ['/bin/sleep', '1000'], ['-d'])).exitCode, 0);
      await rig.stopContainerd('SIGKILL');
      const bundle = join(rig.directory, 'state/io.containerd.runtime.v2.task/default/lost');
      for (const name of ['address', 'bootstrap.json']) await rm(join(bundle, name), { force: true });
      await rig.startContainerd();
      // containerd waits five seconds for the runtime binary; what that has begun ends after it.
      await rig.until(async () => (await rig.daemon.client.listSandboxes()).length === 0);
      await ctr.nothingIsLeft();
      await ctr.forget('lost');
    });
  });
}
