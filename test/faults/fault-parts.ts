import type { Expectation, Point, StatusName, Target } from './cell.ts';
import type { Step } from './steps.ts';
import type { Wire } from './wire.ts';

/** What the faults of both files are made of. */

/** Can strike at every step. */
export const always = (): undefined => undefined;

type Answers = (step: Step) => readonly StatusName[] | undefined;

/** The VM goes on. What `answers` does not know of a step is answered OK. */
export function lives(answers: Answers = always): (step: Step) => Expectation {
  return (step) => ({ answers: answers(step) ?? ['OK'], vm: 'lives' });
}

/** Steps of which QEMU's reply decides. When it is not to be had, the attach is undone. */
export function addsToQemu({ name }: Step): boolean {
  return name === 'blockdev-add' || name === 'device_add';
}

/** The step right before those: what strikes at it may strike the first of them, or may be over by then. */
export function leadsToQemu({ plan, name }: Step): boolean {
  return plan === 'attach' && name === 'journal';
}

/** What a call is answered whose VM dies. What was seen a moment before may be told. */
export function deathTold({ plan, name }: Step): readonly StatusName[] {
  // Of a volume that is being found in the guest everything has been seen but its name there.
  return plan === 'detach' || name === 'find-in-guest' ? ['OK', 'UNAVAILABLE'] : ['UNAVAILABLE'];
}

export function unlessSpawn(why: string): (step: Step) => string | undefined {
  return (step) => (step.on === 'process' ? why : undefined);
}

/** Strikes by what was prepared. */
export async function passOn(point: Point): Promise<undefined> {
  await point.pass();
  return undefined;
}

/** Filters what goes over a wire, if there is one. */
export function filterOn(wire: Target['qmp'], filter: Parameters<Wire['filter']>[0]): Disposable {
  return wire?.filter(filter) ?? { [Symbol.dispose]: always };
}
