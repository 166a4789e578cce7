import assert from 'node:assert/strict';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { checkContract } from '../../src/qmp/contract-check.ts';
import { QMP_CONTRACT } from '../../src/qmp/contract.ts';
import { isQmpError } from '../../src/qmp/errors.ts';
import { bareQemuMissing, startBareQemu } from '../support/bare-qemu.ts';
import { DRIVER_LIVE_STATUSES, FakeQemuModel } from '../support/fake-qemu-model.ts';
import { FakeQmp } from '../support/fake-qmp.ts';
import { checkDeviceProperties } from '../support/device-properties.ts';
import { until } from '../support/until.ts';
import { driverEvidence, probeBinary } from '../support/trial.ts';

const NO_MACHINE = ['-machine', 'none', '-S'];
const BRIDGE = ['-device', 'pci-bridge,id=br0,chassis_nr=1,shpc=off,bus=pcie.0,addr=0x3'];
const Q35 = ['-machine', 'q35', '-accel', 'tcg', '-m', '64', ...BRIDGE];
const EVENT_TIMEOUT_MS = 30_000;
const DISK_BYTES = 8 * 1024 * 1024;
const noStatus = (await driverEvidence()) === 'block-reads' ? 'this QEMU ends at x-query-virtio-status' : false;

describe('QMP contract with the real binary', { skip: bareQemuMissing() }, () => {
  it('every command, argument, result, event and member that qshim uses exists', async () => {
    await using qemu = await startBareQemu(NO_MACHINE);
    const schema = await qemu.qmp.run('query-qmp-schema');
    const { version } = qemu.qmp.greeting;
    assert.deepEqual(checkContract(schema, version), []);

    const seeded = {
      commands: {
        ...QMP_CONTRACT.commands,
        'blockdev-add': { arguments: { file: { flename: true } }, returns: {}, cases: { raw: true, rawr: true } },
        'object-add': { arguments: { limits: { 'iops-totall': true } }, returns: {} },
        'query-pci': { arguments: {}, returns: { devices: { slott: true } } },
        'no-such-command': { arguments: {}, returns: {} },
      },
      events: { ...QMP_CONTRACT.events, DEVICE_DELETED: { devices: true } },
    } as const;
    assert.deepEqual(checkContract(schema, version, seeded).sort(), [
      'DEVICE_DELETED: member devices is not in the schema',
      'blockdev-add: argument file.flename is not in the schema',
      'blockdev-add: argument variant rawr is not in the schema',
      'no-such-command: command is not in the schema',
      'object-add: argument limits.iops-totall is not in the schema',
      'query-pci: result devices.slott is not in the schema',
    ]);
  });

  it('every device property that device_add sends is one of virtio-blk-pci', async () => {
    await using qemu = await startBareQemu(NO_MACHINE);
    const listed = await qemu.qmp.run('device-list-properties', { typename: 'virtio-blk-pci' });
    const names = new Set(listed.map((property) => property.name));
    const { version } = qemu.qmp.greeting;
    assert.deepEqual(checkDeviceProperties(names, version), []);
    names.delete('serial');
    assert.equal(checkDeviceProperties(names, version).length, 1);
  });

  it('the probe finds what its version is known to have', async () => {
    await using qemu = await startBareQemu(NO_MACHINE);
    const found = await probeBinary([]);
    assert.ok(found.commands.has('blockdev-add') && found.events.has('DEVICE_DELETED'));
    for (const driver of ['raw', 'qcow2', 'luks', 'host_device']) assert.ok(found.blockDrivers.has(driver), driver);
    const nine = found.version.major >= 9;
    assert.equal(found.detachedLuksHeader, nine);
    const listed = await qemu.qmp.run('device-list-properties', { typename: 'virtio-blk-pci' });
    assert.equal(
      found.iothreadVqMapping,
      listed.some((property) => property.name === 'iothread-vq-mapping'),
    );
  });

  it('a second client gets no greeting while the first is there', async () => {
    await using qemu = await startBareQemu(NO_MACHINE);
    const options = { path: qemu.qmpPath, log: silentLogger(), handshakeTimeoutMs: 200 };
    await assert.rejects(QmpClient.connect(options), { code: 'UNAVAILABLE', reason: 'QMP_NO_GREETING' });
    await qemu.qmp[Symbol.asyncDispose]();
    await using second = await QmpClient.connect({ path: qemu.qmpPath, log: silentLogger() });
    assert.equal((await second.run('query-version')).qemu.major, second.greeting.version.major);
  });

  it('quit: SHUTDOWN and the reply come, then the connection ends', async () => {
    await using qemu = await startBareQemu(NO_MACHINE);
    using shutdown = qemu.qmp.listen('SHUTDOWN');
    await qemu.qmp.run('quit');
    assert.equal((await shutdown.next({ timeoutMs: EVENT_TIMEOUT_MS })).data.reason, 'host-qmp-quit');
    assert.equal((await qemu.qmp.closed).reason, 'QMP_LOST');
  });

  const status =
    'x-query-virtio-status lists DRIVER_OK once a driver is live, even the firmware, which takes fewer features';
  it(status, { skip: noStatus }, async () => {
    await using qemu = await startBareQemu([...Q35, '-S']);
    const { qmp } = qemu;
    const path = '/machine/peripheral/v1/virtio-backend';
    await addDisk(qmp, await makeDisk(qemu.directory, 'd1'), 'v1', 'br0', '0x5');
    assert.deepEqual((await qmp.run('x-query-virtio-status', { path })).status, { statuses: [] });
    // SeaBIOS looks for something to boot, and for that it drives the disk itself.
    await qmp.run('cont');
    const look = async (): Promise<readonly string[]> =>
      (await qmp.run('x-query-virtio-status', { path })).status.statuses;
    const statuses = await until(
      'the driver is live',
      async () => {
        const found = await look();
        return found.length >= DRIVER_LIVE_STATUSES.length && found;
      },
      EVENT_TIMEOUT_MS,
    );
    assert.deepEqual(new Set(statuses), new Set(DRIVER_LIVE_STATUSES));
    const { transports } = (await qmp.run('x-query-virtio-status', { path }))['guest-features'];
    assert.ok(transports.some((text) => text.startsWith('VIRTIO_F_VERSION_1')));
    assert.ok(!transports.some((text) => /_EVENT_IDX|_INDIRECT_DESC/.test(text)));
  });

  it('the fake QEMU of the component tests answers as the real one does', async () => {
    await using qemu = await startBareQemu(Q35);
    await using fake = await FakeQmp.listen();
    new FakeQemuModel(fake, { bridges: ['br0'], unplug: 'manual', driver: 'manual' });
    await using fakeQmp = await QmpClient.connect({ path: fake.path, log: silentLogger() });
    const disks = await Promise.all(['d1', 'd2'].map((name) => makeDisk(qemu.directory, name)));
    const real = await transcript(qemu.qmp, disks);
    assert.deepEqual(await transcript(fakeQmp, disks), real);
    assert.ok(real.includes('delete v1: ok') && real.includes('delete nope: DeviceNotFound'));
  });
});

async function makeDisk(directory: string, name: string): Promise<string> {
  const path = join(directory, `${name}.img`);
  await writeFile(path, '');
  await truncate(path, DISK_BYTES);
  return path;
}

async function addDisk(qmp: QmpClient, filename: string, id: string, bus: string, addr: string): Promise<void> {
  const nodeName = `${id}-node`;
  await qmp.run('blockdev-add', { driver: 'raw', 'node-name': nodeName, file: { driver: 'file', filename } });
  await qmp.run('device_add', { driver: 'virtio-blk-pci', id, bus, addr, drive: nodeName });
}

/** Asks the same questions of any QEMU, and writes down each answer: ok, the error's class, or what it shows. */
async function transcript(qmp: QmpClient, [one = '', two = '']: readonly string[]): Promise<string[]> {
  const lines: string[] = [];
  const note: Note = async (what, work) => {
    try {
      const shown = await work();
      lines.push(`${what}: ${typeof shown === 'string' ? shown : 'ok'}`);
    } catch (error) {
      if (!isQmpError(error)) throw error;
      lines.push(`${what}: ${error.errorClass}`);
    }
  };
  await add(qmp, note, one, two);
  await look(qmp, note);
  await remove(qmp, note);
  await objects(qmp, note);
  await runState(qmp, note);
  return lines;
}

type Note = (what: string, work: () => Promise<unknown>) => Promise<void>;

async function add(qmp: QmpClient, note: Note, one: string, two: string): Promise<void> {
  const node = (name: string, filename: string) =>
    ({ driver: 'raw', 'node-name': name, file: { driver: 'file', 'node-name': `${name}-file`, filename } }) as const;
  const disk = (id: string, drive: string, addr: string, bus = 'br0') =>
    ({ driver: 'virtio-blk-pci', id, bus, addr, drive }) as const;
  await note('add n1', () => qmp.run('blockdev-add', node('n1', one)));
  await note('add n1 again', () => qmp.run('blockdev-add', node('n1', two)));
  await note('add n1b on the same image', () => qmp.run('blockdev-add', node('n1b', one)));
  await note('add n2', () => qmp.run('blockdev-add', node('n2', two)));
  await note('add a long name', () => qmp.run('blockdev-add', node('n'.repeat(32), two)));
  await note('add v1', () => qmp.run('device_add', disk('v1', 'n1', '0x1f')));
  await note('add v1 again', () => qmp.run('device_add', disk('v1', 'n2', '0x2')));
  await note('add in a used slot', () => qmp.run('device_add', disk('v2', 'n2', '1f')));
  await note('add on no bus', () => qmp.run('device_add', disk('v2', 'n2', '0x2', 'br9')));
  await note('add on no node', () => qmp.run('device_add', disk('v2', 'nope', '0x2')));
  await note('add a second writer of the image', () => qmp.run('device_add', disk('v2', 'n1b', '0x2')));
  await note('add a second user of the node', () => qmp.run('device_add', disk('v2', 'n1', '0x2')));
}

async function look(qmp: QmpClient, note: Note): Promise<void> {
  const get = (device: string, property: string) =>
    qmp.run('qom-get', { path: `/machine/peripheral/${device}`, property });
  await note('addr', async () => String(await get('v1', 'addr')));
  await note('no property', () => get('v1', 'nope'));
  await note('no device', () => get('nope', 'addr'));
  await note('no list', () => qmp.run('qom-list', { path: '/machine/peripheral/nope' }));
  await note('no status', () => qmp.run('x-query-virtio-status', { path: '/machine/peripheral/v1' }));
  await note('peripherals', () => peripherals(qmp));
  await note('nodes', () => nodes(qmp));
  await note('blockstats', async () => {
    const list = await qmp.run('query-blockstats');
    return list.map((entry) => `${entry['node-name'] ?? ''} ${entry.qdev ?? ''}`).join(', ');
  });
}

async function remove(qmp: QmpClient, note: Note): Promise<void> {
  const removeNode = (name: string) => qmp.run('blockdev-del', { 'node-name': name });
  await note('delete n1 in use', () => removeNode('n1'));
  await note('delete a child', () => removeNode('n2-file'));
  await note('delete no node', () => removeNode('nope'));
  for (const id of ['nope', 'v1', 'v1']) await note(`delete ${id}`, () => qmp.run('device_del', { id }));
  await note('still there', () => peripherals(qmp));
  using gone = qmp.listen('DEVICE_DELETED');
  // There is no guest: a reset is what makes QEMU let go.
  await note('reset', () => qmp.run('system_reset'));
  for (let i = 0; i < 2; i += 1) {
    await note('gone', async () => sorted((await gone.next({ timeoutMs: EVENT_TIMEOUT_MS })).data));
  }
  await note('delete n1', () => removeNode('n1'));
  await note('left', () => peripherals(qmp));
  await note('nodes left', () => nodes(qmp));
  const path = '/machine/peripheral/v1/virtio-backend';
  await note('status of a device that has gone', () => qmp.run('x-query-virtio-status', { path }));
}

async function objects(qmp: QmpClient, note: Note): Promise<void> {
  const luks = { driver: 'luks', 'node-name': 'l1', file: 'n2', 'key-secret': 'nope' } as const;
  const filter = { driver: 'throttle', 'node-name': 'x1', file: 'n2', 'throttle-group': 't1' } as const;
  const secret = { 'qom-type': 'secret', id: 's1', data: 'x' } as const;
  await note('luks without secret', () => qmp.run('blockdev-add', luks));
  await note('add secret', () => qmp.run('object-add', secret));
  await note('add secret again', () => qmp.run('object-add', secret));
  await note('add group', () => qmp.run('object-add', { 'qom-type': 'throttle-group', id: 't1' }));
  await note('add filter', () => qmp.run('blockdev-add', filter));
  await note('delete group in use', () => qmp.run('object-del', { id: 't1' }));
  await note('delete a node below a filter', () => qmp.run('blockdev-del', { 'node-name': 'n2' }));
  await note('delete filter', () => qmp.run('blockdev-del', { 'node-name': 'x1' }));
  for (const id of ['t1', 's1', 's1']) await note(`delete ${id}`, () => qmp.run('object-del', { id }));
}

async function runState(qmp: QmpClient, note: Note): Promise<void> {
  using changes = qmp.listen(['STOP', 'RESUME']);
  for (const command of ['stop', 'stop', 'cont', 'cont'] as const) await note(command, () => qmp.run(command));
  for (let i = 0; i < 2; i += 1) {
    await note('change', async () => (await changes.next({ timeoutMs: EVENT_TIMEOUT_MS })).event);
  }
}

async function peripherals(qmp: QmpClient): Promise<string> {
  const list = await qmp.run('qom-list', { path: '/machine/peripheral' });
  return list
    .map((entry) => `${entry.name} ${entry.type}`)
    .sort()
    .join(', ');
}

async function nodes(qmp: QmpClient): Promise<string> {
  const list = await qmp.run('query-named-block-nodes', { flat: true });
  return list
    .map((entry) => `${entry['node-name'] ?? '-'} ${entry.drv} ${entry.ro} ${entry.file} ${sorted(entry.cache)}`)
    .sort()
    .join(', ');
}

/** JSON with the members in one order: the two servers send them in different ones. */
function sorted(value: object): string {
  return JSON.stringify(Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))));
}
