import { subscribe } from 'node:diagnostics_channel';
import { TIMER_MS_MAX } from '../base/deadline.ts';

/** Published by node:http2 before the server's own listeners get the stream, with the headers that they will get. */
const STREAM_CREATED = 'http2.server.stream.created';
const TIMEOUT_HEADER = 'grpc-timeout';
/** Units of the header in milliseconds: "Timeout" in gRPC's PROTOCOL-HTTP2.md. */
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

let listening = false;

/**
 * Lets the gRPC servers of this process take calls whose deadline is further away than a timer reaches (24.8 days).
 * grpc-js counts a deadline in 32 bits and ends such a call at once. The header is taken away before it sees it: the
 * caller itself ends the call when its deadline has passed. Call it before a server listens; once is enough.
 */
export function allowLongDeadlines(): void {
  if (listening) return;
  listening = true;
  subscribe(STREAM_CREATED, (message) => {
    const { headers } = message as { readonly headers: Record<string, unknown> };
    const timeout = headers[TIMEOUT_HEADER];
    if (typeof timeout === 'string' && milliseconds(timeout) > TIMER_MS_MAX) {
      Reflect.deleteProperty(headers, TIMEOUT_HEADER);
    }
  });
}

/** Of a header's value, as grpc-js takes it; 0 when it is none, which grpc-js refuses itself. */
function milliseconds(timeout: string): number {
  const [, amount, unit = ''] = /(\d{1,8})\s*([HMSmun])/.exec(timeout) ?? [];
  return amount === undefined ? 0 : Number(amount) * (UNIT_MS[unit] ?? 0);
}
