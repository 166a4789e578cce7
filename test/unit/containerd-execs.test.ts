import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import type { Caller } from '../../src/containerd/caller.ts';
import type { Pod } from '../../src/containerd/pod.ts';
import type { ContainerRecord } from '../../src/containerd/pod-record.ts';
import { CONTAINERD_DIRECTORY, Pods } from '../../src/containerd/pods.ts';
import { TaskService } from '../../src/containerd/task.ts';
import type { GuestContainers, GuestProcess } from '../../src/guest/containers/types.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { ociConfig } from '../support/container-rig.ts';
import { FakePodHost, RULES } from '../support/containerd/fake-pod-host.ts';
import { until } from '../support/until.ts';

const caller: Caller = {
  namespace: 'default',
  signal: new AbortController().signal,
  leaving: new AbortController().signal,
};
const TAKEN = shimFailure('ALREADY_EXISTS', 'CONTAINER_EXISTS');
const EXEC = { id: 'c', execId: 'e' };

type ExecRequest = Parameters<TaskService['exec']>[0];
type CreateRequest = Parameters<TaskService['create']>[0];

function request(...args: string[]): ExecRequest {
  const spec = { type_url: 'x', value: Buffer.from(JSON.stringify({ args, cwd: '/' })) };
  return { ...EXEC, stdin: '', stdout: '', stderr: '', terminal: false, spec };
}

/** A pod with a running container, in a guest that only knows which processes there are. */
class Rig implements AsyncDisposable {
  readonly directory: string;
  readonly host = new FakePodHost();
  /** Processes of the guest, and what was asked of it. */
  readonly inGuest = new Set(['c/']);
  readonly calls: string[] = [];
  readonly released: string[] = [];
  /** What a step in the guest waits for. */
  step: (call: string) => Promise<void> = () => Promise.resolve();
  #pods: Pods | undefined;
  #tasks: TaskService | undefined;

  private constructor(directory: string) {
    this.directory = directory;
    const process = { state: 'running', exited: new Promise(() => undefined) } as unknown as GuestProcess;
    const make = async (key: string): Promise<GuestProcess> => {
      this.inGuest.add(key);
      await this.#call(`make ${key}`);
      return process;
    };
    this.host.guest = {
      find: (id: string, execId = '') => (this.inGuest.has(`${id}/${execId}`) ? process : undefined),
      create: ({ id }: { readonly id: string }) => make(`${id}/`),
      exec: (containerId: string, { id }: { readonly id: string }) => make(`${containerId}/${id}`),
      discard: async (id: string, execId = '') => {
        await this.#call(`discard ${id}/${execId}`);
        this.inGuest.delete(`${id}/${execId}`);
      },
    } as unknown as GuestContainers;
  }

  static async make(): Promise<Rig> {
    const rig = new Rig(await mkdtemp(join(tmpdir(), 'qshim-execs-')));
    await rig.restart();
    const pods = rig.#pods;
    assert.ok(pods);
    const pod = await pods.create({ namespace: 'default', id: 'p' }, { implicit: false, annotations: {}, labels: {} });
    await pods.start(pod, caller);
    pod.record.containers.push({
      ...{ id: 'c', bundle: rig.directory, stdin: '', stdout: '', stderr: '', terminal: false, stdinClosed: false },
      ...{ started: true, volumes: [], ready: true, execs: [] },
    });
    await pod.commit();
    await rig.restart();
    return rig;
  }

  /** As when another daemon comes; the one before was killed, and what it had on disk by now is what there is. */
  async restart(edit: (record: string) => string = (record) => record): Promise<void> {
    if (this.#pods?.all().length === 1) {
      const record = await readFile(this.path, 'utf8');
      await this.#written();
      await writeFile(this.path, edit(record));
    }
    const pods = await Pods.open({ manager: this.host, stateDir: this.directory, rules: RULES, log: silentLogger() });
    this.#pods = pods;
    this.#tasks = new TaskService({
      ...{
        pods,
        directVolumes: this.directory,
        kata: { follow: () => Promise.resolve() },
        guestGraceMs: 500,
        events: { publish: () => Promise.resolve() },
      },
      relay: {
        hold: () => Promise.resolve(),
        release: (key) => {
          this.released.push(key);
          return Promise.resolve();
        },
      },
    });
    await this.#tasks.restore();
  }

  async #call(call: string): Promise<void> {
    this.calls.push(call);
    await this.step(call);
  }

  get tasks(): TaskService {
    assert.ok(this.#tasks);
    return this.#tasks;
  }

  get pod(): Pod {
    const pod = this.#pods?.get({ namespace: 'default', id: 'p' });
    assert.ok(pod);
    return pod;
  }

  get container(): ContainerRecord {
    const container = this.pod.container('c');
    assert.ok(container);
    return container;
  }

  get path(): string {
    return join(this.directory, CONTAINERD_DIRECTORY, 'pods/default.p.json');
  }

  /** Nothing is being written any more. */
  async #written(): Promise<void> {
    for (const pod of this.#pods?.all() ?? []) await pod.commitSoon();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#written();
    await rm(this.directory, { recursive: true });
  }
}

describe('Exec', { timeout: 60_000 }, () => {
  it('a repeat joins the one in progress, and is answered by it; another one under its id is refused', async () => {
    await using rig = await Rig.make();
    const made = Promise.withResolvers<void>();
    rig.step = () => made.promise;
    const both = [rig.tasks.exec(request('a'), caller), rig.tasks.exec(request('a'), caller)];
    await assert.rejects(rig.tasks.exec(request('b'), caller), TAKEN);
    made.resolve();
    await Promise.all(both);
    assert.deepEqual(rig.calls, ['make c/e']);
    await rig.restart();
    await rig.tasks.exec(request('a'), caller);
    await assert.rejects(rig.tasks.exec(request('b'), caller), TAKEN);
    assert.deepEqual(rig.calls, ['make c/e']);
  });

  it('one on a record of an earlier version is told by its streams', async () => {
    await using rig = await Rig.make();
    await rig.tasks.exec(request('a'), caller);
    await rig.restart((record) =>
      JSON.stringify(JSON.parse(record), (_key, value: unknown) => {
        if (typeof value !== 'object' || value === null || !('digest' in value)) return value;
        return { ...value, digest: undefined, ready: undefined };
      }),
    );
    assert.deepEqual([rig.container.execs[0]?.digest, rig.container.execs[0]?.ready], [undefined, true]);
    await rig.tasks.exec(request('a'), caller);
    await assert.rejects(rig.tasks.exec({ ...request('a'), stdout: '/other' }, caller), TAKEN);
    assert.deepEqual(rig.calls, ['make c/e']);
  });

  it('a daemon that is killed between the guest’s exec and its answer leaves nothing in the guest for the next', async () => {
    await using rig = await Rig.make();
    rig.step = () => new Promise(() => undefined);
    rig.tasks.exec(request('a'), caller).catch(() => undefined);
    await until('it is in the guest', () => Promise.resolve(rig.inGuest.has('c/e')));
    rig.step = () => Promise.resolve();
    await rig.restart();
    assert.deepEqual([...rig.inGuest], ['c/']);
    assert.ok(rig.released.includes('default.p/c/e'));
    assert.deepEqual(rig.container.execs, []);
    // As the relay does.
    await rig.tasks.exec(request('a'), caller);
    assert.deepEqual([...rig.inGuest], ['c/', 'c/e']);
  });

  it('what is no process is refused by the name of its member; nothing of it is on record, or asked of the guest', async () => {
    await using rig = await Rig.make();
    const spec = { type_url: 'x', value: Buffer.from(JSON.stringify({ args: [], cwd: '/' })) };
    await assert.rejects(rig.tasks.exec({ ...request('a'), spec }, caller), (error: Error) => {
      shimFailure('INVALID_ARGUMENT', 'INVALID_CONFIG_JSON')(error);
      assert.match(error.message, /^process\.args: /);
      return true;
    });
    assert.deepEqual([rig.container.execs, rig.calls], [[], []]);
  });

  it('one that cannot be recorded is undone; while that fails it is not answered as made, and undone by a repeat or Delete', async () => {
    await using rig = await Rig.make();
    const { pod } = rig;
    let writable = true;
    const commit = pod.commit.bind(pod);
    pod.commit = () => (writable ? commit() : Promise.reject(new Error('disk full')));
    rig.step = (call) => {
      writable = call.startsWith('discard');
      return writable ? Promise.reject(new Error('busy')) : Promise.resolve();
    };
    await assert.rejects(rig.tasks.exec(request('a'), caller), /disk full/);
    await assert.rejects(rig.tasks.exec(request('a'), caller), shimFailure('UNAVAILABLE', 'EXEC_NOT_UNDONE'));
    await assert.rejects(rig.tasks.delete(EXEC, caller), shimFailure('UNAVAILABLE', 'EXEC_NOT_UNDONE'));
    assert.deepEqual([...rig.inGuest], ['c/', 'c/e']);
    rig.step = () => Promise.resolve();
    await assert.rejects(rig.tasks.delete(EXEC, caller), shimFailure('NOT_FOUND', 'CONTAINER_NOT_FOUND'));
    assert.deepEqual([...rig.inGuest], ['c/']);
    await rig.tasks.exec(request('b'), caller);
    assert.equal(rig.container.execs.length, 1);
  });
});

it('a Create whose config.json is none is refused by the name of its member, and leaves nothing on record', async () => {
  await using rig = await Rig.make();
  await writeFile(join(rig.directory, 'sandbox'), 'p');
  for (const [change, member] of [
    [{ mounts: [{ destination: 'data' }] }, 'mounts.0.destination'],
    [{ annotations: { 'io.qshim.vcpus': 2 } }, 'annotations.io.qshim.vcpus'],
  ] as const) {
    await writeFile(join(rig.directory, 'config.json'), JSON.stringify({ ...ociConfig(['true']), ...change }));
    const create = { id: 'c2', bundle: rig.directory, rootfs: [] } as unknown as CreateRequest;
    await assert.rejects(rig.tasks.create(create, caller), (error: Error) => {
      shimFailure('INVALID_ARGUMENT', 'INVALID_CONFIG_JSON')(error);
      assert.ok(error.message.startsWith(`config.json.${member}: `), error.message);
      return true;
    });
  }
  assert.deepEqual(
    rig.pod.record.containers.map(({ id }) => id),
    ['c'],
  );
  assert.deepEqual(rig.calls, []);
});

it('a Create that can neither be recorded nor undone is not answered as made', async () => {
  await using rig = await Rig.make();
  await writeFile(join(rig.directory, 'sandbox'), 'p');
  await writeFile(join(rig.directory, 'config.json'), JSON.stringify(ociConfig(['true'])));
  const rootfs = [{ type: 'ext4', source: join(rig.directory, 'config.json'), target: '', options: [] }];
  const streams = { stdin: '', stdout: '', stderr: '', terminal: false };
  const create = { id: 'c2', bundle: rig.directory, rootfs, ...streams } as unknown as CreateRequest;
  const { pod } = rig;
  const commit = pod.commit.bind(pod);
  rig.step = (call) => {
    if (call.startsWith('discard')) return Promise.reject(new Error('busy'));
    pod.commit = () => Promise.reject(new Error('disk full'));
    return Promise.resolve();
  };
  await assert.rejects(rig.tasks.create(create, caller), /disk full/);
  pod.commit = commit;
  await assert.rejects(rig.tasks.create(create, caller), shimFailure('UNAVAILABLE', 'CREATE_NOT_UNDONE'));
  rig.step = () => Promise.resolve();
  await rig.tasks.create(create, caller);
  assert.deepEqual(
    pod.record.containers.map(({ id, ready }) => [id, ready]),
    [
      ['c', true],
      ['c2', true],
    ],
  );
});
