import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { silentLogger } from '../../src/base/log.ts';
import { ANNOTATIONS, ANNOTATION_PREFIX, specOfPod } from '../../src/containerd/annotations.ts';
import { configWith } from '../../src/config.ts';
import { EventForwarder, type ForwardedEvent } from '../../src/containerd/forwarder.ts';
import { checkNamed, sandboxIdOf, sharedVolumeId } from '../../src/containerd/ids.ts';
import { rootfsOf, withDirectVolumes } from '../../src/containerd/sources.ts';
import { VolumeUse } from '../../src/containerd/volume-use.ts';
import { checkId } from '../../src/base/ids.ts';
import { parseConfig } from '../../src/guest/containers/oci.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { ociConfig } from '../support/container-rig.ts';
import { until } from '../support/until.ts';

describe("containerd's names", () => {
  it('a CRI pod keeps its id; elsewhere the namespace is part of it; always an id of ours', () => {
    assert.equal(sandboxIdOf({ namespace: 'k8s.io', id: 'abc' }), 'abc');
    assert.equal(sandboxIdOf({ namespace: 'default', id: 'abc' }), 'default.abc');
    const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,75}$/);
    fc.assert(
      fc.property(name, name, (namespace, id) => {
        checkId('sandbox_id', sandboxIdOf(checkNamed({ namespace, id })));
        assert.notEqual(sandboxIdOf({ namespace, id }), sandboxIdOf({ namespace, id: `${id}x` }));
      }),
    );
    for (const id of ['', '../x', 'a/b', 'a b'])
      assert.throws(() => checkNamed({ namespace: 'n', id }), /INVALID_ID|identifier/);
  });

  it('one source with one way of mounting is one volume', () => {
    assert.equal(sharedVolumeId('/a', 'x'), sharedVolumeId('/a', 'x'));
    assert.notEqual(sharedVolumeId('/a', 'x'), sharedVolumeId('/a', 'y'));
    assert.notEqual(sharedVolumeId('/a', 'x'), sharedVolumeId('/ax', ''));
  });
});

describe('pod annotations', () => {
  const all = configWith({ containerd_annotations: ['*'] });

  it('each sets its part of the spec, before what the limits say; others are not ours', () => {
    const annotations = {
      'io.qshim.vcpus': '3',
      'io.qshim.memory-mib': '640',
      'io.qshim.accelerator': 'tcg',
      other: 'x',
    };
    const size = { vcpus: 1, memoryMib: 300 };
    const spec = specOfPod({ annotations, labels: { a: 'b' }, size }, all);
    assert.deepEqual(
      { vcpus: spec.vcpus, memoryMib: spec.memoryMib, accelerator: spec.accelerator, labels: spec.labels },
      { vcpus: 3, memoryMib: 640, accelerator: 'tcg', labels: { a: 'b' } },
    );
  });

  it('a misspelt one, and a wrong value, are refused by name', () => {
    for (const annotations of [
      { 'io.qshim.cpus': '1' },
      { 'io.qshim.vcpus': '1.5' },
      { 'io.qshim.vcpus': '0x2' },
      { 'io.qshim.accelerator': 'xen' },
      { 'io.qshim.template': 'yes' },
    ]) {
      const name = Object.keys(annotations)[0] ?? '';
      assert.throws(() => specOfPod({ annotations, labels: {} }, all), new RegExp(name));
    }
  });

  it('none is enabled unless the operator lists it, by a pattern of the whole name', () => {
    const rules = configWith({});
    for (const { name } of ANNOTATIONS) {
      const annotations = { [ANNOTATION_PREFIX + name]: '1' };
      const refusal = shimFailure('PERMISSION_DENIED', 'ANNOTATION_NOT_ENABLED');
      assert.throws(() => specOfPod({ annotations, labels: {} }, rules), refusal);
    }
    const some = configWith({ containerd_annotations: ['vcpu*', 'kernel'] });
    const of = (name: string): unknown => specOfPod({ annotations: { [`io.qshim.${name}`]: '2' }, labels: {} }, some);
    of('vcpus');
    of('kernel');
    assert.throws(() => of('kernel-parameters'), /containerd_annotations enables vcpu\*, kernel/);
  });

  it('a pod is as large as its limits, and never too small to boot', () => {
    const sizeOf = (size: object): unknown => {
      const { vcpus, memoryMib } = specOfPod({ annotations: {}, labels: {}, size }, configWith({}));
      return { vcpus, memoryMib };
    };
    assert.deepEqual(sizeOf({ vcpus: 2, memoryMib: 640 }), { vcpus: 2, memoryMib: 640 });
    assert.deepEqual(sizeOf({ memoryMib: 64 }), { vcpus: 0, memoryMib: 192 });
    assert.deepEqual(sizeOf({ vcpus: 1 }), { vcpus: 1, memoryMib: 0 });
  });

  it('docs/containerd.md names every annotation', async () => {
    const text = await readFile(join(import.meta.dirname, '../../docs/containerd.md'), 'utf8');
    for (const { name } of ANNOTATIONS) assert.ok(text.includes(`\`${ANNOTATION_PREFIX}${name}\``), name);
  });
});

describe('root file systems and direct-assigned volumes', () => {
  it("blockfile's mount without loop; anything but one disk is refused", () => {
    const mount = { type: 'ext4', source: '/s/1', options: ['loop', 'rw', 'noatime'] };
    assert.deepEqual(rootfsOf([mount]), { source: '/s/1', fsType: 'ext4', readOnly: false, options: ['noatime'] });
    assert.equal(rootfsOf([{ ...mount, options: ['ro'] }]).readOnly, true);
    for (const mounts of [[], [mount, mount], [{ ...mount, type: 'overlay' }]]) {
      assert.throws(() => rootfsOf(mounts), /blockfile or devmapper/);
    }
  });

  it("Kata's record turns a bind mount into the device; a record that cannot be read is not passed over", async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-direct-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const volumePath = '/var/lib/kubelet/pods/1/volumes/csi~x/mount';
    const place = join(directory, Buffer.from(volumePath).toString('base64').replaceAll('+', '-').replaceAll('/', '_'));
    await mkdir(place);
    const write = (record: unknown): Promise<void> => writeFile(join(place, 'mountInfo.json'), JSON.stringify(record));
    const hosts = { destination: '/etc/hosts', type: 'bind', source: '/etc/hosts', options: ['rbind'] };
    const mounts = [{ destination: '/data', type: 'bind', source: volumePath, options: ['rbind', 'ro'] }, hosts];
    const config = parseConfig({ ...ociConfig(['true']), mounts });
    await write({ 'volume-type': 'block', device: '/dev/x', fstype: 'xfs', metadata: {}, options: ['noatime'] });
    const replaced = await withDirectVolumes(config, directory);
    assert.deepEqual(replaced.config, {
      ...config,
      mounts: [{ destination: '/data', type: 'xfs', source: '/dev/x', options: ['ro', 'noatime'] }, hosts],
    });
    // runtime-rs's spelling of 2023.
    await write({ 'volume-type': 'block', device: '/dev/x', 'fs-type': 'xfs', metadata: {}, options: ['noatime'] });
    assert.deepEqual(await withDirectVolumes(config, directory), replaced);
    await write({ device: '/dev/x', fstype: 'ntfs' });
    await assert.rejects(withDirectVolumes(config, directory), /ntfs/);
    await write({ device: '/dev/x' });
    await assert.rejects(withDirectVolumes(config, directory), /is no usable record: it names no fstype$/);
    await write({ device: 7, fstype: 'xfs' });
    await assert.rejects(withDirectVolumes(config, directory), /is no usable record: device: [^{}\n]*$/);
  });

  it("Kata's fsGroup names the group of a volume that is written to; one that is none is not passed over", async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-direct-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const place = join(directory, Buffer.from('/v').toString('base64'));
    await mkdir(place);
    const groupsOf = async (metadata: object, options: readonly string[]): Promise<unknown> => {
      const record = { 'volume-type': 'block', device: '/dev/x', fstype: 'ext4', metadata, options: [] };
      await writeFile(join(place, 'mountInfo.json'), JSON.stringify(record));
      const mounts = [{ destination: '/data', type: 'bind', source: '/v', options }];
      const { groups } = await withDirectVolumes(parseConfig({ ...ociConfig(['true']), mounts }), directory);
      return Object.fromEntries(groups);
    };
    const onMismatch = { fsGroup: '0', fsGroupChangePolicy: 'OnRootMismatch' };
    assert.deepEqual(await groupsOf({ fsGroup: '2000' }, ['rw']), { '/data': { gid: 2000, always: true } });
    assert.deepEqual(await groupsOf(onMismatch, ['rw']), { '/data': { gid: 0, always: false } });
    assert.deepEqual(await groupsOf({}, ['rw']), {});
    assert.deepEqual(await groupsOf({ fsGroup: '2000' }, ['ro']), {});
    for (const wrong of [{ fsGroup: 'staff' }, { fsGroup: '4294967295' }, { fsGroup: '1', fsGroupChangePolicy: 'x' }]) {
      await assert.rejects(groupsOf(wrong, ['rw']), /metadata\.fsGroup/);
    }
  });
});

describe('volumes with several users', () => {
  it('attached for the first, detached with the last, and again for one that comes meanwhile', async () => {
    const use = new VolumeUse();
    const calls: string[] = [];
    const attach = (): Promise<number> => Promise.resolve(calls.push('attach'));
    const detaching = Promise.withResolvers<void>();
    const detach = (): Promise<void> => {
      calls.push('detach');
      return detaching.promise.then(() => {
        calls.push('detached');
      });
    };
    await use.acquire('v', 'a', attach);
    await use.acquire('v', 'b', attach);
    await use.release('v', 'a', detach);
    assert.deepEqual(calls, ['attach', 'attach']);
    const leaving = use.release('v', 'b', detach);
    const late = use.acquire('v', 'c', attach);
    detaching.resolve();
    await Promise.all([leaving, late]);
    assert.deepEqual(calls, ['attach', 'attach', 'detach', 'detached', 'attach']);
  });

  it('a failed attach is not counted; a failed detach can be tried again', async () => {
    const use = new VolumeUse();
    await assert.rejects(
      use.acquire('v', 'a', () => Promise.reject(new Error('no'))),
      /no/,
    );
    await use.release('v', 'a', () => Promise.reject(new Error('must not be called')));
    await use.acquire('v', 'a', () => Promise.resolve());
    await assert.rejects(
      use.release('v', 'a', () => Promise.reject(new Error('busy'))),
      /busy/,
    );
    let detached = 0;
    await use.release('v', 'a', () => {
      detached += 1;
      return Promise.resolve();
    });
    assert.equal(detached, 1);
  });
});

describe('events for containerd', () => {
  const event = (topic: string): ForwardedEvent => ({ namespace: 'n', topic, typeUrl: 't', value: '', timeMs: 1 });

  it('in order, through an absence of containerd and of the daemon; refused ones are passed over', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-events-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const sent: string[] = [];
    let away = true;
    const send = ({ topic }: ForwardedEvent): Promise<boolean> => {
      if (away) return Promise.reject(new Error('away'));
      sent.push(topic);
      return Promise.resolve(topic !== 'refused');
    };
    const options = { path: join(directory, 'events.json'), waitingMax: 3, log: silentLogger(), send };
    {
      await using first = await EventForwarder.open(options);
      for (const topic of ['dropped', 'one', 'refused', 'two']) await first.publish(event(topic));
    }
    away = false;
    await using second = await EventForwarder.open(options);
    await second.publish(event('three'));
    await until('four events are sent', () => Promise.resolve(sent.length === 4));
    assert.deepEqual(sent, ['one', 'refused', 'two', 'three']);
  });
});
