import assert from 'node:assert/strict';
import { basename, join } from 'node:path';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';
import { REASONS, isReason, type ReasonRow } from '../../src/base/reasons.ts';
import type { ErrorInfo__Output } from '../../src/grpc/generated/google/rpc/ErrorInfo.ts';
import type { Status__Output } from '../../src/grpc/generated/google/rpc/Status.ts';
import { loadStatusDefinition } from '../../src/grpc/schema.ts';
import type { TestDaemon } from './daemon.ts';
import { openFiles, qemuInventory, type QemuInventory } from './leaks.ts';
import { until } from './until.ts';

/** An error as a caller gets it, decoded from the trailers. */
export interface Refusal {
  /** gRPC status by name. */
  readonly code: string;
  readonly message: string;
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
}

const DETAILS_KEY = 'grpc-status-details-bin';
const SETTLE_MAX_MS = 30_000;
const ERROR_INFO_URL = 'type.googleapis.com/google.rpc.ErrorInfo';
const definitions = loadStatusDefinition();

/** A message type; the loader's own type does not say which one it is, the name does. */
function messageType(name: string): MessageTypeDefinition<object, object> {
  const definition = definitions[name];
  assert.ok(definition !== undefined && 'deserialize' in definition, `no message type ${name}`);
  return definition as MessageTypeDefinition<object, object>;
}

const statusType = messageType('google.rpc.Status');
const errorInfoType = messageType('google.rpc.ErrorInfo');

/** True for what grpc-js rejects a call with. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}

/**
 * Decodes an error of the daemon and holds it against the rules that are the same for all: the rules in docs/api.md,
 * and docs/errors.md.
 */
export function decodeRefusal(error: unknown): Refusal {
  assert.ok(isServiceError(error) && error.metadata instanceof Metadata, `not a gRPC error: ${String(error)}`);
  const [details, ...more] = error.metadata.get(DETAILS_KEY);
  assert.ok(Buffer.isBuffer(details) && more.length === 0, `${DETAILS_KEY} must be there once: ${error.details}`);
  const decoded = statusType.deserialize(details) as Status__Output;
  assert.equal(decoded.code, error.code, 'the status in the details is the status of the call');
  assert.equal(decoded.message, error.details, 'the message in the details is the message of the call');
  assert.equal(decoded.details.length, 1);
  const [any] = decoded.details;
  assert.equal(any?.type_url, ERROR_INFO_URL);
  const info = errorInfoType.deserialize(Buffer.from(any.value)) as ErrorInfo__Output;
  assert.equal(info.domain, 'qshim');
  assert.ok(isReason(info.reason), `${info.reason} is in no table`);
  const { statuses, where }: ReasonRow = REASONS[info.reason];
  assert.ok(where.includes('api'), `${info.reason} is not for callers: ${error.details}`);
  assert.ok(
    statuses.some((name) => status[name] === error.code),
    `${info.reason} came with ${status[error.code]}`,
  );
  // One sentence: no line breaks, no full stop that ends one sentence and begins another.
  assert.match(error.details, /^\S[^\n\r]*[^\s.]$/);
  assert.doesNotMatch(error.details, /[a-z]{2}\. [A-Z]/);
  return { code: status[error.code], message: error.details, reason: info.reason, metadata: info.metadata };
}

/** The error of a call that must be refused. */
export async function refusal(work: Promise<unknown>): Promise<Refusal> {
  let answer: unknown;
  try {
    answer = await work;
  } catch (error) {
    return decodeRefusal(error);
  }
  assert.fail(`the call was not refused but answered ${JSON.stringify(answer)}`);
}

/** What a row of a table expects. */
export interface ExpectedRefusal {
  readonly code: string;
  readonly reason: string;
  /** Field that metadata and message name, with the value that they show for it. */
  readonly field?: string;
  readonly value?: string;
}

/** Holds a refusal against a row: status, reason, and that message and metadata name field and value. */
export function assertRefusal(seen: Refusal, expected: ExpectedRefusal): void {
  assert.deepEqual(
    { code: seen.code, reason: seen.reason },
    { code: expected.code, reason: expected.reason },
    seen.message,
  );
  const { field, value } = expected;
  if (field !== undefined) {
    assert.equal(seen.metadata['field'], field, seen.message);
    assert.ok(seen.message.includes(field), `the message must name ${field}: ${seen.message}`);
  }
  if (value !== undefined) {
    assert.equal(seen.metadata['value'], value, seen.message);
    const shown = JSON.stringify(value).slice(1, -1);
    assert.ok(seen.message.includes(shown), `the message must name the value ${shown}: ${seen.message}`);
  }
}

/** All that a refusal must leave as it was. */
export interface WorldState {
  readonly sandboxes: unknown;
  readonly volumes: unknown;
  readonly directories: readonly string[];
  readonly daemonFiles: readonly string[];
  readonly qemus: Readonly<Record<string, QemuInventory>>;
}

/**
 * The daemon by its own lists, its files and descriptors, and each QEMU by QEMU's own lists and descriptors. Taken when
 * the daemon is not writing a journal, which it may still do right after an answer; a journal that stays open is a
 * failure.
 */
export async function worldState(daemon: TestDaemon): Promise<WorldState> {
  return await until(
    'the daemon keeps no file of its state open',
    async () => {
      const world = await look(daemon);
      const lock = join(daemon.stateDir, 'lock.sock');
      return !world.daemonFiles.some((path) => path.startsWith(`${daemon.stateDir}/`) && path !== lock) && world;
    },
    SETTLE_MAX_MS,
  );
}

async function look(daemon: TestDaemon): Promise<WorldState> {
  const sandboxes = await daemon.client.listSandboxes();
  const qemus: Record<string, QemuInventory> = {};
  for (const { sandboxId, stateDir, qemuPid } of sandboxes) {
    if (qemuPid !== 0) qemus[sandboxId] = await qemuInventory(stateDir, qemuPid);
  }
  return {
    sandboxes,
    volumes: await daemon.client.listVolumes(),
    directories: await daemon.leftInState(),
    // Each call has its line in the audit log, a refused one too; it may be written after the answer.
    daemonFiles: (await openFiles(daemon.child.pid ?? 0)).filter((path) => basename(path) !== '.audit.jsonl'),
    qemus,
  };
}

/** The refusal that `act` meets, after which daemon and QEMU must be exactly as they were. */
export async function refusedWithoutTrace(daemon: TestDaemon, act: () => Promise<unknown>): Promise<Refusal> {
  const before = await worldState(daemon);
  const seen = await refusal(act());
  assert.deepEqual(await worldState(daemon), before, `a refusal (${seen.message}) must change nothing`);
  return seen;
}

/** As WorldState, without the volumes that are REMOVED: a failed attach stays in the list as history. */
export function withoutHistory(world: WorldState): WorldState {
  const volumes = world.volumes as readonly { readonly state: string }[];
  return { ...world, volumes: volumes.filter(({ state }) => state !== 'VOLUME_STATE_REMOVED') };
}
