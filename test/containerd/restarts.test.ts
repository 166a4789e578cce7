import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PodSandboxConfig } from '../../src/grpc/generated/runtime/v1/PodSandboxConfig.ts';
import { podConfig } from '../support/containerd/cri.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

/** Counts on stdout, and ends with 7 once the file /tmp/end is there; what it says last is how far it came. */
const COUNTING = 'n=0; while [ ! -e /tmp/end ]; do n=$((n+1)); echo line $n; sleep 0.2; done; echo last $n; exit 7';
/** For the streams to fill up. */
const FILL_MS = 2000;
/** A client that waits for bytes that do not come is ended, so that the test says what is missing. */
const CLIENT_TIMEOUT_MS = 120_000;
/** More than all pipes and FIFOs on the way take. */
const STREAM_BYTES = 4 * 1024 * 1024;

describe('restarts under a live container', () => {
  let rig: ContainerdRig;
  let config: PodSandboxConfig;
  let podId: string;
  before(async () => {
    rig = await ContainerdRig.start('2.1');
    config = { ...podConfig('restarts'), logDirectory: join(rig.directory, 'logs') };
    await mkdir(join(rig.directory, 'logs'));
    podId = await rig.cri.runPod(config);
  });
  after(() => rig[Symbol.asyncDispose]());

  async function counting(name: string): Promise<string> {
    const command = ['/bin/sh', '-c', COUNTING];
    const id = await rig.cri.createContainer(podId, config, name, { command, logPath: `${name}.log` });
    await rig.cri.startContainer(id);
    return id;
  }

  async function endsWith7(id: string): Promise<void> {
    assert.equal((await rig.cri.status(id)).state, 'CONTAINER_RUNNING');
    await rig.cri.shell(id, 'touch /tmp/end');
    assert.equal((await rig.exited(id)).exitCode, 7);
    await rig.cri.removeContainer(id);
    assert.deepEqual(await rig.attachedVolumes(podId), []);
  }

  /** The numbers in a log must be 1, 2, 3 and so on, and the last line the number of the others. */
  async function countedWithoutGap(name: string): Promise<{ readonly lines: number; readonly ended: boolean }> {
    const log = await readFile(join(rig.directory, `logs/${name}.log`), 'utf8');
    const numbers = [...log.matchAll(/stdout F line (\d+)\n/g)].map(([, number]) => Number(number));
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => index + 1),
    );
    const last = /stdout F last (\d+)\n/.exec(log)?.[1];
    if (last !== undefined) assert.equal(numbers.length, Number(last));
    return { lines: numbers.length, ended: last !== undefined };
  }

  /** All that the script has written is in the log, to its last line. */
  async function countedToTheEnd(name: string): Promise<void> {
    await rig.until(async () => (await countedWithoutGap(name)).ended);
    assert.ok((await countedWithoutGap(name)).lines > 0);
  }

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    it(`qshimd restarted with ${signal}: containerd notices nothing, output and exit code arrive`, async () => {
      const name = `daemon-${signal.toLowerCase()}`;
      const id = await counting(name);
      await rig.restartDaemon(signal);
      const before = (await countedWithoutGap(name)).lines;
      assert.equal((await rig.cri.shell(id, 'echo still here')).trim(), 'still here');
      await rig.until(async () => (await countedWithoutGap(name)).lines > before + 3);
      await endsWith7(id);
      await countedToTheEnd(name);
    });

    it(`containerd restarted with ${signal}: the container goes on`, async () => {
      const id = await counting(`containerd-${signal.toLowerCase()}`);
      await rig.stopContainerd(signal);
      await rig.startContainerd();
      assert.equal((await rig.cri.podStatus(podId)).state, 'SANDBOX_READY');
      await endsWith7(id);
    });
  }

  it('an exit while containerd is away is told when it is back', async () => {
    const id = await counting('missed');
    await rig.stopContainerd('SIGKILL');
    await rig.daemon.client.guest(podId, `touch $(echo /run/qshim/volumes/rootfs-*/tmp)/end`);
    await rig.until(async () => (await rig.daemon.log()).includes(`containerd takes no events`));
    await rig.startContainerd();
    assert.equal((await rig.exited(id)).exitCode, 7);
    await rig.cri.removeContainer(id);
  });

  it('an exit while qshimd is away is told when it is back', async () => {
    const id = await counting('unseen');
    await rig.daemon.client.guest(
      podId,
      `(sleep 1; touch $(echo /run/qshim/volumes/rootfs-*/tmp)/end) >/dev/null 2>&1 &`,
    );
    await rig.restartDaemon('SIGKILL', 3000);
    assert.equal((await rig.exited(id)).exitCode, 7);
    await countedToTheEnd('unseen');
    await rig.cri.removeContainer(id);
  });

  it('stdin and stdout that wait full on their whole way come through an orderly restart byte for byte', async () => {
    const id = await counting('full');
    const sent = randomBytes(STREAM_BYTES);
    const [file, ...args] = rig.ctrCommand(['tasks', 'exec', '--exec-id', 'full', id, '/bin/cat']);
    const client = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'], timeout: CLIENT_TIMEOUT_MS });
    const closed = once(client, 'close');
    client.stdin.end(sent);
    // Nobody reads yet: cat writes faster than that, and takes no more of its input then.
    await rig.until(() => Promise.resolve(client.stdout.readableLength > 0));
    await sleep(FILL_MS);
    await rig.restartDaemon('SIGTERM');
    const received = await buffer(client.stdout);
    assert.deepEqual(await closed, [0, null]);
    assert.equal(received.length, sent.length);
    assert.ok(received.equals(sent));
    await endsWith7(id);
  });

  it('the pod that has lived through all that stops and leaves nothing', async () => {
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
