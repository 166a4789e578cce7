import assert from 'node:assert/strict';
import { join } from 'node:path';
import { silentLogger } from '../../src/base/log.ts';
import { namesFor } from '../../src/volume/model/names.ts';
import { pciPath } from '../../src/volume/model/slots.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { readJournal } from '../../src/store/journal.ts';
import type { ApiClient } from './daemon.ts';
import type { EventTail } from './model-events.ts';
import type { FaultyVm } from './model-faults.ts';
import { CAPACITY, type Operation } from './model-steps.ts';

/** What a call that nothing disturbs must come to: a state, or "CODE/REASON". */
export type Expected = 'ATTACHED' | 'REMOVED' | 'ANY' | `${string}/${string}`;

/** What is known before a call: the newest generation of each volume. */
export type Records = ReadonlyMap<string, Volume__Output>;

const REMOVED = 'VOLUME_STATE_REMOVED';

export function isOpen(record: Volume__Output | undefined): record is Volume__Output {
  return record !== undefined && record.state !== REMOVED;
}

function isUndoing(record: Volume__Output): boolean {
  return record.state === 'VOLUME_STATE_PENDING';
}

/** `d` is another name of `a`'s source. */
export function sourceOf(volume: string): string {
  return volume === 'd' ? 'a' : volume;
}

/** The one right answer of a call that is alone and meets no fault: the API rules as a function. */
export function expectedOf(operation: Operation, records: Records, vm: FaultyVm): Expected {
  switch (operation.call) {
    case 'list':
      return 'ANY';
    case 'get':
      return records.has(operation.volume) ? 'ANY' : 'NOT_FOUND/VOLUME_NOT_FOUND';
    case 'attach':
      return expectedOfAttach(operation, records, vm);
    case 'detach':
      return expectedOfDetach(operation, records.get(operation.volume), vm);
  }
}

function expectedOfAttach(
  { volume, readOnly }: Extract<Operation, { call: 'attach' }>,
  records: Records,
  vm: FaultyVm,
): Expected {
  const existing = records.get(volume);
  if (isOpen(existing)) {
    if (existing.spec?.readOnly !== readOnly) return 'ALREADY_EXISTS/VOLUME_EXISTS';
    if (existing.state === 'VOLUME_STATE_DETACHING') return 'FAILED_PRECONDITION/VOLUME_DETACHING';
    return isUndoing(existing) ? 'FAILED_PRECONDITION/VOLUME_PENDING' : 'ATTACHED';
  }
  const open = [...records.values()].filter(isOpen);
  const sharing = open.filter((other) => sourceOf(other.volumeId) === sourceOf(volume));
  if (sharing.some((other) => !readOnly || other.spec?.readOnly !== true)) return 'FAILED_PRECONDITION/BACKING_IN_USE';
  if (open.length >= CAPACITY) return 'RESOURCE_EXHAUSTED/NO_SLOT';
  switch (vm.driver) {
    case 'live':
    case 'slow':
      return 'ATTACHED';
    case 'failed':
      return 'FAILED_PRECONDITION/GUEST_DRIVER_FAILED';
    case 'never':
    case 'firmware':
      return 'DEADLINE_EXCEEDED/GUEST_DRIVER_TIMEOUT';
  }
}

function expectedOfDetach(
  { volume, force }: Extract<Operation, { call: 'detach' }>,
  record: Volume__Output | undefined,
  vm: FaultyVm,
): Expected {
  if (record === undefined) return 'NOT_FOUND/VOLUME_NOT_FOUND';
  if (!isOpen(record)) return 'REMOVED';
  if (isUndoing(record)) return 'FAILED_PRECONDITION/VOLUME_PENDING';
  if (record.state === 'VOLUME_STATE_ATTACHED' && vm.busy.has(volume) && !force) {
    return 'FAILED_PRECONDITION/VOLUME_BUSY';
  }
  return vm.unplug === 'never' ? 'DEADLINE_EXCEEDED/GUEST_HOLDS_VOLUME' : 'REMOVED';
}

/** What an answer says, held at once against what QEMU has. */
export function checkAnswer(operation: Operation, answer: Volume__Output, alone: boolean, vm: FaultyVm): void {
  const { devices, nodes } = vm.vm.model;
  const { device, root, protocol } = namesFor(answer.volumeId, answer.generation);
  const what = `${answer.volumeId}/${answer.generation} ${answer.state}`;
  if (answer.state === 'VOLUME_STATE_ATTACHED') {
    assert.ok(vm.everLive.has(device), `${what}: its driver has never been live`);
  }
  if (answer.state === REMOVED && !vm.exited) {
    const left = [devices.has(device), nodes.has(root), nodes.has(protocol)];
    assert.deepEqual(left, [false, false, false], `${what}: device, format node or file node is still there`);
  }
  if (!alone) return;
  if (operation.call === 'attach') {
    assert.equal(answer.state, 'VOLUME_STATE_ATTACHED', what);
    const there = [devices.has(device), nodes.has(root), nodes.has(protocol)];
    if (!vm.exited) assert.deepEqual(there, [true, true, true], `${what}: device, format node and file node`);
  }
  if (operation.call === 'detach') assert.equal(answer.state, REMOVED, what);
}

interface Settled {
  readonly client: ApiClient;
  readonly directory: string;
  readonly vm: FaultyVm;
  readonly tail: EventTail;
}

/** All that must agree once nothing is under way: records, QEMU, the events, the journal. Gives the records. */
export async function checkSettled({ client, directory, vm, tail }: Settled): Promise<Records> {
  const [sandbox, volumes] = await Promise.all([client.getSandbox('one'), client.listVolumes('one')]);
  tail.check();
  const open = volumes.filter(isOpen);
  assert.equal(sandbox.state, vm.exited ? 'SANDBOX_STATE_STOPPED' : 'SANDBOX_STATE_RUNNING');
  assert.equal(sandbox.agentReady, !vm.exited, 'the agent is ready again');
  assert.equal(sandbox.volumesInUse, open.length, 'slots in use');
  assert.equal(new Set(open.map((volume) => volume.pciPath)).size, open.length, 'one slot for one volume');
  for (const volume of volumes) checkRecord(volume, vm);
  checkHeld(open, vm);
  for (const volume of volumes) {
    const type = `volume.${nameOf(volume)}`;
    assert.equal(tail.latest.get(volume.generation)?.type, type, `newest event of ${volume.volumeId}`);
  }
  await checkJournal(join(directory, 'state.json'), volumes);
  return new Map(volumes.map((volume) => [volume.volumeId, volume]));
}

function nameOf(volume: Volume__Output): string {
  return volume.state.replace('VOLUME_STATE_', '').toLowerCase();
}

/** A state that lasts has its reason in the guest. */
function checkRecord(volume: Volume__Output, vm: FaultyVm): void {
  const what = `${volume.volumeId}/${volume.generation} ${volume.state} (${volume.cause?.reason ?? ''})`;
  if (vm.exited) assert.equal(volume.state, REMOVED, `${what}: the VM is gone`);
  switch (volume.state) {
    case 'VOLUME_STATE_ATTACHED':
      assert.ok(vm.everLive.has(namesFor(volume.volumeId, volume.generation).device), `${what}: never live`);
      return;
    case 'VOLUME_STATE_REMOVED':
      assert.notEqual(volume.cause?.reason ?? '', '', `${what}: has a cause`);
      return;
    case 'VOLUME_STATE_DETACHING':
    case 'VOLUME_STATE_PENDING':
      assert.equal(vm.unplug, 'never', `${what}: the guest lets go, so this does not last`);
      return;
    case 'VOLUME_STATE_UNSPECIFIED':
      assert.fail(what);
  }
}

/** No node or device without a record, and none missing of what is attached. */
function checkHeld(open: readonly Volume__Output[], vm: FaultyVm): void {
  if (vm.exited) return;
  const names = (volume: Volume__Output): readonly string[] => {
    const { device, root, protocol } = namesFor(volume.volumeId, volume.generation);
    return [device, root, protocol];
  };
  const { held, model } = vm.vm;
  const recorded = new Set(open.flatMap(names));
  // A guest that lets go of nothing keeps a fence too. It goes when the guest lets go again: the end of each sequence.
  const isKeptFence = (name: string): boolean => vm.unplug === 'never' && name.startsWith('fence-');
  assert.deepEqual(
    held.filter((name) => !recorded.has(name) && !isKeptFence(name)),
    [],
    'in QEMU without a record',
  );
  const attached = open.filter((volume) => volume.state === 'VOLUME_STATE_ATTACHED').flatMap(names);
  assert.deepEqual(
    attached.filter((name) => !held.includes(name)),
    [],
    'recorded as attached, not in QEMU',
  );
  for (const volume of open) {
    const device = model.devices.get(namesFor(volume.volumeId, volume.generation).device);
    if (device === undefined) continue;
    const address = Number.parseInt(String(device.args['addr']), 16);
    assert.equal(volume.pciPath, `10/${address.toString(16).padStart(2, '0')}`, 'the slot that QEMU has');
  }
}

async function checkJournal(path: string, volumes: readonly Volume__Output[]): Promise<void> {
  const journal = await readJournal(path, silentLogger());
  assert.ok(journal !== undefined, 'the journal can be read');
  const known = journal.volumes.map((volume) => [
    volume.volumeId,
    volume.generation,
    volume.state.state,
    pciPath(volume.slot),
  ]);
  const told = volumes.map((volume) => [volume.volumeId, volume.generation, nameOf(volume), volume.pciPath]);
  assert.deepEqual(known, told, 'the journal and the API');
  for (const { generation } of journal.volumes) assert.ok(generation < journal.sandbox.nextGeneration);
}
