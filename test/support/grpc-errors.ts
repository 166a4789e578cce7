import type { ServiceError } from '@grpc/grpc-js';

/** What a settled call came to: its value, or the gRPC status name and message. */
export type Outcome<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: ServiceError };

export async function outcome<T>(work: Promise<T>): Promise<Outcome<T>> {
  try {
    return { ok: true, value: await work };
  } catch (error) {
    if (error instanceof Error && 'code' in error && 'details' in error)
      return { ok: false, error: error as ServiceError };
    throw error;
  }
}
