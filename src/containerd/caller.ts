import { waitFor } from '../base/deadline.ts';

/** Who calls one of containerd's services. */
export interface Caller {
  /** containerd's namespace: `k8s.io` for CRI. */
  readonly namespace: string;
  /** Aborted when the caller gave up. */
  readonly signal: AbortSignal;
  /**
   * Aborted when the daemon ends: held calls (Wait) are then answered UNAVAILABLE, and asked again of the next daemon.
   */
  readonly leaving: AbortSignal;
}

/** Waits for what may take as long as a container runs: ends with the caller, or with the daemon. */
export function untilGone<T>(work: Promise<T>, { signal, leaving }: Caller): Promise<T> {
  return waitFor(work, { signal: AbortSignal.any([signal, leaving]) });
}
