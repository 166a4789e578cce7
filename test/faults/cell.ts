import type { CellVolume, FaultRig } from './rig.ts';
import type { Moment, Step } from './steps.ts';
import type { Wire } from './wire.ts';

/** Thrown by a cell that cannot be tried on this machine; counts as skipped. */
export class NotHere extends Error {}

/** Statuses by which a fault may be told. UNKNOWN never is; INTERNAL only when QEMU refuses what it should not. */
export type StatusName =
  | 'OK'
  | 'UNAVAILABLE'
  | 'DEADLINE_EXCEEDED'
  | 'FAILED_PRECONDITION'
  | 'CANCELLED'
  | 'ABORTED'
  | 'RESOURCE_EXHAUSTED'
  | 'UNIMPLEMENTED'
  | 'INTERNAL';

export interface Expectation {
  /** What the call may be answered; the rest of the oracle holds whatever it is. */
  readonly answers: readonly StatusName[];
  /** What becomes of the VM. */
  readonly vm: 'lives' | 'reboots' | 'dies';
}

/** Which VM the fault strikes. */
export interface Target {
  readonly pid: number;
  readonly stateDir: string;
  /** Undefined while the daemon has not connected yet. */
  readonly qmp: Wire | undefined;
  readonly agent: Wire | undefined;
}

/** A plan that is held at a step: what a fault acts on. */
export interface Point {
  readonly rig: FaultRig;
  readonly step: Step;
  readonly moment: Moment;
  readonly target: Target;
  /** Undefined in create. */
  readonly volume: CellVolume | undefined;
  /** Lets the plan go on. */
  pass(): Promise<void>;
  /** Throws away what is held and lets the rest go on. */
  drop(): void;
  /** The caller gives up. */
  cancel(): void;
}

/** One kind of fault: a column of the matrix. */
export interface Fault {
  readonly name: string;
  readonly moments: readonly Moment[];
  /** Why it cannot strike at this step; undefined when it can. */
  readonly whyNot: (step: Step) => string | undefined;
  /** Before the volume is attached, also when it is to be detached. */
  readonly prepare?: (target: Target) => Disposable;
  /** Right before the call. */
  readonly arm?: (target: Target, step: Step) => Disposable;
  /** Strikes and lets the plan go on. What it gives ends the fault, after the call was answered. */
  readonly strike: (point: Point) => Promise<AsyncDisposable | undefined>;
  readonly expect: (step: Step) => Expectation;
  /** The file does not hold what it held: it is made anew before the volume is attached again. */
  readonly spoilsFile?: boolean;
}
