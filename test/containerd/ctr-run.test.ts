import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { release } from 'node:os';
import { after, before, suite, test } from 'node:test';
import { execa } from 'execa';
import { IMAGE } from '../support/containerd/image.ts';
import { ContainerdRig, type CtrResult } from '../support/containerd/rig.ts';

const STREAM_BYTES = 5 * 1024 * 1024;
const NAMESPACE = 'default';
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

for (const version of ['1.7', '2.1'] as const) {
  suite(`ctr run, by an unmodified containerd ${version}: a VM for each container`, () => {
    let rig: ContainerdRig;
    before(async () => {
      rig = await ContainerdRig.start(version);
    });
    after(() => rig[Symbol.asyncDispose]());

    async function run(
      id: string,
      args: readonly string[],
      more: readonly string[] = ['--rm'],
      input?: Buffer,
    ): Promise<CtrResult> {
      const command = ['run', '--runtime', 'io.containerd.qshim.v2', '--snapshotter', 'blockfile', ...more];
      const options = { namespace: NAMESPACE, ...(input === undefined ? {} : { input }) };
      return await rig.ctr([...command, IMAGE, id, ...args], options);
    }

    async function nothingIsLeft(): Promise<void> {
      assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
      assert.equal((await rig.ctr(['tasks', 'ls', '-q'], { namespace: NAMESPACE })).stdout.toString(), '');
    }

    test("exit codes, and the guest's kernel", async () => {
      const result = await run('plain', ['/bin/sh', '-c', 'uname -r; echo err >&2; exit 7']);
      assert.equal(result.exitCode, 7, result.stderr);
      assert.notEqual(result.stdout.toString().trim(), release());
      assert.match(result.stdout.toString(), /^\d+\.\d+\./);
      assert.equal(result.stderr, 'err\n');
      await nothingIsLeft();
    });

    test('stdin, stdout and stderr of 5 MB each, byte for byte', async () => {
      const input = randomBytes(STREAM_BYTES);
      const result = await run('streams', ['/bin/sh', '-c', 'tee /tmp/in; cat /tmp/in >&2'], ['--rm'], input);
      assert.equal(result.exitCode, 0);
      assert.equal(sha256(result.stdout), sha256(input));
      assert.equal(sha256(result.stderrBytes), sha256(input));
      await nothingIsLeft();
    });

    test('a file system from --mount, and the size of the VM from annotations', async () => {
      const image = await rig.daemon.rawFile('mount.raw', 32 * 1024 * 1024);
      await execa('mkfs.ext4', ['-q', image]);
      const more = [
        '--rm',
        '--mount',
        `type=ext4,src=${image},dst=/data,options=rw`,
        '--annotation',
        'io.qshim.vcpus=2',
      ];
      const result = await run('mount', ['/bin/sh', '-c', 'echo kept > /data/note; nproc'], more);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.equal(result.stdout.toString().trim(), '2');
      assert.equal((await execa('debugfs', ['-R', 'cat /note', image])).stdout, 'kept');
      await nothingIsLeft();
    });

    test('exec and kill in a detached container; containerd restarts under it', async () => {
      const started = await run('detached', ['/bin/sleep', '1000'], ['-d']);
      assert.equal(started.exitCode, 0, started.stderr);
      await rig.stopContainerd('SIGKILL');
      await rig.startContainerd();
      const exec = ['tasks', 'exec', '--exec-id', 'e1', 'detached', '/bin/sh', '-c', 'echo in; exit 3'];
      const result = await rig.ctr(exec, { namespace: NAMESPACE });
      assert.equal(result.exitCode, 3, result.stderr);
      assert.equal(result.stdout.toString(), 'in\n');
      assert.equal(
        (await rig.ctr(['tasks', 'kill', '-s', 'SIGKILL', 'detached'], { namespace: NAMESPACE })).exitCode,
        0,
      );
      await rig.until(async () =>
        (await rig.ctr(['tasks', 'ls'], { namespace: NAMESPACE })).stdout.includes('STOPPED'),
      );
      const removed = await rig.ctr(['tasks', 'rm', 'detached'], { namespace: NAMESPACE });
      assert.match(removed.stderr, /exit code 137/);
      await rig.ctr(['containers', 'rm', 'detached'], { namespace: NAMESPACE });
      await nothingIsLeft();
    });
  });
}
