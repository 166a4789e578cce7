import { z } from 'zod';
import { messageOf } from '../base/errors.ts';
import { qmpLost } from './errors.ts';
import type { QmpGreeting } from './protocol.ts';

/** One line from the server, told apart by its members (QEMU's docs/interop/qmp-spec). */
export type QmpMessage =
  | { readonly kind: 'greeting'; readonly greeting: QmpGreeting }
  | { readonly kind: 'event'; readonly event: string; readonly data: unknown; readonly timestampMs: number }
  | { readonly kind: 'return'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: unknown; readonly errorClass: string; readonly description: string }
  | { readonly kind: 'unknown'; readonly members: readonly string[] };

const greetingSchema = z.object({
  version: z.object({
    qemu: z.object({ major: z.int(), minor: z.int(), micro: z.int() }),
    package: z.string().default(''),
  }),
  capabilities: z.array(z.string()).default([]),
});

const eventSchema = z.object({
  event: z.string(),
  data: z.record(z.string(), z.unknown()).default({}),
  timestamp: z.object({ seconds: z.number(), microseconds: z.number() }),
});

const errorSchema = z.object({ class: z.string(), desc: z.string() });

/** Where an event's name ends at the latest, in a line as QEMU writes it. */
const HEAD_BYTES = 160;
const EVENT_HEAD = /^\{"timestamp": \{"seconds": -?\d{1,12}, "microseconds": -?\d{1,7}\}, "event": "([A-Z0-9_]{1,64})"/;

/**
 * The name of the event that a line tells, without parsing the line: QEMU writes an event's time and name first.
 * Undefined for everything that does not look so, events of others than QEMU among them: that has to be parsed.
 */
export function eventNameOf(line: Buffer): string | undefined {
  return EVENT_HEAD.exec(line.toString('latin1', 0, Math.min(line.length, HEAD_BYTES)))?.[1];
}

/**
 * Reads one line. Numbers past 2^53 lose digits, which no member that qshim reads can reach.
 * @throws ShimError UNAVAILABLE / QMP_LOST when the line is not a JSON object, or a greeting, event or error is
 *   malformed
 */
export function parseMessage(line: string): QmpMessage {
  const object = parseObject(line);
  if ('QMP' in object) {
    const { version, capabilities } = parsePart(greetingSchema, object['QMP'], 'greeting');
    return { kind: 'greeting', greeting: { version: version.qemu, package: version.package, capabilities } };
  }
  if ('event' in object) {
    const { event, data, timestamp } = parsePart(eventSchema, object, 'event');
    return { kind: 'event', event, data, timestampMs: timestamp.seconds * 1000 + timestamp.microseconds / 1000 };
  }
  if ('error' in object) {
    const error = parsePart(errorSchema, object['error'], 'error');
    return { kind: 'error', id: object['id'], errorClass: error.class, description: error.desc };
  }
  if ('return' in object) return { kind: 'return', id: object['id'], value: object['return'] };
  return { kind: 'unknown', members: Object.keys(object) };
}

function parseObject(line: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw qmpLost(`QMP sent a line of ${line.length} characters that is not JSON: ${messageOf(error)}`, error);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw qmpLost('QMP sent a line that is not a JSON object');
  }
  return { ...value };
}

function parsePart<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw qmpLost(`QMP sent a malformed ${what}`, result.error);
}
