import { ShimError, isShimError } from '../base/errors.ts';

/** What ends a request to the guest agent other than its reply. */

export function lostError(command: string, how: string, cause?: unknown): ShimError {
  return new ShimError('UNAVAILABLE', `the guest agent is gone for ${command}: ${how}`, {
    reason: 'GUEST_AGENT_LOST',
    metadata: { command },
    cause,
  });
}

export function garbageError(command: string): ShimError {
  return new ShimError('UNAVAILABLE', `the guest agent answered ${command} with something that is no reply`, {
    reason: 'GUEST_AGENT_GARBAGE',
    metadata: { command },
  });
}

export function tooLargeError(command: string, lineBytesMax: number): ShimError {
  return new ShimError(
    'RESOURCE_EXHAUSTED',
    `the guest agent's reply to ${command} is longer than ${lineBytesMax} bytes`,
    {
      reason: 'GUEST_AGENT_REPLY_TOO_LARGE',
      metadata: { command, lineBytesMax: String(lineBytesMax) },
    },
  );
}

export function queueFullError(queueMax: number): ShimError {
  return new ShimError('RESOURCE_EXHAUSTED', `${queueMax} requests wait for the guest agent already`, {
    reason: 'AGENT_QUEUE_FULL',
    metadata: { max: String(queueMax) },
  });
}

/** Whether a request that failed so has never left this process: the guest has done nothing of it. */
export function wasNeverSent(error: unknown): boolean {
  return isShimError(error) && (error.reason === 'AGENT_QUEUE_FULL' || error.metadata['sent'] === 'false');
}

export function closedError(): ShimError {
  return new ShimError('UNAVAILABLE', 'the guest agent client is closed', { reason: 'GUEST_AGENT_CLOSED' });
}
