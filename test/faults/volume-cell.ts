import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { status, type ServiceError } from '@grpc/grpc-js';
import { identify } from '../../src/qemu/process.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { call as promised } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { outcome, type Outcome } from '../support/grpc-errors.ts';
import { openFiles } from '../support/leaks.ts';
import type { Expectation, Fault, Point, StatusName } from './cell.ts';
import type { CellVolume, FaultRig, Vm } from './rig.ts';
import { isEvent, lineOf, type Moment, type Step } from './steps.ts';
import type { Held } from './wire.ts';

/** No call may hang, whatever happens. */
const ANSWER_MAX_MS = 60_000;
/** How long the calls themselves wait: the undo of a failed attach takes as long again. */
const CALL_TIMEOUT_MS = 8000;
const AGAIN_OFFSET = 4096;

/** A call that can be given up. */
export interface Call<T> {
  readonly answer: Promise<Outcome<T>>;
  cancel(): void;
}

/** One cell: a volume's attach or detach meets a fault at a step, and the oracle looks at what came of it. */
export async function volumeCell(rig: FaultRig, step: Step, fault: Fault, moment: Moment): Promise<void> {
  const vm = await rig.sharedVm();
  const volume = await rig.newVolume(step.mounted);
  const before = await rig.inventory();
  const filesBefore = await daemonFiles(rig);
  const expected = fault.expect(step);
  const answer = await struck(rig, vm, volume, { step, fault, moment });
  checkAnswer(answer, expected);
  if (expected.vm === 'dies') {
    await checkDeath(rig, vm);
    await rig.sharedVm();
    await attachAndLook(rig, volume, fault.spoilsFile === true);
    return;
  }
  const { volumes } = await rig.settle();
  await checkAgreement(rig, volumes);
  const bootId = await rig.bootId();
  if (expected.vm === 'reboots') assert.notEqual(bootId, vm.bootId, 'the guest was to reboot');
  else assert.equal(bootId, vm.bootId, 'the guest has rebooted');
  rig.noteBoot(bootId);
  await removeIfAttached(rig, volume, volumes);
  assert.deepEqual(await rig.inventory(), before, 'what QEMU holds, after the fault');
  await attachAndLook(rig, volume, fault.spoilsFile === true);
  assert.deepEqual(await rig.inventory(), before, 'what QEMU holds, after another attach and detach');
  assert.deepEqual(await daemonFiles(rig), filesBefore, 'files that the daemon has open');
}

/** Brings the plan to the step, strikes, and gives the answer of the call, with the fault ended. */
async function struck(
  rig: FaultRig,
  vm: Vm,
  volume: CellVolume,
  cell: { readonly step: Step; readonly fault: Fault; readonly moment: Moment },
): Promise<Outcome<Volume__Output>> {
  const { step, fault, moment } = cell;
  const { volumeId } = volume;
  using _prepared = fault.prepare?.(vm);
  if (step.plan === 'detach') {
    await rig.attach(volume);
    if (volume.mountPoint !== undefined) await rig.guest(`echo ${volumeId} > ${volume.mountPoint}/note; sync`);
  }
  // A disk that the guest's kernel announces is not asked about, and one that nobody uses is seen without the agent.
  const unannounced = step.name === 'find-in-guest' || step.name === 'ask-guest';
  if (unannounced) await rig.guest('killall -STOP qshim-uevents');
  using _armed = fault.arm?.(vm, step);
  const held = hold(rig, vm, volume, step, moment);
  // The hook is armed before the call begins.
  await held.armed;
  const call = step.plan === 'attach' ? attachCall(rig, volume) : detachCall(rig, volume);
  const early = call.answer.then((answer) => {
    throw new Error(`the step was never reached: ${describe(answer)}`);
  });
  early.catch(() => undefined);
  const { pass, drop } = await Promise.race([held.reached, early]);
  const point: Point = { rig, step, moment, target: vm, volume, pass, drop, cancel: () => call.cancel() };
  const ending = await fault.strike(point);
  try {
    const answer = await bounded(call.answer);
    await checkTruth(rig, step, volume, answer, fault);
    return answer;
  } finally {
    await ending?.[Symbol.asyncDispose]();
    if (unannounced) await announceAgain(rig, fault.expect(step));
  }
}

/** A guest that has ended, or booted again, announces by itself. */
async function announceAgain(rig: FaultRig, { vm }: Expectation): Promise<void> {
  if (vm !== 'lives') return;
  await rig.settle();
  await rig.guest('killall -CONT qshim-uevents');
}

interface Holding {
  readonly armed: Promise<void>;
  readonly reached: Promise<{ pass: () => Promise<void>; drop: () => void }>;
}

function hold(rig: FaultRig, vm: Vm, { volumeId }: CellVolume, step: Step, moment: Moment): Holding {
  if (step.on === 'journal') {
    const armed = rig.hook.holdJournal(volumeId, step.known, moment);
    const reached = armed
      .then(({ held }) => held)
      // A daemon that was killed has nothing to be let go on with.
      .then(() => ({ pass: () => rig.releaseJournal(), drop: () => undefined }));
    return { armed: armed.then(() => undefined), reached };
  }
  const wire = step.on === 'agent' ? vm.agent : vm.qmp;
  const reached = wire.hold(lineOf(step, isEvent(step) ? 'asked' : moment)).then(passing);
  return { armed: Promise.resolve(), reached };
}

/** What a held line offers to a fault. */
export function passing(held: Held): Pick<Point, 'pass' | 'drop'> {
  return {
    pass: () => {
      held.pass();
      return Promise.resolve();
    },
    drop: () => held.drop(),
  };
}

function attachCall(rig: FaultRig, volume: CellVolume): Call<Volume__Output> {
  const { volumes } = rig.client;
  const call = Promise.withResolvers<{ cancel(): void }>();
  const answer = outcome(
    promised<Volume__Output>((done) => {
      const begun = volumes.attach(rig.attachRequest(volume, CALL_TIMEOUT_MS), done);
      call.resolve(begun);
      return begun;
    }),
  );
  return { answer, cancel: () => void call.promise.then((begun) => begun.cancel()) };
}

function detachCall(rig: FaultRig, { volumeId }: CellVolume): Call<Volume__Output> {
  const { volumes } = rig.client;
  const request = { sandboxId: rig.vm.sandboxId, volumeId, timeoutMs: CALL_TIMEOUT_MS };
  const call = Promise.withResolvers<{ cancel(): void }>();
  const answer = outcome(
    promised<Volume__Output>((done) => {
      const begun = volumes.detach(request, done);
      call.resolve(begun);
      return begun;
    }),
  );
  return { answer, cancel: () => void call.promise.then((begun) => begun.cancel()) };
}

export async function bounded<T>(answer: Promise<T>): Promise<T> {
  const ended = new AbortController();
  const late = sleep(ANSWER_MAX_MS, undefined, { signal: ended.signal }).then(() => {
    throw new Error(`no answer within ${ANSWER_MAX_MS} ms`);
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([answer, late]);
  } finally {
    ended.abort();
  }
}

export function checkAnswer(answer: Outcome<unknown>, { answers }: Expectation): void {
  const name = answer.ok ? 'OK' : status[answer.error.code];
  assert.ok(answers.includes(name as StatusName), `answered ${describe(answer)}; expected ${answers.join(' or ')}`);
}

export function describe(answer: Outcome<unknown>): string {
  return answer.ok ? 'OK' : statusText(answer.error);
}

function statusText(error: ServiceError): string {
  return `${status[error.code]}: ${error.details}`;
}

/** At the moment of an OK: ATTACHED means that QEMU has the device, REMOVED that it has nothing of the volume. */
async function checkTruth(
  rig: FaultRig,
  step: Step,
  { volumeId }: CellVolume,
  answer: Outcome<Volume__Output>,
  fault: Fault,
): Promise<void> {
  if (!answer.ok || fault.expect(step).vm === 'dies') return;
  const { generation, state } = answer.value;
  assert.equal(state, step.plan === 'attach' ? 'VOLUME_STATE_ATTACHED' : 'VOLUME_STATE_REMOVED');
  const { peripherals, blockNodes } = await rig.inventory();
  const ours = [...peripherals, ...blockNodes].filter((name) => name.startsWith(`vol-${generation}-`));
  if (step.plan === 'attach')
    assert.ok(ours.includes(`vol-${generation}-${volumeId}`), 'ATTACHED, and QEMU has no such device');
  else assert.deepEqual(ours, [], 'REMOVED, and QEMU still has it');
}

/** The daemon's list and QEMU's say the same, and no slot is taken without a volume. */
async function checkAgreement(rig: FaultRig, volumes: readonly Volume__Output[]): Promise<void> {
  const attached = volumes.filter(({ state }) => state === 'VOLUME_STATE_ATTACHED');
  const { peripherals } = await rig.inventory();
  assert.deepEqual(
    peripherals.filter((name) => name.startsWith('vol-')),
    attached.map(({ volumeId, generation }) => `vol-${generation}-${volumeId}`).sort(),
    'devices in QEMU, and volumes in the list',
  );
  const { volumesInUse } = await rig.client.getSandbox(rig.vm.sandboxId);
  assert.equal(volumesInUse, attached.length, 'slots in use');
}

async function removeIfAttached(rig: FaultRig, volume: CellVolume, volumes: readonly Volume__Output[]): Promise<void> {
  const found = volumes.find(({ volumeId }) => volumeId === volume.volumeId);
  if (found?.state !== 'VOLUME_STATE_ATTACHED') return;
  if (volume.mountPoint === undefined || found.evidence.includes('guest-mount')) {
    // The same request again is answered as the first time.
    assert.equal((await rig.attach(volume)).generation, found.generation);
  } else {
    // Nobody has seen it mounted since, so that it is no success for who asks for a mount.
    assert.equal((await refusal(rig.attach(volume))).reason, 'VOLUME_NOT_MOUNTED');
  }
  assert.equal((await rig.detach(volume.volumeId)).state, 'VOLUME_STATE_REMOVED');
  await rig.settle();
}

/**
 * The volume can be attached again, the guest finds the right bytes on it, and what it writes is on the host
 * afterwards.
 */
export async function attachAndLook(rig: FaultRig, volume: CellVolume, spoiled: boolean): Promise<void> {
  const { volumeId, mountPoint, path } = volume;
  if (spoiled) await rig.writeFile(volume);
  assert.equal((await rig.attach(volume)).state, 'VOLUME_STATE_ATTACHED');
  if (mountPoint === undefined) {
    const device = `$(grep -lx ${volumeId} /sys/block/vd*/serial | cut -d/ -f4)`;
    const script = `d=/dev/${device}; head -n 1 $d; echo again-${volumeId} | dd of=$d bs=${AGAIN_OFFSET} seek=1 conv=fsync 2>/dev/null`;
    assert.equal((await rig.guest(script)).trim(), volumeId, 'bytes that the guest reads');
  } else {
    const script = `cat ${mountPoint}/note 2>/dev/null; echo again-${volumeId} > ${mountPoint}/again; sync`;
    const note = (await rig.guest(script)).trim();
    assert.ok(note === '' || note === volumeId, `the file in the guest says ${note}`);
  }
  assert.equal((await rig.detach(volumeId)).state, 'VOLUME_STATE_REMOVED');
  await using file = await open(path);
  const bytes = await file.readFile();
  assert.ok(bytes.includes(`again-${volumeId}\n`), 'what the guest wrote is not in the file');
  await rig.settle();
}

/** QEMU has died: everything that it held is told to be gone, and nothing is left when the sandbox is deleted. */
async function checkDeath(rig: FaultRig, vm: Vm): Promise<void> {
  await rig.untilStopped();
  const { sandbox, volumes } = await rig.settle();
  assert.equal(sandbox.state, 'SANDBOX_STATE_STOPPED');
  assert.ok(
    ['QEMU_EXITED', 'GUEST_PANICKED'].includes(sandbox.cause?.reason ?? ''),
    `cause ${String(sandbox.cause?.reason)}`,
  );
  assert.equal(sandbox.volumesInUse, 0);
  assert.deepEqual(
    volumes.filter(({ state }) => state !== 'VOLUME_STATE_REMOVED'),
    [],
  );
  assert.equal(await identify(vm.pid), undefined, 'QEMU is still there');
  await rig.buryVm();
}

/** Files of the rig that the daemon has open, without its log. */
async function daemonFiles(rig: FaultRig): Promise<readonly string[]> {
  const files = await openFiles(rig.daemonPid);
  return files.filter((path) => path.startsWith(rig.directory) && !path.includes('/qshimd'));
}
