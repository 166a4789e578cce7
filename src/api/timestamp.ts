import type { Timestamp } from '../grpc/generated/google/protobuf/Timestamp.ts';

/** Wall-clock milliseconds as a message. */
export function timestamp(milliseconds: number | undefined): Timestamp | null {
  if (milliseconds === undefined) return null;
  return { seconds: Math.floor(milliseconds / 1000), nanos: Math.round((milliseconds % 1000) * 1e6) };
}
