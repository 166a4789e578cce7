/** From the options of `qshim volume ...` to the messages of qshim.v1. Pure. */
import { InvalidArgumentError } from '@commander-js/extra-typings';
import type { AttachVolumeRequest } from '../grpc/generated/qshim/v1/AttachVolumeRequest.ts';
import type { Encryption } from '../grpc/generated/qshim/v1/Encryption.ts';
import type { KeyReference } from '../grpc/generated/qshim/v1/KeyReference.ts';
import type { ListVolumesRequest } from '../grpc/generated/qshim/v1/ListVolumesRequest.ts';
import type { Mount } from '../grpc/generated/qshim/v1/Mount.ts';
import { usageFailure } from './cli-failure.ts';
import { limitsOf, type LimitOptions } from './limit-options.ts';
import type { LeaseFields } from './leases.ts';
import { absolutePath, keysOf, present } from './options.ts';
import { sourceOf } from './source-options.ts';

export const CACHE_MODES = {
  none: 'CACHE_MODE_NONE',
  writeback: 'CACHE_MODE_WRITEBACK',
  writethrough: 'CACHE_MODE_WRITETHROUGH',
  directsync: 'CACHE_MODE_DIRECTSYNC',
  unsafe: 'CACHE_MODE_UNSAFE',
} as const;

export const AIO_MODES = {
  auto: 'AIO_MODE_AUTO',
  threads: 'AIO_MODE_THREADS',
  native: 'AIO_MODE_NATIVE',
  io_uring: 'AIO_MODE_IO_URING',
} as const;

export const DISCARD_MODES = {
  unmap: 'DISCARD_MODE_UNMAP',
  ignore: 'DISCARD_MODE_IGNORE',
} as const;

export const DETECT_ZEROES = {
  off: 'DETECT_ZEROES_OFF',
  on: 'DETECT_ZEROES_ON',
  unmap: 'DETECT_ZEROES_UNMAP',
} as const;

export const WRITE_ERROR_POLICIES = {
  report: 'IO_ERROR_POLICY_REPORT',
  ignore: 'IO_ERROR_POLICY_IGNORE',
  stop: 'IO_ERROR_POLICY_STOP',
  'stop-on-enospc': 'IO_ERROR_POLICY_STOP_ON_ENOSPC',
} as const;

export const READ_ERROR_POLICIES = {
  report: 'IO_ERROR_POLICY_REPORT',
  ignore: 'IO_ERROR_POLICY_IGNORE',
  stop: 'IO_ERROR_POLICY_STOP',
} as const;

export const FORMATS = {
  never: 'FORMAT_NEVER',
  'if-empty': 'FORMAT_IF_EMPTY',
} as const;

export const FSCKS = {
  never: 'FSCK_NEVER',
  repair: 'FSCK_REPAIR',
  full: 'FSCK_FULL',
} as const;

export const ENCRYPTIONS = ['host-luks', 'guest-luks2'] as const;

const LUKS_MODES = {
  never: 'LUKS_MODE_OPEN',
  'if-empty': 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY',
  only: 'LUKS_MODE_CREATE',
} as const;
export const LUKS_CREATES = ['never', 'if-empty', 'only'] as const satisfies readonly (keyof typeof LUKS_MODES)[];

export const FS_TYPES = ['ext4', 'xfs'] as const;

export const VOLUME_STATES = {
  pending: 'VOLUME_STATE_PENDING',
  attached: 'VOLUME_STATE_ATTACHED',
  detaching: 'VOLUME_STATE_DETACHING',
  removed: 'VOLUME_STATE_REMOVED',
} as const;
type StateWord = keyof typeof VOLUME_STATES;

/** Collects a repeated --state. */
export function collectState(text: string, previous: readonly StateWord[] = []): StateWord[] {
  const state = keysOf(VOLUME_STATES).find((word) => word === text);
  if (state === undefined) throw new InvalidArgumentError(`Give one of ${keysOf(VOLUME_STATES).join(', ')}.`);
  return [...previous, state];
}

/** Without --state and --all: every state but removed. */
export function listRequest(
  sandboxId: string | undefined,
  options: { readonly state?: readonly StateWord[] | undefined; readonly all?: true | undefined },
): ListVolumesRequest {
  const { state = keysOf(VOLUME_STATES).filter((word) => word !== 'removed'), all } = options;
  const states = all === true ? [] : state.map((word) => VOLUME_STATES[word]);
  return { ...present({ sandboxId }), states };
}

export interface AttachOptions {
  /** By the names of the sources' options; others are passed over. */
  readonly sources: Readonly<Record<string, unknown>>;
  readonly limits?: LimitOptions;
  readonly readOnly?: true | undefined;
  readonly cache?: keyof typeof CACHE_MODES | undefined;
  readonly aio?: keyof typeof AIO_MODES | undefined;
  readonly discard?: keyof typeof DISCARD_MODES | undefined;
  readonly detectZeroes?: keyof typeof DETECT_ZEROES | undefined;
  readonly writeErrors?: keyof typeof WRITE_ERROR_POLICIES | undefined;
  readonly readErrors?: keyof typeof READ_ERROR_POLICIES | undefined;
  readonly serial?: string | undefined;
  readonly queues?: number | undefined;
  readonly logicalBlockSize?: number | undefined;
  readonly physicalBlockSize?: number | undefined;
  readonly mount?: string | undefined;
  readonly fsType?: (typeof FS_TYPES)[number] | undefined;
  readonly mountOptions?: readonly string[] | undefined;
  readonly format?: keyof typeof FORMATS | undefined;
  readonly partition?: number | undefined;
  readonly fsck?: keyof typeof FSCKS | undefined;
  readonly timeout?: number | undefined;
  readonly lease?: LeaseFields | undefined;
  readonly encrypt?: (typeof ENCRYPTIONS)[number] | undefined;
  readonly key?: string | undefined;
  readonly luksCreate?: keyof typeof LUKS_MODES | undefined;
  readonly integrity?: true | undefined;
  readonly luksSectorSize?: number | undefined;
  readonly luksSize?: number | undefined;
  readonly luksCipher?: string | undefined;
  readonly luksHash?: string | undefined;
  readonly luksIterationMs?: number | undefined;
  readonly luksUuid?: string | undefined;
}

/** @throws CliFailure of usage when no source is given, or an option of --mount without it. */
export function attachRequest(
  sandboxId: string,
  volumeId: string,
  options: AttachOptions,
  cwd: string,
): AttachVolumeRequest {
  const { cache, aio, discard, detectZeroes, writeErrors, readErrors } = options;
  const spec = {
    ...sourceOf(options.sources, cwd),
    ...present({
      readOnly: options.readOnly,
      cache: cache === undefined ? undefined : CACHE_MODES[cache],
      aio: aio === undefined ? undefined : AIO_MODES[aio],
      discard: discard === undefined ? undefined : DISCARD_MODES[discard],
      detectZeroes: detectZeroes === undefined ? undefined : DETECT_ZEROES[detectZeroes],
      writeErrors: writeErrors === undefined ? undefined : WRITE_ERROR_POLICIES[writeErrors],
      readErrors: readErrors === undefined ? undefined : READ_ERROR_POLICIES[readErrors],
      serial: options.serial,
      queues: options.queues,
      logicalBlockSize: options.logicalBlockSize,
      physicalBlockSize: options.physicalBlockSize,
      mount: mountOf(options),
      encryption: encryptionOf(options, cwd),
      limits: limitsOf(options.limits ?? {}),
    }),
  };
  return { sandboxId, volumeId, spec, ...options.lease, ...present({ timeoutMs: options.timeout }) };
}

const KEY_KINDS = {
  file: 'file',
  tang: 'tang',
  credential: 'systemdCredential',
  env: 'environment',
  command: 'command',
} as const;

/**
 * `file:/etc/keys/a`, `credential:NAME`, `env:NAME`, `command:NAME`, `tang:/etc/keys/a.jwe`.
 * @throws CliFailure of usage
 */
export function keyReferenceOf(text: string, cwd: string): KeyReference {
  const colon = text.indexOf(':');
  const word = text.slice(0, colon);
  const rest = text.slice(colon + 1);
  if (colon <= 0 || !Object.hasOwn(KEY_KINDS, word) || rest === '') {
    throw usageFailure(
      '--key names a source: file:PATH, credential:NAME, env:NAME, command:NAME or tang:PATH; never the key itself',
    );
  }
  const kind = KEY_KINDS[word as keyof typeof KEY_KINDS];
  return { [kind]: kind === 'file' || kind === 'tang' ? absolutePath(cwd, rest) : rest };
}

function encryptionOf(options: AttachOptions, cwd: string): Encryption | undefined {
  const { encrypt, key, luksCreate, integrity, luksSectorSize, luksSize, luksCipher, luksHash, luksUuid } = options;
  const { luksIterationMs } = options;
  const ofGuest = { integrity, sectorSize: luksSectorSize };
  const ofHost = { sizeBytes: luksSize, cipher: luksCipher, hash: luksHash, iterationMs: luksIterationMs };
  const given = (values: object): boolean => Object.values(values).some((value) => value !== undefined);
  if (encrypt === undefined) {
    if (given({ key, luksCreate, luksUuid, ...ofGuest, ...ofHost })) {
      throw usageFailure('--key, --integrity and --luks-... say how to encrypt: give --encrypt KIND as well');
    }
    return undefined;
  }
  if (key === undefined) throw usageFailure('--encrypt needs --key SOURCE');
  if (encrypt === 'host-luks') {
    if (given(ofGuest)) throw usageFailure('--integrity and --luks-sector-size are for guest-luks2');
    if (key === 'ephemeral') throw usageFailure('an ephemeral key is made in the guest: it needs guest-luks2');
    if (luksCreate === 'only') throw usageFailure('--luks-create only is for guest-luks2');
    const format = luksCreate === 'if-empty' ? FORMATS['if-empty'] : undefined;
    return { hostLuks: { key: keyReferenceOf(key, cwd), ...present({ format, uuid: luksUuid, ...ofHost }) } };
  }
  if (given(ofHost)) throw usageFailure('--luks-size, -cipher, -hash and -iteration-ms are for host-luks');
  const mode = luksCreate === undefined ? undefined : LUKS_MODES[luksCreate];
  const from = key === 'ephemeral' ? { ephemeralKey: {} } : { providedKey: keyReferenceOf(key, cwd) };
  return { guestLuks2: { ...from, ...present({ mode, uuid: luksUuid, ...ofGuest }) } };
}

function mountOf({ mount, fsType, mountOptions, format, partition, fsck }: AttachOptions): Mount | undefined {
  if (mount === undefined) {
    if ([fsType, mountOptions, format, partition, fsck].some((option) => option !== undefined)) {
      throw usageFailure(
        '--fs-type, --mount-options, --format, --partition and --fsck say how to mount: give --mount POINT as well',
      );
    }
    return undefined;
  }
  // The mount point is a path in the guest, so this host's working directory has no say in it.
  return {
    mountPoint: mount,
    fsType: fsType ?? 'ext4',
    options: [...(mountOptions ?? [])],
    ...present({
      format: format === undefined ? undefined : FORMATS[format],
      partition,
      fsck: fsck === undefined ? undefined : FSCKS[fsck],
    }),
  };
}
