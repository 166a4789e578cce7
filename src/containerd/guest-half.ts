import { guestMountPoint, planContainer } from '../guest/containers/plan.ts';
import type { GuestContainers } from '../guest/containers/types.ts';
import type { Pod } from './pod.ts';
import type { Planner } from './task-create.ts';

/** The containers in a pod's guest. @throws ShimError NOT_FOUND / SANDBOX_NOT_FOUND while the pod has no VM */
export function containersOf(pod: Pod): GuestContainers {
  return pod.containers;
}

export const planner: Planner = { planContainer, guestMountPoint };
