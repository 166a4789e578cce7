import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import { call as promised } from '../support/daemon.ts';
import { outcome, type Outcome } from '../support/grpc-errors.ts';
import type { Fault, Point } from './cell.ts';
import { exists, processesNaming } from './host.ts';
import type { FaultRig, ReadyWhen } from './rig.ts';
import { lineOf, type Moment, type Step } from './steps.ts';
import { bounded, checkAnswer, describe, passing } from './volume-cell.ts';
import { until } from '../support/until.ts';

const SANDBOX_ID = 'new';
const SETTLE_TIMEOUT_MS = 60_000;
const CLEARED_MAX_MS = 10_000;

/** One cell: the creation of a sandbox meets a fault at a step. It is there and runs, or has left nothing at all. */
export async function createCell(rig: FaultRig, step: Step, fault: Fault, moment: Moment): Promise<void> {
  const expected = fault.expect(step);
  const readyWhen = readyWhenOf(step);
  const answer = await struck(rig, step, fault, moment);
  checkAnswer(answer, expected);
  const sandbox = await settled(rig);
  if (sandbox === undefined || sandbox.state !== 'SANDBOX_STATE_RUNNING') {
    assert.ok(!answer.ok || expected.vm === 'dies', 'answered OK, and it does not run');
    // A daemon that came back and found QEMU dead tells so; one that saw the creation fail has left nothing.
    if (sandbox !== undefined) await rig.client.deleteSandbox(SANDBOX_ID);
    await checkNothingLeft(rig);
    await rig.closeWiresOf(SANDBOX_ID);
    rig.expectVm(SANDBOX_ID);
    const again = await rig.create(SANDBOX_ID, 'READY_WHEN_STARTED');
    assert.equal(again.state, 'SANDBOX_STATE_RUNNING');
  } else {
    // The same request again is answered as the first time.
    const again = await rig.create(SANDBOX_ID, readyWhen);
    assert.equal(again.qemuPid, sandbox.qemuPid);
    assert.equal(again.agentReady, step.on === 'agent');
  }
  await rig.client.deleteSandbox(SANDBOX_ID);
  await checkNothingLeft(rig);
  await rig.closeWiresOf(SANDBOX_ID);
}

/** Without a guest that has booted, but for the step that waits for one: it takes seconds. */
function readyWhenOf(step: Step): ReadyWhen {
  return step.on === 'agent' ? 'READY_WHEN_AGENT' : 'READY_WHEN_STARTED';
}

async function struck(rig: FaultRig, step: Step, fault: Fault, moment: Moment): Promise<Outcome<Sandbox__Output>> {
  const stateDir = rig.daemon.directoryOf(SANDBOX_ID);
  const coming = rig.expectVm(SANDBOX_ID, true);
  const { sandboxes } = rig.client;
  const readyWhen = readyWhenOf(step);
  const begun = Promise.withResolvers<{ cancel(): void }>();
  const answer = outcome(
    promised<Sandbox__Output>((done) => {
      const request = { sandboxId: SANDBOX_ID, spec: { vcpus: 1, accelerator: 'ACCELERATOR_TCG' as const, readyWhen } };
      const call = sandboxes.create(request, done);
      begun.resolve(call);
      return call;
    }),
  );
  const early = answer.then((ended) => {
    throw new Error(`the step was never reached: ${describe(ended)}`);
  });
  early.catch(() => undefined);
  const reach = async (): Promise<Pick<Point, 'target' | 'pass' | 'drop'>> => {
    await coming.spawned;
    const [pid = 0] = await processesNaming(`path=${stateDir}/qmp.sock,`);
    if (step.on === 'process') {
      const pass = (): Promise<void> => {
        coming.go();
        return Promise.resolve();
      };
      return { target: { pid, stateDir, qmp: undefined, agent: undefined }, pass, drop: () => undefined };
    }
    coming.go();
    const wires = await coming.wires;
    const held = await (step.on === 'agent' ? wires.agent : wires.qmp).hold(lineOf(step, moment));
    return { target: { pid, stateDir, ...wires }, ...passing(held) };
  };
  const reached = await Promise.race([reach(), early]);
  const cancel = (): void => void begun.promise.then((call) => call.cancel());
  const ending = await fault.strike({ rig, step, moment, volume: undefined, cancel, ...reached });
  try {
    return await bounded(answer);
  } finally {
    await ending?.[Symbol.asyncDispose]();
  }
}

/** The sandbox once nothing is under way; undefined when there is none. */
async function settled(rig: FaultRig): Promise<Sandbox__Output | undefined> {
  const { found } = await until(
    'nothing is under way',
    async () => {
      const found = (await rig.client.listSandboxes()).find(({ sandboxId }) => sandboxId === SANDBOX_ID);
      return found?.state !== 'SANDBOX_STATE_CREATING' && { found };
    },
    SETTLE_TIMEOUT_MS,
  );
  return found;
}

/** No process, and soon no directory: one that could not be removed during the fault is removed after it. */
async function checkNothingLeft(rig: FaultRig): Promise<void> {
  const directory = rig.daemon.directoryOf(SANDBOX_ID);
  assert.deepEqual(await processesNaming(`path=${directory}/`), [], 'QEMU is left running');
  await until('the state directory is removed', async () => !(await exists(directory)), CLEARED_MAX_MS);
  // The daemon takes note of it a moment later.
  await sleep(20);
}
