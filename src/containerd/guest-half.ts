import { ShimError } from '../base/errors.ts';
import type { GuestContainers } from '../guest/containers/types.ts';
import type { Planner } from './task-create.ts';

/** Containers in the guest, as far as this version has them: pods run, containers in them are refused in words. */

function notYet(): never {
  throw new ShimError('UNIMPLEMENTED', 'this version runs pods, but no containers in them yet', {
    reason: 'GUEST_TOOL_MISSING',
  });
}

export function containersOf(): GuestContainers {
  return notYet();
}

export const planner: Planner = { planContainer: notYet, guestMountPoint: notYet };
