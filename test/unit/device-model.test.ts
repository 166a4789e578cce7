import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { slotAt } from '../../src/volume/model/slots.ts';
import {
  transition,
  type Transition,
  type GuestView,
  type StateInput,
  type VolumeState,
} from '../../src/volume/model/state.ts';
import { assertModel, modelParameters, type Regression } from '../support/model-seed.ts';

/**
 * The state machine in a world that it sees only through messages: a small QEMU with its guest goes its own way, and
 * what it has to tell comes late, twice, in another order or never. The oracle is the rule of the house: never say what
 * has not been observed. Unlike device-state.test.ts, every observation was true when it was made, so the claims can be
 * held against the world itself.
 */

const SLOT = slotAt(5);

/** What is really there. */
interface World {
  device: 'absent' | 'present' | 'gone';
  nodes: boolean;
  /** The guest's driver has been up at some time. */
  driverWasLive: boolean;
  vmAlive: boolean;
  /** The executor gave up on the attach: nothing is added any more. */
  attachEnded: boolean;
}

interface Life {
  readonly world: World;
  /** Observations on their way. */
  readonly mail: StateInput[];
  state: VolumeState;
  /** Kinds of observations that were delivered, oldest first. */
  readonly seen: StateInput['kind'][];
}

function born(): Life {
  const state: VolumeState = { state: 'pending', phase: 'attaching', slot: SLOT };
  const world: World = { device: 'absent', nodes: false, driverWasLive: false, vmAlive: true, attachEnded: false };
  return { world, mail: [], state, seen: [] };
}

/** Applies one input and holds the result against the rules that hold for each single step. */
function apply(life: Life, input: StateInput): Transition {
  const before = life.state;
  const frozen = structuredClone(before);
  const result = transition(before, input);
  assert.deepEqual(before, frozen, 'the state is not changed in place');
  assert.deepEqual(transition(before, input), result, 'the same question has the same answer');
  if (result.kind !== 'next') return result;
  life.state = result.next;
  life.seen.push(input.kind);
  assert.notEqual(before.state, 'removed', 'REMOVED is final');
  if (life.state.state !== 'removed') assert.deepEqual(life.state.slot, SLOT, 'the slot is constant');
  if (before.state === 'detaching' && before.deviceGone && life.state.state !== 'removed') {
    assert.ok(life.state.state === 'detaching' && life.state.deviceGone, 'a device that is gone stays gone');
  }
  if (before.state !== 'pending') assert.notEqual(life.state.state, 'pending', 'nothing becomes PENDING again');
  if (before.state === 'pending' && before.phase === 'undoing') {
    assert.notEqual(life.state.state, 'attached', 'an attach that was given up does not succeed');
  }
  return result;
}

/** The claims of the record, held against the world. */
function checkClaims({ state, world, seen }: Life): void {
  switch (state.state) {
    case 'attached':
      assert.ok(world.driverWasLive && seen.includes('driver-live'), 'ATTACHED was never seen to be live');
      return;
    case 'detaching':
      if (state.deviceGone) assert.ok(world.device === 'gone' || !world.vmAlive, 'the device is still there');
      return;
    case 'removed':
      assert.ok(!world.vmAlive || (world.device !== 'present' && !world.nodes), 'REMOVED, but QEMU still holds it');
      return;
    case 'pending':
  }
}

type Step =
  | { readonly kind: 'detach'; readonly force: boolean }
  | {
      readonly kind: 'add' | 'driver up' | 'guest lets go' | 'vm dies' | 'attach fails' | 'refusal' | 'look' | 'report';
    }
  | { readonly kind: 'deliver'; readonly which: number; readonly keep: boolean };

const CAUSE = { reason: 'QMP_ERROR', message: 'a cause' } as const;
const GUEST: GuestView = { pciAddress: undefined, device: undefined, evidence: ['virtio-status'], formatted: false };

/** One thing that happens in the world, on the way or at the machine. */
function happen(life: Life, step: Step): void {
  const { world, mail } = life;
  switch (step.kind) {
    case 'detach':
      apply(life, step);
      return;
    case 'add':
      // The executor adds nodes, then the device, while the attach is under way; names are never used twice.
      if (world.attachEnded || !world.vmAlive || world.device !== 'absent') return;
      if (world.nodes) world.device = 'present';
      else world.nodes = true;
      return;
    case 'driver up':
      if (world.device !== 'present' || !world.vmAlive) return;
      world.driverWasLive = true;
      mail.push({ kind: 'driver-live', guest: GUEST });
      return;
    case 'guest lets go':
      if (world.device !== 'present') return;
      world.device = 'gone';
      mail.push({ kind: 'device-gone' });
      return;
    case 'vm dies':
      world.vmAlive = false;
      mail.push({ kind: 'vm-gone', cause: CAUSE });
      return;
    case 'attach fails':
      if (life.state.state !== 'pending') return;
      world.attachEnded = true;
      mail.push({ kind: 'attach-failed', cause: CAUSE });
      return;
    case 'refusal':
      if (life.state.state === 'detaching' && world.device === 'present')
        mail.push({ kind: 'guest-refused', cause: CAUSE });
      return;
    case 'report':
      // Reconciliation: what QEMU lists now, told whenever.
      if (world.device === 'gone') mail.push({ kind: 'device-gone' });
      return;
    case 'look':
      look(life);
      return;
    case 'deliver':
      deliver(life, step);
  }
}

/** The look that proves a removal is made and applied under the device's mutex: nothing comes in between. */
function look(life: Life): void {
  const { world } = life;
  if (!isLeaving(life.state)) return;
  if (world.device !== 'present') world.nodes = false;
  if (world.device !== 'present') apply(life, { kind: 'all-gone' });
}

function isLeaving(state: VolumeState): boolean {
  return state.state === 'detaching' || (state.state === 'pending' && state.phase === 'undoing');
}

function deliver(life: Life, { which, keep }: Extract<Step, { kind: 'deliver' }>): void {
  const { mail } = life;
  if (mail.length === 0) return;
  const index = which % mail.length;
  const [input] = keep ? mail.slice(index, index + 1) : mail.splice(index, 1);
  if (input === undefined) return;
  const before = life.state;
  const result = apply(life, input);
  if (result.kind === 'denied') assert.equal(life.state, before, 'what is denied changes nothing');
  // The executor ends an attach as soon as the machine undoes it.
  if (isLeaving(life.state) || life.state.state === 'removed') life.world.attachEnded = true;
}

/** Whatever has happened, the executor's convergence must end in REMOVED: no state is a trap. */
function mustConverge(life: Life): void {
  apply(life, { kind: 'attach-failed', cause: CAUSE });
  apply(life, { kind: 'detach', force: true });
  if (life.world.vmAlive) {
    if (life.world.device === 'present') life.world.device = 'gone';
    apply(life, { kind: 'device-gone' });
    life.world.nodes = false;
    apply(life, { kind: 'all-gone' });
  } else {
    apply(life, { kind: 'vm-gone', cause: CAUSE });
  }
  assert.equal(life.state.state, 'removed', 'the machine cannot be led to REMOVED from here');
  checkClaims(life);
}

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('detach' as const), force: fc.boolean() }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom('add', 'driver up', 'guest lets go', 'attach fails', 'refusal', 'look', 'report'),
    }),
  },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('deliver' as const), which: fc.nat(7), keep: fc.boolean() }) },
  { weight: 1, arbitrary: fc.constant<Step>({ kind: 'vm dies' }) },
);
const anyLife = fc.array(anyStep, { maxLength: 60, size: 'max' });

function run(steps: readonly Step[]): Life {
  const life = born();
  for (const step of steps) {
    happen(life, step);
    checkClaims(life);
  }
  return life;
}

const property = fc.asyncProperty(anyLife, (steps) => {
  mustConverge(run(steps));
  return Promise.resolve();
});

/** None so far: the machine's faults were found by its table. */
const regressions: readonly Regression[] = [];

describe('volume state machine in a world that it only hears of', () => {
  it('random lives: what the record claims is true of the world', async () => {
    await assertModel(property, modelParameters(3000, true));
  });

  for (const { seed, path, found } of regressions) {
    it(`regression: ${found}`, async () => {
      await assertModel(property, { seed, path });
    });
  }

  it('the random lives reach every state, and both ways out of DETACHING', () => {
    const reached = new Set<string>();
    for (const steps of fc.sample(anyLife, { seed: 1, numRuns: 2000 })) {
      const life = born();
      for (const step of steps) {
        const before = life.state.state;
        happen(life, step);
        reached.add('phase' in life.state ? life.state.phase : life.state.state);
        if (before !== life.state.state) reached.add(`${before} to ${life.state.state}`);
      }
    }
    const wanted = ['attaching', 'undoing', 'attached', 'detaching', 'removed'];
    const ways = ['detaching to attached', 'detaching to removed', 'pending to removed', 'attached to removed'];
    assert.deepEqual(
      [...wanted, ...ways].filter((name) => !reached.has(name)),
      [],
    );
  });
});
