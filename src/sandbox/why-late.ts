import { ShimError, isShimError } from '../base/errors.ts';
import type { Sandbox } from './sandbox.ts';

/**
 * What a caller's time ran out for: a guest that holds on is not a QEMU that hangs, which may hold on for ever. An
 * operation that has the volume is named first: it may itself be what QEMU is at. A refusal is the end: the volume is
 * ATTACHED again, and nothing goes on.
 *
 * @param timeoutMs the caller's time
 * @returns the error, or ShimError DEADLINE_EXCEEDED / QEMU_UNRESPONSIVE in its place
 */
export function whyLate(
  { id, unresponsive, link }: Pick<Sandbox, 'id' | 'unresponsive'> & { readonly link: Pick<Sandbox['link'], 'owedMs'> },
  error: unknown,
  timeoutMs: number,
): unknown {
  if (!isShimError(error, 'DEADLINE_EXCEEDED')) return error;
  if (error.reason === 'OPERATION_IN_PROGRESS' || error.reason === 'GUEST_NOT_ASKED') return error;
  const { owedMs } = link;
  if (!unresponsive && owedMs < timeoutMs / 2) return error;
  const since = owedMs === 0 ? '' : ` for ${Math.round(owedMs)} ms`;
  return new ShimError(
    'DEADLINE_EXCEEDED',
    `the QEMU of sandbox ${id} has not answered its monitor${since}, and qshim goes on: ${error.message}`,
    { reason: 'QEMU_UNRESPONSIVE', metadata: { ...error.metadata, sandboxId: id }, cause: error },
  );
}
