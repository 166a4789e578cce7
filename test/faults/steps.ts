import { driverEvidence } from '../support/trial.ts';
import type { LineTest } from './wire.ts';

/** Before the request reaches QEMU, guest or disk; or after it was carried out, before the daemon knows. */
export type Moment = 'asked' | 'answered';

/** One step of a plan (src/device/plan.ts, sandbox/boot.ts), and the point at which it can be held. */
export interface Step {
  readonly plan: 'create' | 'attach' | 'detach';
  readonly name: string;
  /** True: the volume has a file system that qshim mounts. */
  readonly mounted: boolean;
  /** What carries the step. */
  readonly on: 'process' | 'journal' | 'qmp' | 'agent';
  /** Command, or event, by which the step is known on its wire. */
  readonly known: string;
}

const plain = { mounted: false } as const;
/** How this QEMU is asked whether a driver is live. */
const LOOK = (await driverEvidence()) === 'virtio-status' ? 'x-query-virtio-status' : 'query-blockstats';

export const STEPS: readonly Step[] = [
  { plan: 'create', name: 'spawn', on: 'process', known: '', ...plain },
  { plan: 'create', name: 'qmp', on: 'qmp', known: 'qmp_capabilities', ...plain },
  { plan: 'create', name: 'agent', on: 'agent', known: 'guest-sync-delimited', ...plain },
  { plan: 'attach', name: 'journal', on: 'journal', known: 'pending', ...plain },
  { plan: 'attach', name: 'blockdev-add', on: 'qmp', known: 'blockdev-add', ...plain },
  { plan: 'attach', name: 'device_add', on: 'qmp', known: 'device_add', ...plain },
  { plan: 'attach', name: 'await-driver', on: 'qmp', known: LOOK, ...plain },
  { plan: 'attach', name: 'find-in-guest', on: 'agent', known: 'guest-file-open', ...plain },
  { plan: 'attach', name: 'mount', on: 'agent', known: 'guest-exec', mounted: true },
  { plan: 'detach', name: 'journal', on: 'journal', known: 'detaching', ...plain },
  { plan: 'detach', name: 'ask-guest', on: 'agent', known: 'guest-exec', ...plain },
  { plan: 'detach', name: 'unmount', on: 'agent', known: 'guest-exec', mounted: true },
  { plan: 'detach', name: 'device_del', on: 'qmp', known: 'device_del', ...plain },
  { plan: 'detach', name: 'await-gone', on: 'qmp', known: 'DEVICE_DELETED', ...plain },
  { plan: 'detach', name: 'blockdev-del', on: 'qmp', known: 'blockdev-del', ...plain },
  { plan: 'detach', name: 'prove', on: 'qmp', known: 'query-named-block-nodes', ...plain },
];

export function stepName({ plan, name }: Step): string {
  return `${plan}: ${name}`;
}

/** True for a step that waits for an event: QEMU sends it, nobody asks for it. */
export function isEvent(step: Step): boolean {
  return step.name === 'await-gone';
}

/** True for a step while which the guest is asked who uses a disk; without its answer the disk is not taken. */
export function asksGuest({ plan, name, mounted }: Step): boolean {
  return plan === 'detach' && !mounted && (name === 'ask-guest' || name === 'journal');
}

/** Recognizes the line at which a step is held. */
export function lineOf(step: Step, moment: Moment): LineTest {
  if (isEvent(step)) return isDeviceDeleted;
  const direction = moment === 'asked' ? 'up' : 'down';
  return (line) => line.direction === direction && line.command === step.known;
}

/** The back end's copy of the event, which comes first, or the front end's own: either makes the daemon look. */
export const isDeviceDeleted: LineTest = ({ event }) => event === 'DEVICE_DELETED';
