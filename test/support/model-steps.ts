import fc from 'fast-check';

/** What a random sequence against the daemon is made of, as data that fast-check can print, shrink and repeat. */

/** `d` names the same file as `a`: the claims on sources are part of the game. */
export const VOLUMES = ['a', 'b', 'c', 'd'] as const;
export type VolumeName = (typeof VOLUMES)[number];
/** One slot fewer than volumes, so that they run out. */
export const CAPACITY = 2;

/** A call of a client. */
export type Operation =
  | { readonly call: 'attach'; readonly volume: VolumeName; readonly readOnly: boolean }
  | { readonly call: 'detach'; readonly volume: VolumeName; readonly force: boolean }
  | { readonly call: 'get'; readonly volume: VolumeName }
  | { readonly call: 'list' };

export const CHANGING = ['blockdev-add', 'device_add', 'device_del', 'blockdev-del'] as const;

/** What befalls the next command of one name, once. */
export interface Fault {
  readonly command: (typeof CHANGING)[number];
  /** Before or after the command has its effect; a refusal comes before. */
  readonly when: 'before' | 'after';
  readonly what: 'refuse' | 'no reply' | 'slow' | 'very slow' | 'drop' | 'kill' | 'exit';
}

/** How the guest's driver takes a new disk up. */
export type DriverMode = 'live' | 'slow' | 'never' | 'failed' | 'firmware';
/** How the guest lets go of a disk. */
export type UnplugMode = 'at once' | 'late' | 'never' | 'without event' | 'events twice';

export type Step =
  | { readonly kind: 'call'; readonly operation: Operation; readonly fault: Fault | undefined }
  | { readonly kind: 'pair'; readonly operations: readonly [Operation, Operation]; readonly fault: Fault | undefined }
  | { readonly kind: 'driver'; readonly mode: DriverMode }
  | { readonly kind: 'unplug'; readonly mode: UnplugMode }
  /** The guest mounts the volume by itself, or lets go of it. */
  | { readonly kind: 'busy'; readonly volume: VolumeName; readonly busy: boolean }
  /** The device leaves without having been asked to. */
  | { readonly kind: 'unasked'; readonly volume: VolumeName }
  | { readonly kind: 'drop' }
  | { readonly kind: 'restart'; readonly signal: 'SIGKILL' | 'SIGTERM' }
  | { readonly kind: 'exit' };

const volume = fc.constantFrom(...VOLUMES);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      call: fc.constant('attach' as const),
      volume,
      readOnly: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
    }),
  },
  { weight: 5, arbitrary: fc.record({ call: fc.constant('detach' as const), volume, force: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ call: fc.constant('get' as const), volume }) },
  { weight: 1, arbitrary: fc.constant<Operation>({ call: 'list' }) },
);
const fault: fc.Arbitrary<Fault> = fc.record({
  command: fc.constantFrom(...CHANGING),
  when: fc.constantFrom('before' as const, 'after' as const),
  what: fc.constantFrom<Fault['what'][]>('refuse', 'refuse', 'no reply', 'slow', 'very slow', 'drop', 'kill', 'exit'),
});
const perhapsFault = fc.oneof({ weight: 2, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fault });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('call' as const), operation, fault: perhapsFault }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('pair' as const),
      operations: fc.tuple(operation, operation),
      fault: perhapsFault,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('driver' as const),
      mode: fc.constantFrom<DriverMode[]>('live', 'live', 'slow', 'never', 'failed', 'firmware'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('unplug' as const),
      mode: fc.constantFrom<UnplugMode[]>('at once', 'at once', 'late', 'never', 'without event', 'events twice'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('busy' as const), volume, busy: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unasked' as const), volume }) },
  { weight: 1, arbitrary: fc.constant<Step>({ kind: 'drop' }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('restart' as const),
      signal: fc.constantFrom('SIGKILL' as const, 'SIGTERM' as const),
    }),
  },
  { weight: 1, arbitrary: fc.constant<Step>({ kind: 'exit' }) },
);

/** Sequences of up to `lengthMax` steps; mostly long ones, for what is hard to reach lies deep. */
export function sequences(lengthMax: number): fc.Arbitrary<readonly Step[]> {
  return fc.array(step, { minLength: 1, maxLength: lengthMax, size: 'max' });
}
