import assert from 'node:assert/strict';
import { closeSync, constants, openSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import type { Caller } from '../../src/containerd/caller.ts';
import type { Pod } from '../../src/containerd/pod.ts';
import type { ContainerRecord } from '../../src/containerd/pod-record.ts';
import { CONTAINERD_DIRECTORY, Pods } from '../../src/containerd/pods.ts';
import { TaskService } from '../../src/containerd/task.ts';
import type { GuestContainers, GuestProcess, ProcessExit } from '../../src/guest/containers/types.ts';
import type { HeldFifo } from '../../src/relay/holds.ts';
import { ociConfig } from '../support/container-rig.ts';
import { FakePodHost, RULES } from '../support/containerd/fake-pod-host.ts';
import { until } from '../support/until.ts';

const caller: Caller = {
  namespace: 'default',
  signal: new AbortController().signal,
  leaving: new AbortController().signal,
};
const CONTAINER = { id: 'c', execId: '' };
const STREAMS = ['stdin', 'stdout', 'stderr'] as const;

/** A process in a guest that is none: it runs until it is told to end, and its streams end with it. */
class FakeProcess {
  state = 'running';
  readonly ran = true;
  readonly #exited = Promise.withResolvers<ProcessExit>();
  readonly exited = this.#exited.promise;
  readonly stdin = new Writable({ write: () => undefined });
  readonly stdout = output();
  readonly stderr = output();

  end(): void {
    this.state = 'stopped';
    this.#exited.resolve({ code: 0, atMs: 1000, oomKilled: false, vmGone: false });
    this.stdout.push(null);
    this.stderr.push(null);
  }

  async delete(): Promise<ProcessExit> {
    this.end();
    return await this.exited;
  }
}

function output(): Readable & { leave(): { bytes: Buffer; ended: boolean } } {
  const stream = new Readable({ read: () => undefined });
  return Object.assign(stream, {
    leave: () => {
      stream.destroy();
      return { bytes: Buffer.alloc(0), ended: false };
    },
  });
}

/** The Task service over a pod with one running container and one exec in it, with FIFOs of their own. */
class Rig implements AsyncDisposable {
  readonly directory: string;
  readonly host = new FakePodHost();
  readonly processes = new Map<string, FakeProcess>();
  /** What the relay holds, and what was there on disk of the pod when it was first asked to. */
  readonly held = new Map<string, readonly HeldFifo[]>();
  readonly onRecord = new Map<string, string>();
  readonly topics: string[] = [];
  readonly #readers: number[] = [];
  #pods: Pods | undefined;
  #tasks: TaskService | undefined;

  private constructor(directory: string) {
    this.directory = directory;
    this.host.guest = {
      find: (id: string, execId = '') => this.processes.get(`${id}/${execId}`) as unknown as GuestProcess,
      discard: () => Promise.resolve(),
    } as unknown as GuestContainers;
  }

  static async make(): Promise<Rig> {
    const rig = new Rig(await mkdtemp(join(tmpdir(), 'qshim-leaks-')));
    const names = ['c', 'e'].flatMap((owner) => STREAMS.map((stream) => `${owner}.${stream}`));
    await execa('mkfifo', names, { cwd: rig.directory });
    await rig.#open();
    const pod = await rig.pods.create(
      { namespace: 'default', id: 'p' },
      { implicit: false, annotations: {}, labels: {} },
    );
    await rig.pods.start(pod, caller);
    pod.record.containers.push({
      ...{ ...rig.#process('c'), bundle: rig.directory, volumes: [], ready: true, execs: [rig.#process('e')] },
    });
    await pod.commit();
    return rig;
  }

  #process(name: string): ContainerRecord['execs'][number] {
    this.processes.set(name === 'c' ? 'c/' : `c/${name}`, new FakeProcess());
    const [stdin, stdout, stderr] = STREAMS.map((stream) => join(this.directory, `${name}.${stream}`));
    assert.ok(stdin !== undefined && stdout !== undefined && stderr !== undefined);
    return { id: name, stdin, stdout, stderr, terminal: false, stdinClosed: false, started: true, ready: true };
  }

  get pods(): Pods {
    assert.ok(this.#pods);
    return this.#pods;
  }

  get tasks(): TaskService {
    assert.ok(this.#tasks);
    return this.#tasks;
  }

  get pod(): Pod {
    return this.pods.get({ namespace: 'default', id: 'p' });
  }

  get container(): ContainerRecord {
    const [container] = this.pod.record.containers;
    assert.ok(container);
    return container;
  }

  async #open(): Promise<void> {
    const pods = await Pods.open({ manager: this.host, stateDir: this.directory, rules: RULES, log: silentLogger() });
    this.#pods = pods;
    this.#tasks = new TaskService({
      ...{ pods, directVolumes: this.directory, kata: { follow: () => Promise.resolve() }, guestGraceMs: 500 },
      events: {
        publish: ({ topic }) => {
          this.topics.push(topic);
          return Promise.resolve();
        },
      },
      relay: {
        hold: async (key, fifos) => {
          this.held.set(key, fifos);
          if (!this.onRecord.has(key)) this.onRecord.set(key, await this.record());
        },
        release: (key) => {
          this.held.delete(key);
          return Promise.resolve();
        },
      },
    });
  }

  /** As when another daemon comes. */
  async restart(): Promise<void> {
    await this.#tasks?.release();
    await this.#pods?.leave();
    await this.#open();
    await this.tasks.restore();
  }

  record(): Promise<string> {
    return readFile(join(this.directory, CONTAINERD_DIRECTORY, 'pods/default.p.json'), 'utf8');
  }

  /** containerd's end of the outputs. */
  readOutputs(): void {
    for (const name of ['c.stdout', 'c.stderr', 'e.stdout', 'e.stderr']) {
      this.#readers.push(openSync(join(this.directory, name), constants.O_RDONLY | constants.O_NONBLOCK));
    }
  }

  closeReaders(): void {
    for (const fd of this.#readers.splice(0)) closeSync(fd);
  }

  /** FIFOs of this process's open descriptors, by name; containerd's own ends as well. */
  openFifos(): string[] {
    return readdirSync('/proc/self/fd')
      .flatMap((fd) => {
        try {
          return [readlinkSync(`/proc/self/fd/${fd}`)];
        } catch {
          return []; // The one that reads the directory.
        }
      })
      .filter((target) => target.startsWith(`${this.directory}/`))
      .map((target) => target.slice(this.directory.length + 1))
      .sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.closeReaders();
    await this.#tasks?.release();
    await this.#pods?.leave();
    await rm(this.directory, { recursive: true });
  }
}

describe('descriptors, and what the relay holds', { timeout: 60_000 }, () => {
  it('of a pod that is shut down with containers left: all are closed, and their ends are told', async () => {
    await using rig = await Rig.make();
    await rig.restart();
    assert.deepEqual([...rig.held.keys()], ['default.p/c/', 'default.p/c/e']);
    assert.deepEqual(rig.openFifos().filter((name) => name === 'c.stdin').length, 2, 'a reader and a writer');
    rig.readOutputs();
    const waiting = rig.tasks.wait(CONTAINER, caller);
    await rig.pods.destroy(rig.pod);
    for (const process of rig.processes.values()) process.end();
    rig.closeReaders();
    assert.equal((await waiting).exitStatus, 0);
    await until('nothing is open', () => Promise.resolve(rig.openFifos().length === 0));
    await until('nothing is held', () => Promise.resolve(rig.held.size === 0));
    assert.deepEqual(rig.topics, ['/tasks/exit', '/tasks/exit']);
  });

  it('of a container that is deleted with a finished exec in it', async () => {
    await using rig = await Rig.make();
    await rig.restart();
    const { processes, tasks } = rig;
    for (const process of processes.values()) process.end();
    await tasks.wait(CONTAINER, caller);
    await tasks.wait({ id: 'c', execId: 'e' }, caller);
    await tasks.delete(CONTAINER, caller);
    await until('nothing is open', () => Promise.resolve(rig.openFifos().length === 0));
    assert.deepEqual([...rig.held.keys()], []);
    assert.deepEqual(rig.pod.record.containers, []);
  });

  it('of processes that part when the daemon ends: nothing stays for a daemon that knows nothing of them', async () => {
    await using rig = await Rig.make();
    await rig.restart();
    rig.readOutputs();
    await rig.pods.destroy(rig.pod);
    rig.closeReaders();
    await rig.tasks.release();
    assert.deepEqual(rig.openFifos(), []);
    assert.deepEqual([...rig.held.keys()], []);
  });

  it("of a pod whose VM ends after the daemon has left: the record is the next one's, and stays as it was", async () => {
    await using rig = await Rig.make();
    await rig.restart();
    const before = await rig.record();
    const { pod } = rig;
    await rig.tasks.release();
    await rig.pods.leave();
    await rm(join(rig.directory, CONTAINERD_DIRECTORY), { recursive: true });
    await rig.host.stop('default.p');
    await pod.ended;
    await pod.commit();
    await assert.rejects(rig.record(), { code: 'ENOENT' });
    assert.match(before, /"begun":true/);
  });

  it('of a Create: on record before the relay holds them, and let go by the next daemon when it was never made', async () => {
    await using rig = await Rig.make();
    await rig.restart();
    const key = 'default.p/c2/';
    await writeFile(join(rig.directory, 'sandbox'), 'p');
    await writeFile(join(rig.directory, 'config.json'), JSON.stringify(ociConfig(['true'])));
    const streams = { stdin: '', stdout: join(rig.directory, 'c.stdout'), stderr: '', terminal: false };
    const request = { id: 'c2', bundle: rig.directory, rootfs: [], ...streams };
    await assert.rejects(rig.tasks.create(request as unknown as Parameters<TaskService['create']>[0], caller));
    assert.match(rig.onRecord.get(key) ?? '', /"c2"/);
    assert.equal(rig.held.has(key), false);
    // A daemon that was killed in the middle of it.
    rig.pod.record.containers.push({ ...rig.container, ...streams, id: 'c2', ready: false, execs: [] });
    await rig.pod.commit();
    rig.held.set(key, []);
    await rig.restart();
    assert.equal(rig.held.has(key), false);
    assert.equal(rig.pod.record.containers.length, 1);
  });
});
