import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { Named } from '../../src/containerd/ids.ts';
import type { Pod } from '../../src/containerd/pod.ts';
import { CONTAINERD_DIRECTORY, Pods } from '../../src/containerd/pods.ts';
import type { RequestedSpec } from '../../src/volume/spec.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { FakePodHost, RULES } from '../support/containerd/fake-pod-host.ts';
import { until } from '../support/until.ts';

/** Pods over sandboxes without VMs. */
class Rig implements AsyncDisposable {
  readonly host = new FakePodHost();
  readonly directory: string;
  pods: Pods;

  private constructor(directory: string, host: FakePodHost, pods: Pods) {
    this.directory = directory;
    this.host = host;
    this.pods = pods;
  }

  static async make(): Promise<Rig> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-pods-'));
    const host = new FakePodHost();
    return new Rig(directory, host, await open(directory, host));
  }

  /** As when another daemon comes. */
  async restart(): Promise<void> {
    this.pods = await open(this.directory, this.host);
  }

  create(name: Partial<Named> = {}, implicit = false): Promise<Pod> {
    return this.pods.create({ namespace: 'default', id: 'web', ...name }, { implicit, annotations: {}, labels: {} });
  }

  records(): Promise<string[]> {
    return readdir(join(this.directory, CONTAINERD_DIRECTORY, 'pods'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true });
  }
}

async function open(stateDir: string, manager: FakePodHost): Promise<Pods> {
  manager.guest ??= {} as NonNullable<FakePodHost['guest']>;
  return await Pods.open({ manager, stateDir, rules: RULES, log: silentLogger() });
}

/** A daemon has begun to start a pod and ends: its caller is cut off, and the VM goes on. */
async function bootBegunByEndedDaemon(rig: Rig): Promise<void> {
  const leaving = new AbortController();
  const booting = Promise.withResolvers<void>();
  rig.host.boot = () => booting.promise;
  const giveUp = new AbortController();
  const starting = rig.pods.start(await rig.create(), { signal: giveUp.signal, leaving: leaving.signal });
  await until('the boot has begun', () => Promise.resolve(rig.host.calls.length > 0));
  leaving.abort();
  giveUp.abort(new Error('forced'));
  await assert.rejects(starting, /forced/);
  booting.resolve();
}

function caller(): { readonly signal: AbortSignal; readonly leaving: AbortSignal } {
  return { signal: new AbortController().signal, leaving: new AbortController().signal };
}

describe('whose a sandbox is', () => {
  it('a pod whose id an administrator’s sandbox has is refused, and that sandbox lives on', async () => {
    await using rig = await Rig.make();
    rig.host.foreign('default.web');
    await assert.rejects(rig.create(), shimFailure('ALREADY_EXISTS', 'SANDBOX_EXISTS'));
    assert.deepEqual([...rig.host.sandboxes.keys()], ['default.web']);
    assert.deepEqual(await rig.records(), []);
  });

  it('so is one whose id was taken between Create and Start; Shutdown leaves it alone as well', async () => {
    await using rig = await Rig.make();
    const pod = await rig.create();
    const other = await rig.create({ id: 'other' });
    rig.host.foreign('default.web');
    rig.host.foreign('default.other');
    await assert.rejects(rig.pods.start(pod, caller()), shimFailure('ALREADY_EXISTS', 'SANDBOX_EXISTS'));
    await other.stop(1);
    await rig.pods.destroy(other);
    assert.deepEqual(rig.host.calls, []);
    assert.deepEqual(await rig.records(), []);
  });

  it('names that could mean the same pod are different pods', async () => {
    await using rig = await Rig.make();
    const names = [
      { namespace: 'a', id: 'b.c' },
      { namespace: 'a.b', id: 'c' },
      { namespace: 'k8s.io', id: 'default.x' },
      { namespace: 'default', id: 'x' },
    ];
    const pods = await Promise.all(names.map((name) => rig.create(name)));
    assert.equal(new Set(pods.map(({ sandboxId }) => sandboxId)).size, names.length);
    for (const [index, name] of names.entries()) assert.equal(rig.pods.get(name), pods[index]);
    // One that is made on purpose, with the hash of another in its id.
    const [, id = ''] = (pods[2]?.sandboxId ?? '').split('.');
    await assert.rejects(rig.create({ namespace: 'default', id }), shimFailure('ALREADY_EXISTS', 'SANDBOX_EXISTS'));
  });

  it('a container of its own (ctr run) does not move into a CRI pod of the same name', async () => {
    await using rig = await Rig.make();
    await rig.create();
    await assert.rejects(rig.create({}, true), shimFailure('ALREADY_EXISTS', 'SANDBOX_EXISTS'));
  });
});

describe('Start of a pod', { timeout: 60_000 }, () => {
  it('a repeat joins the VM whatever the configuration says by now, and a cancelled one ends nothing', async () => {
    await using rig = await Rig.make();
    await rig.pods.start(await rig.create(), caller());
    await rig.restart();
    const pod = rig.pods.get({ namespace: 'default', id: 'web' });
    // The fake, as the manager with another memory_mib, refuses a second create.
    assert.equal((await rig.pods.start(pod, caller())).state, 'running');
    const gone = { ...caller(), signal: AbortSignal.abort(new Error('gone')) };
    await assert.rejects(rig.pods.start(pod, gone), /gone/);
    assert.deepEqual(rig.host.calls, ['create default.web']);
    assert.equal(rig.pods.all().length, 1);
  });

  it('the boot that fails, and the only caller who goes, leave nothing', async () => {
    await using rig = await Rig.make();
    rig.host.boot = () => Promise.reject(new Error('no boot'));
    await assert.rejects(rig.pods.start(await rig.create(), caller()), /no boot/);
    const booting = Promise.withResolvers<void>();
    rig.host.boot = () => booting.promise;
    const giveUp = new AbortController();
    const starting = rig.pods.start(await rig.create(), { ...caller(), signal: giveUp.signal });
    giveUp.abort(new Error('gone'));
    booting.resolve();
    await assert.rejects(starting, /gone/);
    assert.deepEqual([rig.host.sandboxes.size, rig.pods.all().length, await rig.records()], [0, 0, []]);
  });

  it('a VM that has ended meanwhile is not a started pod: the repeat is refused, and nothing is left', async () => {
    await using rig = await Rig.make();
    await bootBegunByEndedDaemon(rig);
    await rig.host.booted('default.web');
    await rig.host.stop('default.web');
    await rig.restart();
    const pod = rig.pods.get({ namespace: 'default', id: 'web' });
    await assert.rejects(rig.pods.start(pod, caller()), shimFailure('FAILED_PRECONDITION', 'SANDBOX_NOT_RUNNING'));
    assert.deepEqual([rig.host.sandboxes.size, rig.pods.all().length, await rig.records()], [0, 0, []]);
  });

  it('a pod that was started and has ended since stays, and a repeat does not say that it runs', async () => {
    await using rig = await Rig.make();
    const pod = await rig.create();
    await rig.pods.start(pod, caller());
    await pod.stop(1);
    await assert.rejects(rig.pods.start(pod, caller()), shimFailure('FAILED_PRECONDITION', 'SANDBOX_NOT_RUNNING'));
    assert.deepEqual([rig.host.sandboxes.size, rig.pods.all().length], [1, 1]);
  });

  it('the end of the daemon takes no pod away: the repeat finds it', async () => {
    await using rig = await Rig.make();
    await bootBegunByEndedDaemon(rig);
    await rig.restart();
    const pod = rig.pods.get({ namespace: 'default', id: 'web' });
    assert.equal((await rig.pods.start(pod, caller())).state, 'running');
  });
});

describe('pods that nobody asks for again after a crash', () => {
  it('are taken away after a while: one that was not started, and one without the container that it was for', async () => {
    await using rig = await Rig.make();
    await rig.create({ id: 'created' });
    await rig.pods.start(await rig.create({ id: 'run' }, true), caller());
    await rig.pods.start(await rig.create({ id: 'cri' }), caller());
    await rig.pods.start(await rig.create({ id: 'repeated' }, true), caller());
    await rig.restart();
    const clearing = rig.pods.clearAbandoned(50, new AbortController().signal);
    const repeated = rig.pods.get({ namespace: 'default', id: 'repeated' });
    repeated.record.containers.push({
      ...{ id: 'c', bundle: '', stdin: '', stdout: '', stderr: '', terminal: false, stdinClosed: false },
      ...{ started: false, volumes: [], ready: true, execs: [] },
    });
    await clearing;
    assert.deepEqual([...rig.host.sandboxes.keys()].sort(), ['default.cri', 'default.repeated']);
    assert.deepEqual((await rig.records()).sort(), ['default.cri.json', 'default.repeated.json']);
  });

  it('a daemon that ends meanwhile leaves them to the next', async () => {
    await using rig = await Rig.make();
    await rig.create();
    await rig.restart();
    await assert.rejects(rig.pods.clearAbandoned(50, AbortSignal.abort(new Error('ends'))), /ends/);
    assert.equal(rig.pods.all().length, 1);
  });
});

describe('volumes that Controller.Update names', () => {
  const wanted = (...ids: string[]): Map<string, RequestedSpec> => new Map(ids.map((id) => [id, {} as RequestedSpec]));
  const never = new AbortController().signal;

  it('a refused change of one that is attached does not forget it', async () => {
    await using rig = await Rig.make();
    const pod = await rig.create();
    await pod.updateVolumes(wanted('v'), never);
    const refusal = new ShimError('ALREADY_EXISTS', 'another spec', { reason: 'VOLUME_EXISTS' });
    rig.host.onAttach = () => Promise.reject(refusal);
    await assert.rejects(pod.updateVolumes(wanted('v'), never), /another spec/);
    assert.deepEqual(pod.record.updateVolumes, ['v']);
    rig.host.onAttach = () => Promise.reject(new ShimError('INVALID_ARGUMENT', 'no spec', { reason: 'INVALID_FIELD' }));
    await assert.rejects(pod.updateVolumes(wanted('v'), never), /no spec/);
    assert.deepEqual(pod.record.updateVolumes, ['v']);
    await pod.updateVolumes(wanted(), never);
    assert.equal(rig.host.calls.at(-1), 'detach v');
  });

  it('one whose caller goes while it is being attached stays on the list; one that was never attached does not', async () => {
    await using rig = await Rig.make();
    const pod = await rig.create();
    rig.host.onAttach = (volumeId) => {
      if (volumeId === 'begun') rig.host.attached.add(volumeId);
      return Promise.reject(new ShimError('CANCELLED', 'gone', { reason: 'CANCELLED' }));
    };
    await assert.rejects(pod.updateVolumes(wanted('begun', 'not-begun'), never), /gone/);
    assert.deepEqual(pod.record.updateVolumes, ['begun']);
    await pod.updateVolumes(wanted(), never);
    assert.deepEqual(
      rig.host.calls.filter((call) => call.startsWith('detach')),
      ['detach begun'],
    );
  });
});
