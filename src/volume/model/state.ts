import { z } from 'zod';
import type { ShimError } from '../../base/errors.ts';
import { reasonRead, type ReasonWith } from '../../base/reasons.ts';
import { maybe } from './maybe.ts';
import { slotSchema } from './slots.ts';

/**
 * The life of one volume in one sandbox, as a pure function.
 *
 *            driver live                  detach                 all gone
 *   PENDING ─────────────▶ ATTACHED ─────────────▶ DETACHING ─────────────▶ REMOVED
 *      │                      ▲ │                     │ │ ▲                    ▲
 *      │ attach failed,       │ │ device gone,        │ │ └─ deadline: stays,  │
 *      │ or device gone       │ └─ unasked ───────────┼─┘    asked again       │
 *      ▼                      └──── guest refused ────┘                        │
 *   PENDING (undoing) ──────────────────── all gone ──────────────────────────▶┤
 *   any ── VM gone ───────────────────────────────────────────────────────────▶┘
 *
 * Requests come from callers, observations from QEMU and the guest. Nothing here acts: effects follow from the result.
 */

export const causeSchema = z
  .object({
    /** Of base/reasons.ts, or read from a journal or an event file of another version. */
    reason: z.string().transform(reasonRead),
    message: z.string(),
  })
  .readonly();
export type Cause = z.infer<typeof causeSchema>;

/** What a record keeps of an error. */
export function causeFrom(error: ShimError): Cause {
  return { reason: error.reason, message: error.message };
}

/** What showed that a disk is there: each was looked at, and what is no longer known to be so is taken out. */
export const EVIDENCE = [
  'virtio-status',
  'block-reads',
  'guest-uevent',
  'guest-agent',
  'guest-luks',
  'guest-mount',
] as const;
export type Evidence = (typeof EVIDENCE)[number];

function isEvidence(name: string): name is Evidence {
  return EVIDENCE.some((known) => known === name);
}

/** What was seen of the disk in the guest. */
const guestSchema = z
  .object({
    /** "0000:01:1f.0", once the guest has numbered the bus. */
    pciAddress: maybe(z.string()),
    /** "/dev/vdb", when the agent told it. */
    device: maybe(z.string()),
    // Another version may know more kinds; what this one cannot read it does not claim.
    evidence: z.array(z.string()).transform((all): readonly Evidence[] => all.filter(isEvidence)),
    /** True when Attach made the file system. */
    formatted: z.boolean(),
  })
  .readonly();
export type GuestView = z.infer<typeof guestSchema>;

export const stateSchema = z.union([
  z
    .object({
      state: z.literal('pending'),
      phase: z.literal('attaching'),
      slot: slotSchema,
      /** Found in QEMU without a record of it: it may have been ATTACHED, and in use, for long. */
      found: z.literal(true).optional(),
    })
    .readonly(),
  z
    .object({ state: z.literal('pending'), phase: z.literal('undoing'), slot: slotSchema, cause: causeSchema })
    .readonly(),
  z
    .object({
      state: z.literal('attached'),
      slot: slotSchema,
      guest: guestSchema,
      /** Why the last detach was refused. */
      refused: maybe(causeSchema),
    })
    .readonly(),
  z
    .object({
      state: z.literal('detaching'),
      slot: slotSchema,
      guest: guestSchema,
      force: z.boolean(),
      /** Seen to be gone from QEMU; block nodes may still be there. From here there is no way back to attached. */
      deviceGone: z.boolean(),
      cause: causeSchema,
    })
    .readonly(),
  z.object({ state: z.literal('removed'), cause: causeSchema }).readonly(),
]);
export type VolumeState = z.infer<typeof stateSchema>;

export type StateInput =
  /** Request: unplug it. `cause`: why, where no caller asked for it. */
  | { readonly kind: 'detach'; readonly force: boolean; readonly cause?: Cause }
  /** Observation: the guest's driver is live on the disk. */
  | { readonly kind: 'driver-live'; readonly guest: GuestView }
  /**
   * Observation: this is now known of the disk in the guest; a reset, or a detach that was refused half-way, has ended
   * more.
   */
  | { readonly kind: 'guest-seen'; readonly guest: GuestView }
  /** Observation: a step of the attach failed, what was done must be undone. */
  | { readonly kind: 'attach-failed'; readonly cause: Cause }
  /** Observation: QEMU has no such device (any more). */
  | { readonly kind: 'device-gone' }
  /** Observation: device, block nodes and every helper object are gone. */
  | { readonly kind: 'all-gone' }
  /** Observation: the guest still uses it. */
  | { readonly kind: 'guest-refused'; readonly cause: Cause }
  /** Observation: the QEMU process is gone, and all that it held with it. */
  | { readonly kind: 'vm-gone'; readonly cause: Cause };

export type Transition =
  | { readonly kind: 'next'; readonly next: VolumeState }
  /** A repeat, or news that came late: nothing changes and nothing is wrong. */
  | { readonly kind: 'ignored'; readonly why: string }
  | {
      readonly kind: 'denied';
      readonly code: 'FAILED_PRECONDITION';
      readonly reason: DeniedReason;
      readonly message: string;
    };

type DeniedReason = ReasonWith<'FAILED_PRECONDITION'>;

const DETACH_ASKED: Cause = { reason: 'DETACH_REQUESTED', message: 'a caller asked to detach the volume' };
const UNASKED: Cause = {
  reason: 'DEVICE_VANISHED',
  message: 'QEMU removed the device without having been asked by qshim',
};

/** Decides what an input does to a volume in `state`. Pure and total. */
export function transition(state: VolumeState, input: StateInput): Transition {
  if (state.state === 'removed') return ignored('the volume is removed already');
  if (input.kind === 'vm-gone') return next({ state: 'removed', cause: input.cause });
  switch (state.state) {
    case 'pending':
      return fromPending(state, input);
    case 'attached':
      return fromAttached(state, input);
    case 'detaching':
      return fromDetaching(state, input);
  }
}

type Input = Exclude<StateInput, { kind: 'vm-gone' }>;

function fromPending(state: Extract<VolumeState, { state: 'pending' }>, input: Input): Transition {
  const undoing = state.phase === 'undoing';
  switch (input.kind) {
    case 'detach':
      return denied(
        'VOLUME_PENDING',
        undoing ? 'the failed attach of this volume is being undone' : 'the volume is still being attached',
      );
    case 'driver-live':
      if (undoing) return ignored('the attach is being undone');
      return next({ state: 'attached', slot: state.slot, guest: input.guest, refused: undefined });
    case 'guest-seen':
      return ignored('what was seen comes with driver-live');
    case 'attach-failed':
      if (undoing) return ignored('the attach is being undone already');
      return next({ state: 'pending', phase: 'undoing', slot: state.slot, cause: input.cause });
    case 'device-gone':
      if (undoing) return ignored('the undo waits for the block nodes too');
      return next({ state: 'pending', phase: 'undoing', slot: state.slot, cause: UNASKED });
    case 'all-gone':
      if (!undoing) return denied('NOT_UNDOING', 'an attach in progress cannot be gone without having failed');
      return next({ state: 'removed', cause: state.cause });
    case 'guest-refused':
      return denied('NOT_DETACHING', 'the guest was not asked to let go');
  }
}

function fromAttached(state: Extract<VolumeState, { state: 'attached' }>, input: Input): Transition {
  const { slot, guest } = state;
  switch (input.kind) {
    case 'detach': {
      const { force, cause = DETACH_ASKED } = input;
      return next({ state: 'detaching', slot, guest, force, deviceGone: false, cause });
    }
    case 'device-gone':
      return next({ state: 'detaching', slot, guest, force: true, deviceGone: true, cause: UNASKED });
    case 'driver-live':
      return ignored('the driver is known to be live');
    case 'guest-seen':
      return next({ ...state, guest: input.guest });
    case 'attach-failed':
      return denied('ALREADY_ATTACHED', 'the attach has succeeded already');
    case 'all-gone':
      return denied('NOT_DETACHING', 'an attached volume is first seen to lose its device');
    case 'guest-refused':
      return denied('NOT_DETACHING', 'the guest was not asked to let go');
  }
}

function fromDetaching(state: Extract<VolumeState, { state: 'detaching' }>, input: Input): Transition {
  switch (input.kind) {
    case 'detach':
      if (input.force && !state.force) return next({ ...state, force: true });
      return ignored('the volume is being detached already');
    case 'device-gone':
      return state.deviceGone ? ignored('known') : next({ ...state, deviceGone: true });
    case 'all-gone':
      return next({ state: 'removed', cause: state.cause });
    case 'guest-refused':
      if (state.deviceGone) return ignored('the device has gone in spite of the refusal');
      return next({ state: 'attached', slot: state.slot, guest: state.guest, refused: input.cause });
    case 'driver-live':
      return ignored('the volume is being detached');
    case 'guest-seen':
      return next({ ...state, guest: input.guest });
    case 'attach-failed':
      return denied('ALREADY_ATTACHED', 'the attach has succeeded already');
  }
}

function next(state: VolumeState): Transition {
  return { kind: 'next', next: state };
}

function ignored(why: string): Transition {
  return { kind: 'ignored', why };
}

function denied(reason: DeniedReason, message: string): Transition {
  return { kind: 'denied', code: 'FAILED_PRECONDITION', reason, message };
}
