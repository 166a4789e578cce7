import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { FakeQemuModel, type FakeQemuModelOptions } from '../support/fake-qemu-model.ts';
import { FakeQmp } from '../support/fake-qmp.ts';

interface Rig extends AsyncDisposable {
  readonly fake: FakeQmp;
  readonly model: FakeQemuModel;
  readonly qmp: QmpClient;
}

async function rig(options: FakeQemuModelOptions = {}): Promise<Rig> {
  await using stack = new AsyncDisposableStack();
  const fake = stack.use(await FakeQmp.listen());
  const model = new FakeQemuModel(fake, options);
  const qmp = stack.use(await QmpClient.connect({ path: fake.path, log: silentLogger() }));
  const owned = stack.move();
  return { fake, model, qmp, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const node = (name: string, filename = `/disks/${name}`) =>
  ({
    driver: 'raw',
    'node-name': name,
    file: { driver: 'file', 'node-name': `${name}-file`, filename },
  }) as const;
const disk = (id: string, drive: string, addr: string) =>
  ({ driver: 'virtio-blk-pci', id, drive, bus: 'br0', addr }) as const;
const generic = { errorClass: 'GenericError' };

/** Each behaviour here was seen on QEMU 7.2; the contract test asks the real one the same questions. */
describe('fake QEMU model', () => {
  it('a disk comes and goes: refusals on the way, two events, then nothing is left', async () => {
    await using it = await rig({ unplug: 'manual' });
    const { qmp, model } = it;
    await qmp.run('blockdev-add', node('n1'));
    await assert.rejects(qmp.run('blockdev-add', node('n1')), generic);
    await qmp.run('device_add', disk('v1', 'n1', '0x1f'));
    await assert.rejects(qmp.run('device_add', disk('v1', 'n1', '2')), generic);
    await assert.rejects(qmp.run('device_add', disk('v2', 'nope', '2')), generic);
    await assert.rejects(qmp.run('blockdev-del', { 'node-name': 'n1' }), generic);
    await assert.rejects(qmp.run('blockdev-del', { 'node-name': 'n1-file' }), generic);
    await assert.rejects(qmp.run('device_del', { id: 'nope' }), { errorClass: 'DeviceNotFound' });
    assert.equal(await qmp.run('qom-get', { path: '/machine/peripheral/v1', property: 'addr' }), 0x1f * 8);

    using gone = qmp.listen('DEVICE_DELETED');
    await qmp.run('device_del', { id: 'v1' });
    await qmp.run('device_del', { id: 'v1' });
    assert.ok(model.devices.has('v1'), 'a reply is not an outcome');
    model.unplug = 'at once';
    await qmp.run('device_del', { id: 'v1' });
    assert.deepEqual((await gone.next()).data, { path: '/machine/peripheral/v1/virtio-backend' });
    assert.deepEqual((await gone.next()).data, { device: 'v1', path: '/machine/peripheral/v1' });

    await qmp.run('blockdev-del', { 'node-name': 'n1' });
    assert.deepEqual(await qmp.run('query-named-block-nodes', { flat: true }), []);
    const left = await qmp.run('qom-list', { path: '/machine/peripheral' });
    assert.deepEqual(
      left.map((entry) => entry.name),
      ['type'],
    );
  });

  it('a slot and a writable image have one user; two readers share', async () => {
    await using it = await rig({ bridges: ['br0'] });
    const { qmp } = it;
    await qmp.run('blockdev-add', node('n1', '/disks/same'));
    await qmp.run('blockdev-add', node('n2', '/disks/same'));
    await qmp.run('blockdev-add', node('n3', '/disks/other'));
    await qmp.run('device_add', disk('v1', 'n1', '0x1'));
    await assert.rejects(qmp.run('device_add', disk('v2', 'n2', '0x2')), generic);
    await assert.rejects(qmp.run('device_add', disk('v3', 'n3', '1.0')), generic);
    await assert.rejects(qmp.run('device_add', { ...disk('v3', 'n3', '0x2'), bus: 'br9' }), generic);
    await qmp.run('device_add', disk('v3', 'n3', '0x2'));
    await qmp.run('blockdev-add', { ...node('r1', '/disks/shared'), 'read-only': true });
    await qmp.run('blockdev-add', { ...node('r2', '/disks/shared'), 'read-only': true });
    await qmp.run('device_add', disk('w1', 'r1', '0x3'));
    await qmp.run('device_add', disk('w2', 'r2', '0x4'));
    const [bus] = await qmp.run('query-pci');
    assert.equal(bus?.devices[0]?.qdev_id, 'br0');
    assert.equal(bus.devices[0].pci_bridge?.devices?.length, 4);
  });

  it('the driver comes up when the test says so; a reset ends an unplug', async () => {
    await using it = await rig({ driver: 'manual', unplug: 'manual' });
    const { qmp, model } = it;
    const path = '/machine/peripheral/v1/virtio-backend';
    await qmp.run('blockdev-add', node('n1'));
    await qmp.run('device_add', disk('v1', 'n1', '0x1'));
    assert.deepEqual((await qmp.run('x-query-virtio-status', { path })).status.statuses, []);
    model.firmwareLive('v1');
    const booting = await qmp.run('x-query-virtio-status', { path });
    assert.doesNotMatch(String(booting['guest-features'].transports), /EVENT_IDX/);
    model.driverLive('v1');
    assert.match(String((await qmp.run('x-query-virtio-status', { path })).status.statuses[0]), /_DRIVER_OK:/);
    assert.equal((await qmp.run('query-blockstats'))[0]?.qdev, path);
    using gone = qmp.listen('DEVICE_DELETED', (event) => event.data.device === 'v1');
    await qmp.run('system_reset');
    assert.ok(model.devices.has('v1'), 'a reset removes nothing that was not asked to go');
    await qmp.run('device_del', { id: 'v1' });
    await qmp.run('system_reset');
    await gone.next();
    await assert.rejects(qmp.run('x-query-virtio-status', { path }), generic);
  });

  it('state outlives the connection, events in between are lost, a handler of the test wins', async () => {
    await using it = await rig({ unplug: 'manual' });
    await it.qmp.run('blockdev-add', node('n1'));
    await it.qmp.run('device_add', disk('v1', 'n1', '0x1'));
    it.fake.drop();
    await it.qmp.closed;
    it.model.completeUnplug('v1');
    await using again = await QmpClient.connect({ path: it.fake.path, log: silentLogger() });
    using gone = again.listen('DEVICE_DELETED');
    assert.equal((await again.run('query-named-block-nodes')).length, 2);
    await assert.rejects(gone.next({ timeoutMs: 10 }), { reason: 'QMP_EVENT_TIMEOUT' });
    it.fake.on('query-status', () => ({ status: 'io-error', running: false }));
    assert.equal((await again.run('query-status')).status, 'io-error');
  });

  it('secrets are needed and objects in use stay', async () => {
    await using it = await rig();
    const { qmp } = it;
    const luks = { driver: 'luks', 'node-name': 'l1', file: 'f1', 'key-secret': 's1' } as const;
    await qmp.run('blockdev-add', { driver: 'file', 'node-name': 'f1', filename: '/disks/l' });
    await assert.rejects(qmp.run('blockdev-add', luks), generic);
    await qmp.run('object-add', { 'qom-type': 'secret', id: 's1', data: 'x' });
    await assert.rejects(qmp.run('object-add', { 'qom-type': 'secret', id: 's1', data: 'x' }), generic);
    await qmp.run('blockdev-add', luks);
    await qmp.run('object-del', { id: 's1' });
    await assert.rejects(qmp.run('object-del', { id: 's1' }), generic);
    await assert.rejects(qmp.run('blockdev-del', { 'node-name': 'f1' }), generic);
    await qmp.run('object-add', { 'qom-type': 'throttle-group', id: 't1' });
    const filter = { driver: 'throttle', 'node-name': 'x1', file: 'l1', 'throttle-group': 't1' } as const;
    await qmp.run('blockdev-add', filter);
    await assert.rejects(qmp.run('object-del', { id: 't1' }), generic);
    await qmp.run('blockdev-del', { 'node-name': 'x1' });
    await qmp.run('object-del', { id: 't1' });
  });
});
