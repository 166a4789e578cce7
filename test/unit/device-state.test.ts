import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { slotAt } from '../../src/volume/model/slots.ts';
import {
  transition,
  type Cause,
  type GuestView,
  type Transition,
  type StateInput,
  type VolumeState,
} from '../../src/volume/model/state.ts';

const slot = slotAt(3);
const guest: GuestView = {
  pciAddress: '0000:01:04.0',
  device: '/dev/vda',
  evidence: ['guest-agent'],
  formatted: false,
};
const other: GuestView = { ...guest, device: '/dev/vdb' };
const cause: Cause = { reason: 'QMP_LOST', message: 'the first cause' };
const later: Cause = { reason: 'VM_GONE', message: 'a later cause' };

function detaching(force: boolean, deviceGone: boolean): VolumeState {
  return { state: 'detaching', slot, guest, force, deviceGone, cause };
}

const STATES = {
  attaching: { state: 'pending', phase: 'attaching', slot },
  undoing: { state: 'pending', phase: 'undoing', slot, cause },
  attached: { state: 'attached', slot, guest, refused: undefined },
  refused: { state: 'attached', slot, guest, refused: cause },
  detaching: detaching(false, false),
  forced: detaching(true, false),
  leaving: detaching(false, true),
  'forced leaving': detaching(true, true),
  removed: { state: 'removed', cause },
} as const satisfies Record<string, VolumeState>;

const INPUTS = {
  detach: { kind: 'detach', force: false },
  force: { kind: 'detach', force: true },
  'driver-live': { kind: 'driver-live', guest: other },
  'guest-seen': { kind: 'guest-seen', guest: other },
  'attach-failed': { kind: 'attach-failed', cause: later },
  'device-gone': { kind: 'device-gone' },
  'all-gone': { kind: 'all-gone' },
  'guest-refused': { kind: 'guest-refused', cause: later },
  'vm-gone': { kind: 'vm-gone', cause: later },
} as const satisfies Record<string, StateInput>;

type StateName = keyof typeof STATES;
type InputName = keyof typeof INPUTS;
/** A whole next state, or why there is none: `ignored`, or the reason of a denial. */
type Expected = VolumeState | string;

const asked: Cause = { reason: 'DETACH_REQUESTED', message: 'a caller asked to detach the volume' };
const unasked: Cause = {
  reason: 'DEVICE_VANISHED',
  message: 'QEMU removed the device without having been asked by qshim',
};
const gone = (why: Cause): VolumeState => ({ state: 'removed', cause: why });
const toDetaching = (force: boolean): VolumeState => ({ ...detaching(force, false), cause: asked }) as VolumeState;
const vanished: VolumeState = { state: 'detaching', slot, guest, force: true, deviceGone: true, cause: unasked };
const refusedNow: VolumeState = { state: 'attached', slot, guest, refused: later };

const fromAttached = (state: VolumeState): Record<InputName, Expected> => ({
  'guest-seen': { ...state, guest: other } as VolumeState,
  detach: toDetaching(false),
  force: toDetaching(true),
  'driver-live': 'ignored',
  'attach-failed': 'ALREADY_ATTACHED',
  'device-gone': vanished,
  'all-gone': 'NOT_DETACHING',
  'guest-refused': 'NOT_DETACHING',
  'vm-gone': gone(later),
});

function fromDetaching(force: boolean, deviceGone: boolean): Record<InputName, Expected> {
  return {
    detach: 'ignored',
    force: force ? 'ignored' : detaching(true, deviceGone),
    'driver-live': 'ignored',
    'guest-seen': { ...detaching(force, deviceGone), guest: other } as VolumeState,
    'attach-failed': 'ALREADY_ATTACHED',
    'device-gone': deviceGone ? 'ignored' : detaching(force, true),
    'all-gone': gone(cause),
    'guest-refused': deviceGone ? 'ignored' : refusedNow,
    'vm-gone': gone(later),
  };
}

const TABLE: Record<StateName, Record<InputName, Expected>> = {
  attaching: {
    detach: 'VOLUME_PENDING',
    force: 'VOLUME_PENDING',
    'driver-live': { state: 'attached', slot, guest: other, refused: undefined },
    'guest-seen': 'ignored',
    'attach-failed': { state: 'pending', phase: 'undoing', slot, cause: later },
    'device-gone': { state: 'pending', phase: 'undoing', slot, cause: unasked },
    'all-gone': 'NOT_UNDOING',
    'guest-refused': 'NOT_DETACHING',
    'vm-gone': gone(later),
  },
  undoing: {
    detach: 'VOLUME_PENDING',
    force: 'VOLUME_PENDING',
    'driver-live': 'ignored',
    'guest-seen': 'ignored',
    'attach-failed': 'ignored',
    'device-gone': 'ignored',
    'all-gone': gone(cause),
    'guest-refused': 'NOT_DETACHING',
    'vm-gone': gone(later),
  },
  attached: fromAttached(STATES.attached),
  refused: fromAttached(STATES.refused),
  detaching: fromDetaching(false, false),
  forced: fromDetaching(true, false),
  leaving: fromDetaching(false, true),
  'forced leaving': fromDetaching(true, true),
  removed: {
    detach: 'ignored',
    force: 'ignored',
    'driver-live': 'ignored',
    'guest-seen': 'ignored',
    'attach-failed': 'ignored',
    'device-gone': 'ignored',
    'all-gone': 'ignored',
    'guest-refused': 'ignored',
    'vm-gone': 'ignored',
  },
};

function outcome(result: Transition): Expected {
  switch (result.kind) {
    case 'next':
      return result.next;
    case 'ignored':
      assert.notEqual(result.why, '');
      return 'ignored';
    case 'denied':
      assert.equal(result.code, 'FAILED_PRECONDITION');
      assert.notEqual(result.message, '');
      return result.reason;
  }
}

describe('volume state machine, every state with every input', () => {
  for (const stateName of Object.keys(STATES) as StateName[]) {
    for (const inputName of Object.keys(INPUTS) as InputName[]) {
      it(`${stateName} + ${inputName}`, () => {
        const state = STATES[stateName];
        const before = structuredClone(state);
        assert.deepEqual(outcome(transition(state, INPUTS[inputName])), TABLE[stateName][inputName]);
        assert.deepEqual(state, before, 'the input state is not changed in place');
      });
    }
  }
});

const anyCause = fc.record({ reason: fc.constantFrom('QMP_LOST', 'VM_GONE', 'VOLUME_BUSY'), message: fc.string() });
const anyGuest = fc.record({
  pciAddress: fc.option(fc.constant('0000:01:04.0'), { nil: undefined }),
  device: fc.option(fc.constantFrom('/dev/vda', '/dev/vdb'), { nil: undefined }),
  evidence: fc.array(fc.constantFrom('virtio-status' as const, 'guest-agent' as const)),
  formatted: fc.boolean(),
});
const anyInput: fc.Arbitrary<StateInput> = fc.oneof(
  fc.record({ kind: fc.constant('detach' as const), force: fc.boolean() }),
  fc.record({ kind: fc.constant('driver-live' as const), guest: anyGuest }),
  fc.record({ kind: fc.constant('guest-seen' as const), guest: anyGuest }),
  fc.record({ kind: fc.constant('attach-failed' as const), cause: anyCause }),
  fc.constant<StateInput>({ kind: 'device-gone' }),
  fc.constant<StateInput>({ kind: 'all-gone' }),
  fc.record({ kind: fc.constant('guest-refused' as const), cause: anyCause }),
);
const vmGone = fc.record({ kind: fc.constant('vm-gone' as const), cause: anyCause });
/** A life: the machine's own inputs in any order, with now and then the end of the VM. */
const life = fc.array(fc.oneof({ weight: 20, arbitrary: anyInput }, { weight: 1, arbitrary: vmGone }), {
  maxLength: 40,
});

interface Step {
  readonly before: VolumeState;
  readonly input: StateInput;
  readonly after: VolumeState;
}

function live(inputs: readonly StateInput[]): Step[] {
  let state: VolumeState = STATES.attaching;
  return inputs.map((input) => {
    const result = transition(state, input);
    const before = state;
    if (result.kind === 'next') state = result.next;
    return { before, input, after: state };
  });
}

function holds(name: string, check: (steps: readonly Step[]) => void): void {
  it(name, () => {
    fc.assert(
      fc.property(life, (inputs) => check(live(inputs))),
      { numRuns: 2000 },
    );
  });
}

describe('volume state machine, over whole lives', () => {
  holds('REMOVED is final', (steps) => {
    for (const { before, after } of steps) if (before.state === 'removed') assert.equal(after, before);
  });

  holds('the slot never changes within a generation', (steps) => {
    for (const { after } of steps) if (after.state !== 'removed') assert.deepEqual(after.slot, slot);
  });

  holds('REMOVED is reached only through undoing or DETACHING with all gone, or the end of the VM', (steps) => {
    for (const { before, input, after } of steps) {
      if (after.state !== 'removed' || before.state === 'removed' || input.kind === 'vm-gone') continue;
      assert.equal(input.kind, 'all-gone');
      const leaving = before.state === 'detaching' || (before.state === 'pending' && before.phase === 'undoing');
      assert.ok(leaving, `removed straight from ${before.state}`);
    }
  });

  holds('the end of the VM removes whatever is left', (steps) => {
    for (const { input, after } of steps) if (input.kind === 'vm-gone') assert.equal(after.state, 'removed');
  });

  holds('force only grows within one detach', (steps) => {
    for (const { before, after } of steps) {
      if (before.state === 'detaching' && after.state === 'detaching' && before.force) assert.ok(after.force);
    }
  });

  holds('once the device is gone the volume is never attached again', (steps) => {
    let deviceGone = false;
    for (const { after } of steps) {
      deviceGone ||= after.state === 'detaching' && after.deviceGone;
      if (deviceGone) assert.notEqual(after.state, 'attached');
    }
  });

  holds('an attach that failed never becomes attached', (steps) => {
    let failed = false;
    for (const { after } of steps) {
      failed ||= after.state === 'pending' && after.phase === 'undoing';
      if (failed) assert.notEqual(after.state, 'attached');
    }
  });

  holds('ATTACHED is entered only on evidence: a live driver, or a refusal by the guest that has the disk', (steps) => {
    for (const { before, input, after } of steps) {
      if (after.state !== 'attached' || before.state === 'attached') continue;
      assert.equal(input.kind, before.state === 'pending' ? 'driver-live' : 'guest-refused');
    }
  });

  holds('the first cause of an undo or a removal stays', (steps) => {
    for (const { before, input, after } of steps) {
      if (input.kind === 'vm-gone' || !('cause' in before) || !('cause' in after)) continue;
      assert.deepEqual(after.cause, before.cause);
    }
  });
});
