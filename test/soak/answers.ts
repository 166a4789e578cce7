import { status, type CallOptions } from '@grpc/grpc-js';
import { call, type ApiClient } from '../support/daemon.ts';
import { decodeRefusal, isServiceError } from '../support/errors.ts';
import type { AttachVolumeRequest } from '../../src/grpc/generated/qshim/v1/AttachVolumeRequest.ts';
import type { CreateSandboxRequest } from '../../src/grpc/generated/qshim/v1/CreateSandboxRequest.ts';
import type { DetachVolumeRequest } from '../../src/grpc/generated/qshim/v1/DetachVolumeRequest.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';

/** No call of the harness waits longer than this, whatever becomes of the daemon. */
const CALL_TIMEOUT_MS = 150_000;

/**
 * How a call ended, as far as a caller can tell. `refused`: the daemon decided against it. `unknown`: nobody heard the
 * end (the caller gave up, the daemon went away or was told to end), so that either outcome is right.
 */
export type Answer<T> =
  | { readonly kind: 'ok'; readonly value: T; readonly milliseconds: number }
  | { readonly kind: 'refused' | 'unknown'; readonly code: string; readonly reason: string; readonly message: string };

const UNKNOWN: ReadonlySet<string> = new Set(['CANCELLED', 'DEADLINE_EXCEEDED', 'UNAVAILABLE']);

export async function answerOf<T>(work: Promise<T>): Promise<Answer<T>> {
  const started = performance.now();
  try {
    return { kind: 'ok', value: await work, milliseconds: performance.now() - started };
  } catch (error) {
    if (!isServiceError(error)) throw error;
    const code = status[error.code];
    return { kind: UNKNOWN.has(code) ? 'unknown' : 'refused', code, reason: reasonOf(error), message: error.details };
  }
}

/**
 * The daemon's reason; empty for what the gRPC library itself says (the connection broke, the caller's time was up).
 */
function reasonOf(error: unknown): string {
  try {
    return decodeRefusal(error).reason;
  } catch {
    return '';
  }
}

function within(milliseconds: number | undefined): CallOptions {
  return { deadline: Date.now() + (milliseconds ?? CALL_TIMEOUT_MS) };
}

/** @param patienceMs when the caller gives up; undefined: not before the end of everybody's patience */
export function attach(
  client: ApiClient,
  request: AttachVolumeRequest,
  patienceMs?: number,
): Promise<Answer<Volume__Output>> {
  return answerOf(call((done) => client.volumes.attach(request, within(patienceMs), done)));
}

export function detach(
  client: ApiClient,
  request: DetachVolumeRequest,
  patienceMs?: number,
): Promise<Answer<Volume__Output>> {
  return answerOf(call((done) => client.volumes.detach(request, within(patienceMs), done)));
}

export function create(client: ApiClient, request: CreateSandboxRequest): Promise<Answer<Sandbox__Output>> {
  return answerOf(call((done) => client.sandboxes.create(request, within(undefined), done)));
}

/** For people. */
export function tell(answer: Answer<unknown>): string {
  return answer.kind === 'ok' ? 'OK' : `${answer.code} ${answer.reason}: ${answer.message}`;
}
