import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import type { Caller } from '../../src/containerd/caller.ts';
import { Pods } from '../../src/containerd/pods.ts';
import { TaskService } from '../../src/containerd/task.ts';
import type { GuestContainers, GuestProcess } from '../../src/guest/containers/types.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { FakePodHost, RULES } from '../support/containerd/fake-pod-host.ts';
import { until } from '../support/until.ts';

const caller: Caller = {
  namespace: 'default',
  signal: new AbortController().signal,
  leaving: new AbortController().signal,
};

interface Container {
  readonly ready?: boolean;
  readonly started?: boolean;
  readonly discard?: () => Promise<void>;
  readonly inGuest?: Partial<GuestProcess>;
}

/** The Task service over a pod with one container, in a guest that is none. */
async function rig(cleanup: AsyncDisposableStack, about: Container): Promise<TaskService> {
  const { ready = true, started = true, discard = () => Promise.resolve(), inGuest = {} } = about;
  const directory = await mkdtemp(join(tmpdir(), 'qshim-tasks-'));
  cleanup.defer(() => rm(directory, { recursive: true }));
  const host = new FakePodHost();
  const running = { state: 'running', exited: new Promise(() => undefined), ...inGuest };
  const process = running as unknown as GuestProcess;
  const find = (): GuestProcess => process;
  host.guest = { find, exec: () => Promise.resolve(process), discard } as unknown as GuestContainers;
  const pods = await Pods.open({ manager: host, stateDir: directory, rules: RULES, log: silentLogger() });
  const pod = await pods.create({ namespace: 'default', id: 'p' }, { implicit: false, annotations: {}, labels: {} });
  await pods.start(pod, caller);
  pod.record.containers.push({
    ...{ id: 'c', bundle: directory, stdin: '', stdout: '', stderr: '', terminal: false, stdinClosed: false },
    ...{ started, volumes: [], ready, execs: [] },
  });
  const relay = { hold: () => Promise.resolve(), release: () => Promise.resolve() };
  const events = { publish: () => Promise.resolve() };
  const tasks = new TaskService({
    pods,
    events,
    relay,
    directVolumes: directory,
    kata: { follow: () => Promise.resolve() },
    guestGraceMs: 500,
  });
  await tasks.restore();
  return tasks;
}

describe('repeats', () => {
  it('an exec id that is taken is refused; the same call once more is not', async () => {
    await using cleanup = new AsyncDisposableStack();
    const tasks = await rig(cleanup, {});
    const spec = { type_url: 'x', value: Buffer.from(JSON.stringify({ args: ['true'], cwd: '/' })) };
    const exec = { id: 'c', execId: 'e', stdin: '', stdout: '', stderr: '', terminal: false, spec };
    const request = exec as unknown as Parameters<TaskService['exec']>[0];
    await tasks.exec(request, caller);
    await tasks.exec(request, caller);
    const other = { ...spec, value: Buffer.from(JSON.stringify({ args: ['false'], cwd: '/' })) };
    for (const change of [{ stdout: '/other' }, { spec: other }]) {
      const changed = { ...request, ...change };
      await assert.rejects(tasks.exec(changed, caller), shimFailure('ALREADY_EXISTS', 'CONTAINER_EXISTS'));
    }
  });

  it('a Start that a killed daemon did not live to record finds its process running, and starts nothing', async () => {
    for (const ran of [true, false]) {
      await using cleanup = new AsyncDisposableStack();
      let starts = 0;
      const start = (): Promise<number> => Promise.resolve((starts += 1));
      const tasks = await rig(cleanup, { started: false, inGuest: { ran, start } });
      for (let call = 0; call < 2; call += 1) await tasks.start({ id: 'c', execId: '' }, caller);
      assert.equal(starts, ran ? 0 : 1);
    }
  });

  it('a container that a failed Create could not undo is not answered as made; Create and Delete try to undo it again', async () => {
    await using cleanup = new AsyncDisposableStack();
    let removable = false;
    const discard = (): Promise<void> => (removable ? Promise.resolve() : Promise.reject(new Error('busy')));
    const tasks = await rig(cleanup, { ready: false, discard });
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

it('an end that is on record when its daemon is killed, and was not told, is told by the next one; once', async () => {
  await using cleanup = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-tasks-'));
  cleanup.defer(() => rm(directory, { recursive: true }));
  const host = new FakePodHost();
  const exited = Promise.resolve({ code: 7, atMs: 1000, oomKilled: true, vmGone: false });
  const process = { state: 'stopped', exited } as unknown as GuestProcess;
  host.guest = { find: () => process } as unknown as GuestContainers;
  const relay = { hold: () => Promise.resolve(), release: () => Promise.resolve() };
  const topics: string[] = [];
  /** A daemon; one that is killed publishes no event. */
  const open = async (killed: boolean): Promise<{ readonly pods: Pods; readonly tasks: TaskService }> => {
    const pods = await Pods.open({ manager: host, stateDir: directory, rules: RULES, log: silentLogger() });
    const publish = ({ topic }: { readonly topic: string }): Promise<void> => {
      if (killed) return new Promise(() => undefined);
      topics.push(topic);
      return Promise.resolve();
    };
    const tasks = new TaskService({
      pods,
      events: { publish },
      relay,
      directVolumes: directory,
      kata: { follow: () => Promise.resolve() },
      guestGraceMs: 500,
    });
    await tasks.restore();
    return { pods, tasks };
  };
  const { pods } = await open(false);
  const pod = await pods.create({ namespace: 'default', id: 'p' }, { implicit: false, annotations: {}, labels: {} });
  await pods.start(pod, caller);
  pod.record.containers.push({
    ...{ id: 'c', bundle: directory, stdin: '', stdout: '', stderr: '', terminal: false, stdinClosed: false },
    ...{ started: true, volumes: [], ready: true, execs: [] },
  });
  await pod.commit();
  const first = (await open(true)).pods.get({ namespace: 'default', id: 'p' });
  await until('the end is on record', () => Promise.resolve(first.container('c')?.exit !== undefined));
  await first.commit();
  for (let daemon = 2; daemon <= 3; daemon += 1) {
    const next = await open(false);
    assert.equal((await next.tasks.wait({ id: 'c', execId: '' }, caller)).exitStatus, 7);
    await next.pods.get({ namespace: 'default', id: 'p' }).commit();
    assert.deepEqual(topics, ['/tasks/oom', '/tasks/exit']);
  }
});
