import assert from 'node:assert/strict';
import { readdir, readFile, readlink, rm, truncate, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { outcome, type Outcome } from '../support/grpc-errors.ts';
import { exists, processesNaming } from './host.ts';
import type { Cell, MatrixCell } from './matrix.ts';
import type { CellVolume, FaultRig } from './rig.ts';
import { isDeviceDeleted } from './steps.ts';
import { attachAndLook } from './volume-cell.ts';
import type { Line } from './wire.ts';
import { until } from '../support/until.ts';

/** Of the rig's VMs (rig.ts): small enough to be filled. */
const CAPACITY = 31;
const GUEST_HUNG_MS = 4000;
const PATIENT_MS = 20_000;
const ENCRYPTED_BYTES = 48 * 1024 * 1024;
const ACCESS_MODE_MASK = 0o3;

const real = (run: (rig: FaultRig) => Promise<void>): Cell => ({ kind: 'real', run });
const notHere = (why: string): Cell => ({ kind: 'not here', why });

/** Faults that Kata Containers has or had (its own issue numbers), each turned into a test. */
const ROWS: readonly (readonly [row: string, cell: Cell])[] = [
  ['more attaches in the life of a VM than it has slots', real(moreThanSlots)],
  ['a slot is free only when its removal is proven; then it is', real(slotAfterProof)],
  ['an attach that failed half-way can be tried again (#11649)', real(halfWay)],
  ['another disk at the expected address is never mounted (agent#804)', real(wrongDisk)],
  ['the guest’s device is found by its PCI path, not by its order (#7119)', real(byPath)],
  ['a read-only source is never opened for writing (#2467)', real(readOnly)],
  ['a slow guest is waited for as long as the caller says (#11238)', real(slowGuest)],
  ['io_uring refused by the host falls back, a mode that was asked for does not (#10314)', real(fallBack)],
  ['a source deleted between look-up and plug (runtime#1758)', real(deletedSource)],
  ['no QEMU is left after a start that failed (#13564)', real(failedStart)],
  ['no QEMU is left after a kill that it does not take (#13665)', real(ignoredKill)],
  ['a wait for the guest never blocks a stop', real(stopPreempts)],
  ['one wait never eats another device’s event', real(sharedEvents)],
  ['replies are matched by their ids, not by their order', real(swappedReplies)],
  [
    'detach from one container of several (#12689)',
    notHere('containers belong to containerd’s services: tried in unit/containerd-parts'),
  ],
  [
    'a metrics scrape ends the shim (#13708)',
    notHere('there is no endpoint to scrape: containerd asks for metrics by a call like any other'),
  ],
  ['an encrypted mount never falls back to plain when the guest lacks the helper', real(noFallBack)],
];

export const KATA: readonly MatrixCell[] = ROWS.map(([row, cell]) => ({ row, column: 'Kata', cell }));

async function expectRefusal<T>(work: Promise<T>, code: status, reason: RegExp): Promise<void> {
  const answer: Outcome<T> = await outcome(work);
  assert.ok(!answer.ok, 'answered OK');
  assert.equal(status[answer.error.code], status[code], answer.error.details);
  assert.match(answer.error.details, reason);
}

/** A decimal slot number that QEMU reads as hexadecimal ends this at the 20th. */
async function moreThanSlots(rig: FaultRig): Promise<void> {
  await rig.sharedVm();
  const before = await rig.inventory();
  const volume = await rig.newVolume();
  const paths = new Set<string>();
  for (let cycle = 0; cycle < CAPACITY + 4; cycle += 1) {
    const attached = await rig.attach(volume);
    paths.add(attached.pciPath);
    await rig.detach(volume.volumeId);
  }
  assert.equal(paths.size, CAPACITY, 'every slot has had its turn');
  await attachAndLook(rig, volume, false);
  assert.deepEqual(await rig.inventory(), before);
}

async function slotAfterProof(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const before = await rig.inventory();
  const leaving = await rig.newVolume();
  const { pciPath } = await rig.attach(leaving);
  const others: CellVolume[] = [];
  {
    // QEMU never hears of the request, and says that it has: what a guest does that is booting.
    using _deaf = vm.qmp.filter((line, wire) => {
      if (line.direction !== 'up' || line.command !== 'device_del' || !names(line, leaving)) return undefined;
      wire.sendDown(`${JSON.stringify({ return: {}, id: line.message['id'] })}\r\n`);
      return [];
    });
    const asked = rig.client.detach({
      sandboxId: vm.sandboxId,
      volumeId: leaving.volumeId,
      force: true,
      timeoutMs: 300,
    });
    await expectRefusal(asked, status.DEADLINE_EXCEEDED, /goes on asking/);
    for (let count = 1; count < CAPACITY; count += 1) others.push(await rig.newVolume());
    const attached = await Promise.all(others.map((volume) => rig.attach(volume)));
    assert.equal(
      new Set([pciPath, ...attached.map((volume) => volume.pciPath)]).size,
      CAPACITY,
      'a slot was given twice',
    );
    const one = await rig.newVolume();
    await expectRefusal(rig.attach(one), status.RESOURCE_EXHAUSTED, /slots/);
    assert.equal((await rig.client.getVolume(vm.sandboxId, leaving.volumeId)).state, 'VOLUME_STATE_DETACHING');
  }
  // Asked again without anybody's doing.
  await rig.settle();
  const next = await rig.newVolume();
  assert.equal((await rig.attach(next)).pciPath, pciPath, 'the slot that was proven to be free');
  await rig.detach(next.volumeId);
  await attachAndLook(rig, next, false);
  await Promise.all(others.map(({ volumeId }) => rig.detach(volumeId)));
  assert.deepEqual(await rig.inventory(), before);
}

function names(line: Line, { volumeId }: CellVolume): boolean {
  return line.bytes.includes(`-${volumeId}"`);
}

async function halfWay(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const before = await rig.inventory();
  const volume = await rig.newVolume();
  {
    using _wrong = vm.qmp.filter((line) =>
      line.direction === 'up' && line.command === 'device_add' ? [replaced(line, 'bus', 'no-such-bus')] : undefined,
    );
    const answer = await outcome(rig.attach(volume));
    assert.ok(!answer.ok, 'attached to a bus that is not there');
  }
  assert.deepEqual(await rig.inventory(), before);
  await attachAndLook(rig, volume, false);
  assert.deepEqual(await rig.inventory(), before);
}

/** The line with another value of a member that it has. */
function replaced(line: Line, member: string, value: string): string {
  const text = line.bytes.toString();
  const pattern = new RegExp(`"${member}":"[^"]*"`);
  assert.match(text, pattern);
  return text.replace(pattern, `"${member}":${JSON.stringify(value)}`);
}

async function wrongDisk(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const before = await rig.inventory();
  const volume = await rig.newVolume(true);
  {
    using _other = vm.qmp.filter((line) =>
      line.direction === 'up' && line.command === 'device_add' ? [replaced(line, 'serial', 'another')] : undefined,
    );
    await expectRefusal(rig.attach(volume), status.FAILED_PRECONDITION, /serial/);
  }
  await rig.settle();
  assert.equal(await rig.guest(`grep -c ${volume.volumeId} /proc/mounts || true`), '0\n');
  assert.deepEqual(await rig.inventory(), before);
  await attachAndLook(rig, volume, false);
}

async function byPath(rig: FaultRig): Promise<void> {
  await rig.sharedVm();
  const [first, second, third] = [await rig.newVolume(), await rig.newVolume(), await rig.newVolume()];
  await rig.attach(first);
  const stays = await rig.attach(second);
  await rig.detach(first.volumeId);
  const comes = await rig.attach(third);
  for (const [volume, { guestDevice }] of [
    [second, stays],
    [third, comes],
  ] as const) {
    assert.equal((await rig.guest(`head -n 1 ${guestDevice}`)).trim(), volume.volumeId);
  }
  await Promise.all([rig.detach(second.volumeId), rig.detach(third.volumeId)]);
}

async function readOnly(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const volume = await rig.newVolume();
  const request = rig.attachRequest(volume);
  await rig.client.attach({ ...request, spec: { ...request.spec, readOnly: true } });
  const modes = await accessModes(vm.pid, volume.path);
  assert.ok(modes.length > 0, 'QEMU has the file open');
  assert.ok(
    modes.every((mode) => mode === 0),
    `open for writing: ${modes.join(', ')}`,
  );
  await rig.detach(volume.volumeId);
}

/** O_RDONLY, O_WRONLY or O_RDWR of each descriptor by which a process has a file open. */
async function accessModes(pid: number, path: string): Promise<readonly number[]> {
  const modes: number[] = [];
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    if ((await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')) !== path) continue;
    const flags = /^flags:\s*([0-7]+)$/m.exec(await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1] ?? '';
    modes.push(Number.parseInt(flags, 8) & ACCESS_MODE_MASK);
  }
  return modes;
}

async function slowGuest(rig: FaultRig): Promise<void> {
  await rig.sharedVm();
  const volume = await rig.newVolume();
  await rig.spare((qmp) => qmp.run('stop'));
  const attach = rig.attach(volume, PATIENT_MS);
  await sleep(GUEST_HUNG_MS);
  await rig.spare((qmp) => qmp.run('cont'));
  assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
  await rig.detach(volume.volumeId);
  await rig.settle();
}

async function fallBack(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const volume = await rig.newVolume();
  {
    using _refused = vm.qmp.filter((line, wire) => {
      if (line.direction !== 'up' || !line.bytes.includes('"aio":"io_uring"')) return undefined;
      const error = { class: 'GenericError', desc: 'Unable to use linux io_uring: Operation not permitted' };
      wire.sendDown(`${JSON.stringify({ error, id: line.message['id'] })}\r\n`);
      return [];
    });
    assert.equal((await rig.attach(volume)).aio, 'AIO_MODE_THREADS');
    await rig.detach(volume.volumeId);
    const request = rig.attachRequest(volume);
    const chosen = rig.client.attach({ ...request, spec: { ...request.spec, aio: 'AIO_MODE_IO_URING' } });
    await expectRefusal(chosen, status.FAILED_PRECONDITION, /io_uring/);
  }
  await attachAndLook(rig, volume, false);
}

async function deletedSource(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const before = await rig.inventory();
  const volume = await rig.newVolume();
  const adding = vm.qmp.hold((line) => line.direction === 'up' && line.command === 'blockdev-add');
  const attach = outcome(rig.attach(volume));
  const held = await adding;
  await rm(volume.path);
  held.pass();
  // QEMU has what was looked at, whatever lies at its path.
  assert.equal((await attach).ok, true);
  await rig.detach(volume.volumeId);
  assert.deepEqual(await rig.inventory(), before);
  await expectRefusal(
    rig.attach(volume),
    status.FAILED_PRECONDITION,
    /no such file|No such file|does not exist|not found/i,
  );
  await attachAndLook(rig, volume, true);
}

async function rejectedBy<T>(answer: Promise<Outcome<T>>): Promise<T> {
  const settled = await answer;
  if (settled.ok) return settled.value;
  throw settled.error;
}

async function failedStart(rig: FaultRig): Promise<void> {
  const coming = rig.expectVm('new', true);
  const created = outcome(rig.create('new', 'READY_WHEN_STARTED'));
  await coming.spawned;
  coming.go();
  const { qmp } = await coming.wires;
  // Unplug would not work well on this machine: the daemon is to refuse it.
  using _native = qmp.filter((line) =>
    line.direction === 'down' && line.command === 'qom-get'
      ? [`${JSON.stringify({ return: false, id: line.message['id'] })}\r\n`]
      : undefined,
  );
  await expectRefusal(rejectedBy(created), status.FAILED_PRECONDITION, /ACPI/);
  await nothingLeft(rig);
}

async function ignoredKill(rig: FaultRig): Promise<void> {
  const { sandbox } = await rig.boot('new', 'READY_WHEN_STARTED');
  // Stopped, it takes no signal but SIGKILL, answers no QMP and powers no guest down.
  process.kill(sandbox.qemuPid, 'SIGSTOP');
  await rig.client.deleteSandbox('new');
  await nothingLeft(rig);
}

async function nothingLeft(rig: FaultRig): Promise<void> {
  const directory = rig.daemon.directoryOf('new');
  assert.deepEqual(await processesNaming(`path=${directory}/`), []);
  assert.equal(await exists(directory), false);
  assert.ok(!(await rig.client.listSandboxes()).some(({ sandboxId }) => sandboxId === 'new'));
  await rig.closeWiresOf('new');
}

async function stopPreempts(rig: FaultRig): Promise<void> {
  const { sandbox } = await rig.boot('new', 'READY_WHEN_STARTED');
  const { path } = await rig.newVolume();
  // The guest's kernel is not there yet to drive it: this waits.
  const spec = { rawFile: { path } };
  const attach = outcome(rig.client.attach({ sandboxId: 'new', volumeId: 'waits', spec, timeoutMs: 120_000 }));
  const waiting = async (): Promise<boolean> =>
    (await rig.client.listVolumes('new')).some(({ state }) => state === 'VOLUME_STATE_PENDING');
  await until('the attach waits', waiting);
  const stopped = await rig.client.stopSandbox({ sandboxId: sandbox.sandboxId, force: true });
  assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
  const answer = await attach;
  assert.ok(
    !answer.ok && [status.ABORTED, status.UNAVAILABLE].includes(answer.error.code),
    `the attach ends with it, and not so: ${answer.ok ? answer.value.state : String(answer.error)}`,
  );
  await rig.client.deleteSandbox('new');
  await nothingLeft(rig);
}

/** Four removals wait; their events come in one burst, in the wrong order. Nobody may be asked a second time. */
async function sharedEvents(rig: FaultRig): Promise<void> {
  await rig.sharedVm();
  // Only the event ends these waits in time.
  await rig.restart({ unplug_retry_ms: 120_000, unplug_retry_max_ms: 120_000 });
  try {
    await rig.settle();
    const volumes = [await rig.newVolume(), await rig.newVolume(), await rig.newVolume(), await rig.newVolume()];
    await Promise.all(volumes.map((volume) => rig.attach(volume)));
    const kept: Buffer[] = [];
    // Two for each: its back end's, and its own.
    const events = volumes.length * 2;
    using _late = rig.vm.qmp.filter((line, wire) => {
      if (!isDeviceDeleted(line)) return undefined;
      kept.push(line.bytes);
      if (kept.length === events) wire.sendDown(Buffer.concat(kept.reverse()));
      return [];
    });
    const removed = await Promise.all(volumes.map(({ volumeId }) => rig.detach(volumeId)));
    assert.ok(removed.every(({ state }) => state === 'VOLUME_STATE_REMOVED'));
  } finally {
    await rig.restart();
    await rig.settle();
  }
}

async function swappedReplies(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const volumes = [await rig.newVolume(), await rig.newVolume()] as const;
  const kept: Buffer[] = [];
  const attached: Volume__Output[] = [];
  {
    using _swapped = vm.qmp.filter((line, wire) => {
      if (line.direction !== 'down' || line.command !== 'blockdev-add') return undefined;
      kept.push(line.bytes);
      if (kept.length === volumes.length) wire.sendDown(Buffer.concat(kept.reverse()));
      return [];
    });
    attached.push(...(await Promise.all(volumes.map((volume) => rig.attach(volume)))));
  }
  for (const { volumeId, guestDevice } of attached) {
    assert.equal((await rig.guest(`head -n 1 ${guestDevice}`)).trim(), volumeId);
    await rig.detach(volumeId);
  }
}

async function noFallBack(rig: FaultRig): Promise<void> {
  const vm = await rig.sharedVm();
  const before = await rig.inventory();
  const volume = await rig.newVolume();
  const { volumeId, path } = volume;
  // Provably empty, and to be formatted: nothing but the missing helper is in the way of a plain file system.
  await writeFile(path, '');
  await truncate(path, ENCRYPTED_BYTES);
  const mountPoint = `/mnt/${volumeId}`;
  const mount = { fsType: 'ext4', mountPoint, options: [], format: 'FORMAT_IF_EMPTY' as const };
  const guestLuks2 = { ephemeralKey: {}, mode: 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY' as const };
  const request = {
    sandboxId: vm.sandboxId,
    volumeId,
    spec: { rawFile: { path }, mount, encryption: { guestLuks2 } },
  };
  await rig.guest('mv /usr/sbin/cryptsetup /usr/sbin/cryptsetup.away');
  await expectRefusal(rig.client.attach(request), status.UNIMPLEMENTED, /cryptsetup/);
  await rig.guest('mv /usr/sbin/cryptsetup.away /usr/sbin/cryptsetup');
  await rig.settle();
  assert.equal(await rig.guest(`grep -c ${volumeId} /proc/mounts || true`), '0\n');
  assert.ok(
    (await readFile(path)).every((byte) => byte === 0),
    'something was written',
  );
  assert.deepEqual(await rig.inventory(), before);

  const attached = await rig.client.attach(request);
  assert.ok(attached.evidence.includes('guest-luks'), attached.evidence.join());
  await rig.guest(`echo secret-of-${volumeId} > ${mountPoint}/note; sync`);
  await rig.detach(volumeId);
  assert.ok(!(await readFile(path)).includes(`secret-of-${volumeId}`), 'the text is on the disk as it is');
  assert.deepEqual(await rig.inventory(), before);
}
