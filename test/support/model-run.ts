import assert from 'node:assert/strict';
import { waitFor, Deadline, sleep } from '../../src/base/deadline.ts';
import type { OptionName } from '../../src/config.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { ApiClient } from './daemon.ts';
import { decodeRefusal } from './errors.ts';
import { FakeVmRig } from './fake-vm-rig.ts';
import { EventTail } from './model-events.ts';
import { FaultyVm } from './model-faults.ts';
import { checkAnswer, checkSettled, expectedOf, isOpen, sourceOf, type Records } from './model-oracle.ts';
import { CAPACITY, VOLUMES, type Fault, type Operation, type Step } from './model-steps.ts';

/** Far above what any call or any settling takes: it makes a hang a failure. */
const HANG_MS = 20_000;
const VOLUME_BYTES = 65_536;

const SETTINGS: Partial<Record<OptionName, string | number>> = {
  attach_timeout_ms: 1000,
  detach_timeout_ms: 1000,
  qmp_reply_timeout_ms: 1000,
  unplug_retry_ms: 30,
  unplug_retry_max_ms: 100,
  kill_timeout_ms: 2000,
};

/** What a call came to. */
interface Outcome {
  readonly operation: Operation;
  readonly answer: Volume__Output | undefined;
  /** "CODE/REASON"; empty when it was answered, "LOST" when the daemon was killed meanwhile. */
  readonly refused: string;
}

/**
 * The real daemon over a faulty QEMU, for one sequence after another. Each gets a sandbox of its own; a sequence that
 * fails takes the daemon with it, so that the next one is not misled.
 */
export class ModelHost implements AsyncDisposable {
  #rig: FakeVmRig | undefined;

  /** Carries a sequence out. @throws AssertionError as soon as an oracle objects */
  async run(steps: readonly Step[]): Promise<void> {
    this.#rig ??= await FakeVmRig.start(SETTINGS);
    const rig = this.#rig;
    try {
      using tail = new EventTail();
      await tail.follow(rig.client);
      const run = new Run(rig, tail);
      await run.begin();
      for (const step of steps) await run.take(step);
      await run.end();
    } catch (error) {
      this.#rig = undefined;
      const log = await rig.daemon.log();
      await rig.daemon.kill('SIGKILL');
      await rig.qemu[Symbol.asyncDispose]();
      if (process.env['QSHIM_MODEL_LOG'] !== undefined) process.stderr.write(log);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rig?.[Symbol.asyncDispose]();
  }
}

class Run {
  readonly #rig: FakeVmRig;
  readonly #tail: EventTail;
  readonly #paths = new Map<string, string>();
  #vm: FaultyVm | undefined;
  #records: Records = new Map();
  /** Slot of each generation of the present sandbox. */
  readonly #slots = new Map<number, string>();
  #newest = 0;
  #killed = false;

  constructor(rig: FakeVmRig, tail: EventTail) {
    this.#rig = rig;
    this.#tail = tail;
  }

  async begin(): Promise<void> {
    for (const name of VOLUMES) this.#paths.set(name, await this.#rig.daemon.rawFile(sourceOf(name), VOLUME_BYTES));
    await this.#newSandbox();
  }

  async take(step: Step): Promise<void> {
    const vm = this.#faulty;
    switch (step.kind) {
      case 'call':
        await this.#calls([step.operation], step.fault);
        break;
      case 'pair':
        await this.#calls(step.operations, step.fault);
        break;
      case 'driver':
        vm.driver = step.mode;
        return;
      case 'unplug':
        vm.unplug = step.mode;
        break;
      case 'busy':
        if (step.busy) vm.busy.add(step.volume);
        else vm.busy.delete(step.volume);
        return;
      case 'unasked':
        this.#vanish(step.volume);
        break;
      case 'drop':
        vm.vm.qmp.drop();
        break;
      case 'restart':
        this.#killed = true;
        await this.#rig.daemon.kill(step.signal);
        break;
      case 'exit':
        vm.exit();
    }
    await this.#settle();
  }

  /** The guest behaves again: everything must come to its end, and nothing must be left. */
  async end(): Promise<void> {
    const vm = this.#faulty;
    vm.unplug = 'at once';
    vm.busy.clear();
    await this.#settle();
    for (const record of this.#records.values()) {
      const operation = { call: 'detach', volume: record.volumeId as 'a', force: false } as const;
      if (isOpen(record)) await this.#calls([operation], undefined);
    }
    await this.#settle();
    assert.deepEqual(this.#faulty.vm.held, [], 'nothing is left in QEMU');
    await this.#rig.client.deleteSandbox('one');
    this.#tail.check();
  }

  get #faulty(): FaultyVm {
    assert.ok(this.#vm !== undefined);
    return this.#vm;
  }

  async #newSandbox(): Promise<void> {
    const vm = await this.#rig.sandbox('one', {}, CAPACITY);
    this.#vm = new FaultyVm(vm, () => {
      this.#killed = true;
      this.#tail.retold = true;
      this.#rig.daemon.child.kill('SIGKILL');
    });
    this.#records = new Map();
    this.#slots.clear();
    this.#newest = 0;
    this.#tail.forget();
  }

  #vanish(name: string): void {
    const record = this.#records.get(name);
    if (record === undefined) return;
    for (const id of this.#faulty.vm.model.devices.keys()) {
      if (id === `vol-${record.generation}-${name}`) this.#faulty.vanish(id);
    }
  }

  /** Calls made at the same time, each held against what it must come to. */
  async #calls(operations: readonly Operation[], fault: Fault | undefined): Promise<void> {
    const vm = this.#faulty;
    const [first] = operations;
    const calm = operations.length === 1 && fault === undefined && first !== undefined;
    const expected = calm ? expectedOf(first, this.#records, vm) : 'ANY';
    vm.arm(fault);
    const outcomes = await Promise.all(operations.map((operation) => this.#call(operation, operations.length === 1)));
    vm.arm(undefined);
    for (const outcome of outcomes) this.#checkOutcome(outcome, expected, fault);
  }

  async #call(operation: Operation, alone: boolean): Promise<Outcome> {
    const deadline = Deadline.after(HANG_MS);
    for (;;) {
      const outcome = await this.#ask(operation, alone);
      // A new connection to QEMU takes a moment; UNAVAILABLE asks the caller to try again.
      const again = ['UNAVAILABLE/QMP_LOST'].includes(outcome.refused) && alone && !this.#killed;
      if (!again || deadline.expired || this.#faulty.exited) return outcome;
      await sleep(20);
      await this.#settle();
    }
  }

  async #ask(operation: Operation, alone: boolean): Promise<Outcome> {
    try {
      const answer = await waitFor(send(this.#rig.client, operation, this.#paths), {
        milliseconds: HANG_MS,
        onTimeout: () => new assert.AssertionError({ message: `no answer: ${JSON.stringify(operation)}` }),
      });
      if (answer !== undefined) checkAnswer(operation, answer, alone, this.#faulty);
      return { operation, answer, refused: '' };
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      if (this.#killed) return { operation, answer: undefined, refused: 'LOST' };
      const { code, reason } = decodeRefusal(error);
      return { operation, answer: undefined, refused: `${code}/${reason}` };
    }
  }

  #checkOutcome({ operation, answer, refused }: Outcome, expected: string, fault: Fault | undefined): void {
    const what = JSON.stringify(operation);
    if (refused.startsWith('INTERNAL/')) assert.equal(fault?.what, 'refuse', `${what}: ${refused}`);
    for (const code of ['CANCELLED', 'INVALID_ARGUMENT', 'UNIMPLEMENTED']) {
      assert.ok(!refused.startsWith(`${code}/`), `${what}: ${refused}`);
    }
    if (expected === 'ANY') return;
    // Which slots are settled is not in the model. A guest that lets go of nothing settles none.
    const unsettled = refused === 'DEADLINE_EXCEEDED/SLOT_NOT_SETTLED' && this.#faulty.unplug === 'never';
    if (unsettled && isNewAttach(operation, expected)) return;
    const came = refused === '' ? (answer?.state.replace('VOLUME_STATE_', '') ?? 'a list') : refused;
    assert.equal(came, expected, what);
    const before = this.#records.get(answer?.volumeId ?? '');
    if (operation.call !== 'attach' || answer === undefined) return;
    if (isOpen(before)) assert.equal(answer.generation, before.generation, `${what}: a repeat is the same generation`);
    else assert.ok(answer.generation > this.#newest, `${what}: a new attach is a new generation`);
  }

  /** Waits until nothing is under way and all sides agree; a disagreement that lasts is the failure. */
  async #settle(): Promise<void> {
    if (this.#killed) await this.#restart();
    const vm = this.#faulty;
    if (vm.exited) this.#tail.retold ||= this.#killed;
    const settled = { client: this.#rig.client, directory: this.#rig.daemon.directoryOf('one'), vm, tail: this.#tail };
    const deadline = Deadline.after(HANG_MS);
    for (;;) {
      try {
        this.#records = await waitFor(checkSettled(settled), { milliseconds: HANG_MS });
        break;
      } catch (error) {
        if (deadline.expired) throw error;
        await sleep(15);
      }
    }
    for (const { generation, pciPath } of this.#records.values()) {
      assert.equal(this.#slots.get(generation) ?? pciPath, pciPath, 'the slot of a generation never changes');
      this.#slots.set(generation, pciPath);
      this.#newest = Math.max(this.#newest, generation);
    }
    if (!vm.exited) return;
    await this.#rig.client.deleteSandbox('one');
    await this.#newSandbox();
  }

  async #restart(): Promise<void> {
    this.#tail.retold = true;
    await this.#rig.restart('SIGKILL');
    this.#killed = false;
    await this.#tail.follow(this.#rig.client);
  }
}

/** An attach that gets as far as a slot: it comes to its end, or to what the guest's driver does. */
function isNewAttach({ call }: Operation, expected: string): boolean {
  return call === 'attach' && (expected === 'ATTACHED' || /\/GUEST_DRIVER_/.test(expected));
}

async function send(
  client: ApiClient,
  operation: Operation,
  paths: ReadonlyMap<string, string>,
): Promise<Volume__Output | undefined> {
  const sandboxId = 'one';
  switch (operation.call) {
    case 'attach': {
      const { volume: volumeId, readOnly } = operation;
      const path = paths.get(volumeId) ?? '';
      return await client.attach({ sandboxId, volumeId, spec: { rawFile: { path }, readOnly } });
    }
    case 'detach':
      return await client.detach({ sandboxId, volumeId: operation.volume, force: operation.force });
    case 'get':
      return await client.getVolume(sandboxId, operation.volume);
    case 'list':
      await client.listVolumes(sandboxId);
      return undefined;
  }
}
