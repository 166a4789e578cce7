import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isShimError } from '../../src/base/errors.ts';
import { parseConfig } from '../../src/guest/containers/oci.ts';
import { guestMountPoint, planContainer } from '../../src/guest/containers/plan.ts';
import type { GuestContainers, GuestProcess } from '../../src/guest/containers/types.ts';
import type { Sandbox } from '../../src/sandbox/sandbox.ts';
import { OUTPUT, all, attachImage, busyboxImage, ociConfig } from '../support/container-rig.ts';
import { InProcess } from '../support/in-process.ts';
import { until } from '../support/until.ts';

const VM = {
  ...{ vcpus: 2, memoryMib: 512, kernel: '', initrd: '', kernelParameters: '', volumeCapacity: 0, iothreads: 0 },
  accelerator: 'tcg',
  labels: {},
  readyWhen: 'agent',
  template: undefined,
} as const;
/** Each becomes two, without an end. A shell that cannot start another ends: the container's init is none of them. */
const FORK_BOMB = 'bomb() { while :; do bomb & sleep 1; done; }; bomb 2>/dev/null & exec sleep 100000';
/** Takes memory until it is killed, again and again. */
const MEMORY_BOMB = 'while :; do tail /dev/zero; done 2>/dev/null';
const TIME_LIMIT_MS = 600_000;

describe('a container that takes all it can get', { timeout: TIME_LIMIT_MS }, () => {
  let rig: InProcess;
  let shells = 0;
  const sandbox = (): Sandbox => rig.manager.sandbox('vm');
  const containers = (): GuestContainers => sandbox().containers;

  before(async () => {
    rig = await InProcess.start();
    await busyboxImage(join(rig.volumeDir, 'root.img'));
    await rig.manager.create('vm', VM);
    await attachImage(rig, 'vm', 'root', join(rig.volumeDir, 'root.img'));
  });
  after(() => rig[Symbol.asyncDispose]());

  async function started(id: string, script: string, linux = {}): Promise<GuestProcess> {
    const plan = planContainer(parseConfig(ociConfig(['sh', '-c', script], { linux })));
    const spec = { id, plan, rootfs: guestMountPoint('root'), volumes: new Map(), devices: new Map(), streams: OUTPUT };
    const process = await containers().create(spec);
    await process.start();
    return process;
  }

  /** A shell there, when there is a place for it; what it starts may find none. */
  async function inBomb(): Promise<string> {
    shells += 1;
    const process = {
      args: ['sh', '-c', 'echo here; sleep 0'],
      cwd: '/',
      env: ['PATH=/bin'],
      user: { uid: 0, gid: 0 },
    };
    const exec = await containers().exec('bomb', { id: `shell-${shells}`, process, streams: OUTPUT });
    try {
      await exec.start();
      const output = Promise.all([all(exec.stdout), all(exec.stderr)]);
      const { code } = await exec.exited;
      const [stdout, stderr] = (await output).map(String);
      assert.deepEqual(
        [code, stderr],
        code === 0 ? [0, ''] : [2, "sh: can't fork: Resource temporarily unavailable\n"],
      );
      return stdout ?? '';
    } finally {
      await exec.delete();
    }
  }

  /** crun was refused its process, and the caller hears why. */
  function assertTold(error: unknown): undefined {
    assert.ok(isShimError(error) && error.reason === 'CONTAINER_REFUSED', String(error));
    assert.match(error.message, /the container may have \d+ processes; it has asked for more \d+ times/);
  }

  /** What a command in a container prints. */
  async function said(container: string, id: string, script: string): Promise<string> {
    const process = { args: ['sh', '-c', script], cwd: '/', env: ['PATH=/bin'], user: { uid: 0, gid: 0 } };
    const exec = await containers().exec(container, { id, process, streams: OUTPUT });
    await exec.start();
    const output = all(exec.stdout);
    assert.equal((await exec.exited).code, 0);
    await exec.delete();
    return (await output).toString();
  }

  async function inGuest(script: string): Promise<string> {
    const done = await sandbox().agent.exec({ path: '/bin/sh', args: ['-c', script], timeoutMs: 60_000 });
    return done.stdout.toString().trim();
  }

  const figures = async (id: string): Promise<{ pidsCurrent?: number | undefined; pidsMax?: number | undefined }> =>
    await containers().stats(id);

  it('processes: others go on, the agent answers, exec in it works or tells the truth, and Kill ends it', async () => {
    const other = await started('other', 'sleep 100000');
    const bomb = await started('bomb', FORK_BOMB);
    const { pidsMax } = await figures('bomb');
    assert.ok(pidsMax !== undefined && pidsMax < 2000, `the limit of processes is ${String(pidsMax)}`);
    await until('the bomb has all that it can get', async () => ((await figures('bomb')).pidsCurrent ?? 0) >= pidsMax);
    await sandbox().agent.ping();
    assert.equal(await said('other', 'one', 'echo here'), 'here\n');
    // crun needs a process in it for a moment; the shell has its own, and cannot start another.
    const inIt = await until('a place for one more', async () => await inBomb().catch(assertTold));
    assert.equal(inIt, 'here\n');
    await bomb.kill(9, { all: true });
    await bomb.exited;
    await bomb.delete();
    assert.equal(await said('other', 'three', 'echo here'), 'here\n');
    await other.kill(9);
    await other.exited;
    await other.delete();
  });

  it('memory: the kernel ends what is in that container, and nothing else', async () => {
    const other = await started('neighbour', 'sleep 100000');
    const bomb = await started('hungry', MEMORY_BOMB);
    const ended = async (): Promise<boolean> =>
      ((await containers().stats('hungry')).memoryEvents['oom_kill'] ?? 0) >= 1;
    await until('the kernel has ended something in it', ended, TIME_LIMIT_MS / 2);
    assert.equal(await said('neighbour', 'one', 'echo here'), 'here\n');
    assert.equal(other.exit, undefined);
    await sandbox().agent.ping();
    await bomb.kill(9, { all: true });
    await bomb.exited;
    await bomb.delete();
    await other.kill(9);
    await other.exited;
    await other.delete();
  });

  it('what it asks for counts, as far as there is so much; /dev/shm has 64 MiB', async () => {
    const asked = { resources: { pids: { limit: 50 }, memory: { limit: 33_554_432 } } };
    const small = await started('small', 'sleep 100000', asked);
    const { pidsMax, memoryMaxBytes } = await containers().stats('small');
    assert.deepEqual([pidsMax, memoryMaxBytes], [50, 33_554_432]);
    const [blocks = 0, bytes = 0] = (await inGuest('stat -f -c "%b %S" /dev/shm')).split(' ').map(Number);
    assert.equal(blocks * bytes, 67_108_864);
    // The agent has a group of its own, whose memory is not taken for others.
    const [group, low] = (await inGuest('cat /proc/$PPID/cgroup /sys/fs/cgroup/qshim-agent/memory.low')).split('\n');
    assert.equal(group, '0::/qshim-agent');
    assert.ok(Number(low) >= 16 * 1024 * 1024, `it keeps ${low} bytes`);
    await small.kill(9);
    await small.exited;
    await small.delete();
  });
});
