import { readFile, rename } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Coalesced } from '../base/coalesce.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { reasonRead } from '../base/reasons.ts';
import { HOST_CIPHERS, HOST_HASHES, type EncryptionView } from '../device/encryption.ts';
import { SLOTS_PER_BRIDGE } from '../device/slots.ts';
import type { AioMode } from '../device/spec.ts';
import type { Cause, VolumeState } from '../device/state.ts';
import { containersSchema, type ContainersRecord } from '../guest/containers/records.ts';
import type { RunningAccelerator } from '../qemu/argv.ts';
import type { ProcessIdentity } from '../qemu/process.ts';
import type { Timing } from './events.ts';
import type { ImageCreation } from './image-undo.ts';
import type { PortRecord } from './ports.ts';
import type { SandboxSpec, SandboxState, StartKind } from './spec.ts';
import type { StateTimes, VolumeIdentity } from './volume.ts';

/**
 * The durable intent of one sandbox: `state.json` in its state directory. Written to a temporary file, fsynced, renamed,
 * directory fsynced: a reader finds the old record or the new one, never half of one.
 *
 * INVARIANT: whoever is about to change QEMU awaits `commit()` first, so that a daemon that comes back knows of it.
 * Commits that come while one is being written share the next one: a batch of attaches costs two writes, not twenty.
 */
export class Journal {
  readonly #path: string;
  readonly #render: () => JournalRecord;
  readonly #writes = new Coalesced(() => this.#write());

  /** @param render gives the whole record as it is now; called once for each write */
  constructor(path: string, render: () => JournalRecord) {
    this.#path = path;
    this.#render = render;
  }

  /**
   * Resolves once a record that was rendered after this call is on disk.
   * @throws ShimError UNAVAILABLE / JOURNAL_WRITE_FAILED (disk full, read-only): then QEMU must not be changed
   */
  commit(): Promise<void> {
    return this.#writes.run();
  }

  async #write(): Promise<void> {
    try {
      await writeAtomically(this.#path, JSON.stringify(this.#render(), withoutGaps));
    } catch (error) {
      throw new ShimError('UNAVAILABLE', `cannot write the journal ${this.#path}: ${messageOf(error)}`, {
        reason: 'JOURNAL_WRITE_FAILED',
        metadata: { path: this.#path, errno: errnoOf(error) ?? '' },
        cause: error,
      });
    }
  }
}

/** A volume as the journal keeps it. */
export interface JournalVolume extends Omit<VolumeIdentity, 'sandboxId'> {
  readonly state: VolumeState;
  readonly times: StateTimes;
  readonly aio: AioMode | undefined;
  readonly mounted: boolean;
  readonly encryption: EncryptionView | undefined;
  readonly creating: ImageCreation | undefined;
}

/** A sandbox as the journal keeps it. */
export interface JournalSandbox {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly uuid: string;
  readonly createdAtMs: number;
  readonly accelerator: RunningAccelerator;
  readonly acceleratorReason: string;
  readonly state: SandboxState;
  readonly cause: Cause | undefined;
  readonly process: ProcessIdentity | undefined;
  readonly nextGeneration: number;
  readonly timings: readonly Timing[];
  readonly start: StartKind;
}

export interface JournalRecord {
  readonly version: 1;
  readonly sandbox: JournalSandbox;
  readonly volumes: readonly JournalVolume[];
  readonly ports: readonly PortRecord[];
  readonly containers: ContainersRecord;
}

/** Of a sandbox that has none, and of a journal from before there were any. */
export const NO_CONTAINERS: ContainersRecord = { eventsPort: 0, processes: [] };

/**
 * JSON has no undefined: it is written as null and read back as undefined, so that the member is there either way. A spec
 * that came back without its `mount` would no longer be deeply equal to the same request.
 */
function withoutGaps(_key: string, value: unknown): unknown {
  return value === undefined ? null : value;
}

function optional<T extends z.ZodType>(schema: T): z.ZodType<z.output<T> | undefined> {
  return z.preprocess((value) => value ?? undefined, schema.optional());
}

const causeSchema = z.strictObject({ reason: z.string().transform(reasonRead), message: z.string() });
const slotSchema = z.strictObject({
  bridge: z.strictObject({ id: z.string(), address: z.int() }),
  device: z.int().min(1).max(SLOTS_PER_BRIDGE),
});
const guestSchema = z.strictObject({
  pciAddress: optional(z.string()),
  device: optional(z.string()),
  evidence: z.array(z.string()),
  formatted: z.boolean(),
});
const stateSchema = z.union([
  z.strictObject({ state: z.literal('pending'), phase: z.literal('attaching'), slot: slotSchema }),
  z.strictObject({ state: z.literal('pending'), phase: z.literal('undoing'), slot: slotSchema, cause: causeSchema }),
  z.strictObject({
    state: z.literal('attached'),
    slot: slotSchema,
    guest: guestSchema,
    refused: optional(causeSchema),
  }),
  z.strictObject({
    state: z.literal('detaching'),
    slot: slotSchema,
    guest: guestSchema,
    force: z.boolean(),
    deviceGone: z.boolean(),
    cause: causeSchema,
  }),
  z.strictObject({ state: z.literal('removed'), cause: causeSchema }),
]);
const errorPolicy = z.enum(['report', 'ignore', 'stop', 'enospc']);
const keyReferenceSchema = z.union([
  z.strictObject({ kind: z.enum(['file', 'tang']), path: z.string() }),
  z.strictObject({ kind: z.enum(['systemd-credential', 'environment', 'command']), name: z.string() }),
]);
const encryptionSchema = z.union([
  z.strictObject({
    kind: z.literal('host-luks'),
    key: optional(keyReferenceSchema),
    format: z.enum(['never', 'if_empty']),
    sizeBytes: z.int(),
    cipher: z.enum(HOST_CIPHERS),
    hash: z.enum(HOST_HASHES),
    iterationMs: z.int(),
    uuid: z.string(),
  }),
  z.strictObject({
    kind: z.literal('guest-luks2'),
    key: z.union([
      z.strictObject({ kind: z.literal('ephemeral') }),
      z.strictObject({ kind: z.literal('provided'), reference: keyReferenceSchema }),
    ]),
    mode: z.enum(['create', 'open', 'open_or_create_if_empty']),
    integrity: z.boolean(),
    sectorSize: z.union([z.literal(512), z.literal(4096)]),
    uuid: z.string(),
  }),
]);
const encryptionViewSchema = z.strictObject({
  format: z.enum(['luks1', 'luks2']),
  cipher: z.string(),
  sectorSize: z.int(),
  integrity: z.boolean(),
  keySlots: z.int(),
  uuid: z.string(),
  created: z.boolean(),
  mappedDevice: z.string(),
});
const specSchema = z.strictObject({
  writeErrors: errorPolicy.default('enospc'),
  readErrors: errorPolicy.default('report'),
  source: z.strictObject({ kind: z.enum(['raw-file', 'qcow2-file', 'block-device']), path: z.string() }),
  readOnly: z.boolean(),
  cache: z.enum(['none', 'writeback', 'writethrough', 'directsync', 'unsafe']),
  aio: z.enum(['auto', 'threads', 'native', 'io_uring']),
  discard: z.enum(['ignore', 'unmap']),
  detectZeroes: z.enum(['off', 'on', 'unmap']),
  serial: z.string(),
  queues: z.int(),
  logicalBlockSize: z.int(),
  physicalBlockSize: z.int(),
  encryption: optional(encryptionSchema),
  mount: optional(
    z.strictObject({
      fsType: z.enum(['ext4', 'xfs']),
      mountPoint: z.string(),
      options: z.array(z.string()),
      format: z.enum(['never', 'if_empty']),
    }),
  ),
});
const placementSchema = z.strictObject({ vectors: z.int(), iothreads: z.array(z.string()) });
const volumeSchema = z.strictObject({
  volumeId: z.string(),
  generation: z.int(),
  spec: specSchema,
  slot: slotSchema,
  placement: placementSchema.default({ vectors: 2, iothreads: [] }),
  backingIdentity: z.string(),
  resolvedPath: z.string(),
  sizeBytes: z.int(),
  state: stateSchema,
  times: z.strictObject({
    pending: z.number(),
    attached: optional(z.number()),
    detaching: optional(z.number()),
    removed: optional(z.number()),
  }),
  aio: optional(z.enum(['threads', 'native', 'io_uring'])),
  mounted: z.boolean(),
  encryption: optional(encryptionViewSchema),
  creating: optional(z.strictObject({ sourceBytes: z.int() })),
});
const sandboxSchema = z.strictObject({
  id: z.string(),
  spec: z.strictObject({
    vcpus: z.int(),
    memoryMib: z.int(),
    kernel: z.string(),
    initrd: z.string(),
    kernelParameters: z.string(),
    accelerator: z.enum(['auto', 'kvm', 'tcg']),
    volumeCapacity: z.int(),
    iothreads: z.int().default(0),
    labels: z.record(z.string(), z.string()),
    readyWhen: z.enum(['agent', 'started']),
    template: z.enum(['auto', 'off', 'required']).default('auto'),
  }),
  uuid: z.string(),
  createdAtMs: z.number(),
  accelerator: z.enum(['kvm', 'tcg']),
  acceleratorReason: z.string(),
  state: z.enum(['creating', 'running', 'stopping', 'stopped']),
  cause: optional(causeSchema),
  process: optional(z.strictObject({ pid: z.int(), startTicks: z.number() })),
  nextGeneration: z.int(),
  timings: z.array(z.strictObject({ phase: z.string(), milliseconds: z.number() })),
  start: z
    .strictObject({ kind: z.enum(['cold', 'clone', 'pool']), templateId: z.string(), reason: z.string() })
    .default({ kind: 'cold', templateId: '', reason: '' }),
});
const journalSchema: z.ZodType<JournalRecord> = z.strictObject({
  version: z.literal(1),
  sandbox: sandboxSchema,
  volumes: z.array(volumeSchema),
  ports: z
    .array(z.strictObject({ nr: z.int(), kind: z.enum(['output', 'input', 'duplex']), ended: z.boolean() }))
    .default([]),
  containers: containersSchema.default(NO_CONTAINERS),
});

/** In the name of a journal that could not be understood and was set aside. */
export const CORRUPT_MARK = '.corrupt-';

/**
 * Reads a sandbox's journal. A file that cannot be understood is set aside as `state.json.corrupt-TIME`, named in the
 * log, and undefined is the answer.
 */
export async function readJournal(path: string, log: Logger): Promise<JournalRecord | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return journalSchema.parse(JSON.parse(text));
  } catch (error) {
    const aside = join(dirname(path), `${basename(path)}${CORRUPT_MARK}${Date.now()}`);
    await rename(path, aside);
    log.error({ path, aside, problem: messageOf(error).slice(0, 500) }, 'journal set aside as unreadable');
    return undefined;
  }
}
