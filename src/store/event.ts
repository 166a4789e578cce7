import type { Timing } from '../base/stopwatch.ts';
import type { Cause } from '../volume/model/state.ts';

export type EventType =
  | 'sandbox.creating'
  | 'sandbox.running'
  | 'sandbox.stopping'
  | 'sandbox.stopped'
  | 'sandbox.deleted'
  | 'sandbox.adopted'
  | 'sandbox.rebooted'
  | 'sandbox.paused'
  | 'sandbox.resumed'
  | 'sandbox.panicked'
  | 'sandbox.unresponsive'
  | 'sandbox.responsive'
  | 'sandbox.over_budget'
  | 'sandbox.within_budget'
  | 'sandbox.snapshot'
  | 'volume.pending'
  | 'volume.attached'
  | 'volume.detaching'
  | 'volume.removed'
  | 'volume.health'
  | 'volume.job'
  | 'volume.lease'
  | 'volume.operation'
  | 'volume.resized'
  | 'volume.limited'
  | 'volume.snapshot';

/** One observed change. `subject` is a snapshot of the sandbox or volume as it was right after. */
export interface ShimEvent {
  /** Of which numbering `sequence` is (events.ts). */
  readonly epoch: string;
  readonly sequence: number;
  readonly timeMs: number;
  readonly type: EventType;
  readonly sandboxId: string;
  /** Undefined for events of the sandbox itself. */
  readonly volumeId: string | undefined;
  readonly generation: number;
  readonly cause: Cause | undefined;
  readonly timings: readonly Timing[];
  readonly subject: unknown;
}

export type NewEvent = Omit<ShimEvent, 'epoch' | 'sequence' | 'timeMs'>;
