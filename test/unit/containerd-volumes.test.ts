import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { ContainerRecord } from '../../src/containerd/pod-record.ts';
import type { Pod } from '../../src/containerd/pod.ts';
import { Pods } from '../../src/containerd/pods.ts';
import { createInGuest } from '../../src/containerd/task-create.ts';
import type { RequestedSpec } from '../../src/volume/spec.ts';
import { parseConfig } from '../../src/guest/containers/oci.ts';
import type { ContainerSpec, GuestContainers, GuestProcess } from '../../src/guest/containers/types.ts';
import type { VolumeSnapshot } from '../../src/volume/volume.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { ociConfig } from '../support/container-rig.ts';
import { FakePodHost, RULES } from '../support/containerd/fake-pod-host.ts';

/** As the manager: the same id with another spec is refused. */
class Host extends FakePodHost {
  readonly specs = new Map<string, RequestedSpec>();

  override async attach(
    sandboxId: string,
    volumeId: string,
    spec: RequestedSpec,
    options: { readonly callerWait?: AbortSignal },
  ): Promise<VolumeSnapshot> {
    const there = this.specs.get(volumeId);
    if (there !== undefined && there.readOnly !== spec.readOnly) {
      throw new ShimError('ALREADY_EXISTS', 'with another spec', { reason: 'VOLUME_EXISTS' });
    }
    this.specs.set(volumeId, spec);
    return await super.attach(sandboxId, volumeId, spec, options);
  }

  override volume(sandboxId: string, volumeId: string): VolumeSnapshot {
    const { readOnly } = this.specs.get(volumeId) ?? {};
    return { ...super.volume(sandboxId, volumeId), spec: { readOnly } } as unknown as VolumeSnapshot;
  }

  override async detach(sandboxId: string, volumeId: string): Promise<VolumeSnapshot> {
    this.specs.delete(volumeId);
    return await super.detach(sandboxId, volumeId);
  }

  /** Of the volume that is no root file system. */
  get shared(): readonly (boolean | undefined)[] {
    return [...this.specs].filter(([id]) => id.startsWith('volume-')).map(([, { readOnly }]) => readOnly);
  }
}

class Rig implements AsyncDisposable {
  readonly directory: string;
  readonly host: Host;
  readonly pod: Pod;

  private constructor(directory: string, host: Host, pod: Pod) {
    this.directory = directory;
    this.host = host;
    this.pod = pod;
  }

  static async make(): Promise<Rig> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-volumes-'));
    const host = new Host();
    host.guest = {} as unknown as GuestContainers;
    const pods = await Pods.open({ manager: host, stateDir: directory, rules: RULES, log: silentLogger() });
    const pod = await pods.create({ namespace: 'default', id: 'p' }, { implicit: false, annotations: {}, labels: {} });
    const never = new AbortController().signal;
    await pods.start(pod, { signal: never, leaving: never });
    await writeFile(join(directory, 'disk'), '');
    return new Rig(directory, host, pod);
  }

  /** A container with the volume at these places, each `ro` or `rw`. @returns what the guest is asked to make */
  async create(id: string, ...modes: readonly string[]): Promise<ContainerSpec> {
    const source = join(this.directory, 'disk');
    const container: ContainerRecord = {
      ...{ id, bundle: this.directory, stdin: '', stdout: '', stderr: '', terminal: false, stdinClosed: false },
      ...{ started: false, volumes: [], ready: false, execs: [] },
    };
    const mounts = modes.map((mode, index) => ({
      destination: `/data${index}`,
      type: 'ext4',
      source,
      options: [mode],
    }));
    let made: ContainerSpec | undefined;
    this.host.guest = {
      create: (spec: ContainerSpec) => {
        made = spec;
        return Promise.resolve({} as unknown as GuestProcess);
      },
    } as unknown as GuestContainers;
    await createInGuest({
      pod: this.pod,
      container,
      config: parseConfig(ociConfig(['true'], { mounts })),
      rootfs: [{ type: 'ext4', source, target: '', options: [] }],
      directVolumes: this.directory,
    });
    assert.ok(made);
    return made;
  }

  async release(id: string): Promise<void> {
    for (const volumeId of this.host.specs.keys()) await this.pod.release(id, volumeId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pod.commitSoon();
    await rm(this.directory, { recursive: true });
  }
}

describe('a volume that some containers of a pod write to and others only read', () => {
  it('is one disk: who only reads joins who writes, and keeps it when the writer has gone', async () => {
    await using rig = await Rig.make();
    const writer = await rig.create('writer', 'rw');
    const reader = await rig.create('reader', 'ro');
    assert.deepEqual(rig.host.shared, [false]);
    assert.equal(reader.volumes.get('/data0'), writer.volumes.get('/data0'));
    await rig.release('writer');
    assert.deepEqual(rig.host.shared, [false]);
    await rig.release('reader');
    assert.deepEqual(rig.host.shared, []);
  });

  it('a reader that comes first has it read-only; a writer is refused in words, and holds nothing', async () => {
    await using rig = await Rig.make();
    await rig.create('reader', 'ro');
    await rig.create('second', 'ro');
    assert.deepEqual(rig.host.shared, [true]);
    await assert.rejects(rig.create('writer', 'rw'), (error: Error) => {
      shimFailure('ALREADY_EXISTS', 'VOLUME_READ_ONLY')(error);
      assert.match(error.message, /volume-\w+ of \/\S+\/disk is attached read-only/);
      return true;
    });
    for (const id of ['reader', 'second']) await rig.release(id);
    assert.deepEqual(rig.host.shared, []);
    await rig.release('writer');
    await rig.create('writer', 'rw');
    assert.deepEqual(rig.host.shared, [false]);
  });

  it('two mounts of it in one container are one disk, writable when one of them is', async () => {
    for (const modes of [
      ['ro', 'rw'],
      ['rw', 'ro'],
    ] as const) {
      await using rig = await Rig.make();
      const { volumes } = await rig.create('both', ...modes);
      assert.deepEqual(rig.host.shared, [false]);
      assert.equal(volumes.get('/data0'), volumes.get('/data1'));
    }
  });
});

it('a mount option that no guest would take is refused before the first disk is attached', async () => {
  await using rig = await Rig.make();
  await assert.rejects(rig.create('c', 'rw', 'data=a;b'), shimFailure('INVALID_ARGUMENT', 'INVALID_MOUNT_OPTION'));
  assert.deepEqual([...rig.host.specs.keys()], []);
  assert.ok(!rig.host.calls.some((made) => made.startsWith('attach')), rig.host.calls.join());
});
