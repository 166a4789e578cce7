import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import type { Caller } from '../../src/containerd/caller.ts';
import { planner } from '../../src/containerd/guest-half.ts';
import { Pods } from '../../src/containerd/pods.ts';
import { TaskService } from '../../src/containerd/task.ts';
import type { GuestContainers, GuestProcess } from '../../src/guest/containers/types.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { FakePodHost } from '../support/containerd/fake-pod-host.ts';

const caller: Caller = {
  namespace: 'default',
  signal: new AbortController().signal,
  leaving: new AbortController().signal,
};

/** The Task service over a pod with one container, in a guest that is none. */
async function rig(cleanup: AsyncDisposableStack, ready: boolean, discard: () => Promise<void>): Promise<TaskService> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-tasks-'));
  cleanup.defer(() => rm(directory, { recursive: true }));
  const host = new FakePodHost();
  const process = { state: 'running', exited: new Promise(() => undefined) } as unknown as GuestProcess;
  const find = (): GuestProcess => process;
  host.guest = { find, exec: () => Promise.resolve(process), discard } as unknown as GuestContainers;
  const pods = await Pods.open({ manager: host, stateDir: directory, log: silentLogger() });
  const pod = await pods.create({ namespace: 'default', id: 'p' }, { implicit: false, annotations: {}, labels: {} });
  await pods.start(pod, caller);
  pod.record.containers.push({
    ...{ id: 'c', bundle: directory, stdin: '', stdout: '', stderr: '', terminal: false, stdinClosed: false },
    ...{ started: true, volumes: [], ready, execs: [] },
  });
  const relay = { hold: () => Promise.resolve(), release: () => Promise.resolve() };
  const events = { publish: () => Promise.resolve() };
  const containersOf = (): GuestContainers => pod.containers;
  const tasks = new TaskService({ pods, events, relay, containersOf, planner, directVolumes: directory });
  await tasks.restore();
  return tasks;
}

suite('repeats', () => {
  test('an exec id that is taken is refused; the same call once more is not', async () => {
    await using cleanup = new AsyncDisposableStack();
    const tasks = await rig(cleanup, true, () => Promise.resolve());
    const spec = { type_url: 'x', value: Buffer.from(JSON.stringify({ args: ['true'], cwd: '/' })) };
    const exec = { id: 'c', execId: 'e', stdin: '', stdout: '', stderr: '', terminal: false, spec };
    const request = exec as unknown as Parameters<TaskService['exec']>[0];
    await tasks.exec(request, caller);
    await tasks.exec(request, caller);
    await assert.rejects(
      tasks.exec({ ...request, stdout: '/other' }, caller),
      shimFailure('ALREADY_EXISTS', 'CONTAINER_EXISTS'),
    );
  });

  test('a container that a failed Create could not undo is not answered as made; Create and Delete try to undo it again', async () => {
    await using cleanup = new AsyncDisposableStack();
    let removable = false;
    const tasks = await rig(cleanup, false, () => (removable ? Promise.resolve() : Promise.reject(new Error('busy'))));
    const create = { id: 'c', bundle: '/nowhere' } as unknown as Parameters<TaskService['create']>[0];
    await assert.rejects(tasks.create(create, caller), shimFailure('UNAVAILABLE', 'CREATE_NOT_UNDONE'));
    const one = { id: 'c', execId: '' };
    await assert.rejects(tasks.delete(one, caller), shimFailure('UNAVAILABLE', 'CREATE_NOT_UNDONE'));
    removable = true;
    await assert.rejects(tasks.delete(one, caller), shimFailure('NOT_FOUND', 'CONTAINER_NOT_FOUND'));
    // Nothing is left: this one is a Create as any other, and its bundle is not there.
    await assert.rejects(tasks.create(create, caller), shimFailure('INVALID_ARGUMENT', 'INVALID_CONFIG_JSON'));
  });
});
