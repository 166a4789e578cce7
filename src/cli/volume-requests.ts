/** From the options of `qshim volume ...` to the messages of qshim.v1. Pure. */
import type { AttachVolumeRequest } from '../rpc/generated/qshim/v1/AttachVolumeRequest.ts';
import type { Mount } from '../rpc/generated/qshim/v1/Mount.ts';
import type { VolumeSpec } from '../rpc/generated/qshim/v1/VolumeSpec.ts';
import { usageFailure } from './cli-failure.ts';
import { absolutePath, present } from './options.ts';

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

export const FS_TYPES = ['ext4', 'xfs'] as const;

export interface AttachOptions {
  readonly raw?: string | undefined;
  readonly qcow2?: string | undefined;
  readonly block?: string | undefined;
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
  readonly timeout?: number | undefined;
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
    ...sourceOf(options, cwd),
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
    }),
  };
  return { sandboxId, volumeId, spec, ...present({ timeoutMs: options.timeout }) };
}

function sourceOf({ raw, qcow2, block }: AttachOptions, cwd: string): VolumeSpec {
  if ([raw, qcow2, block].filter((path) => path !== undefined).length !== 1) {
    throw usageFailure('give exactly one of --raw PATH, --qcow2 PATH and --block PATH');
  }
  if (raw !== undefined) return { rawFile: { path: absolutePath(cwd, raw) } };
  if (qcow2 !== undefined) return { qcow2File: { path: absolutePath(cwd, qcow2) } };
  return { blockDevice: { path: absolutePath(cwd, block ?? '') } };
}

function mountOf({ mount, fsType, mountOptions, format }: AttachOptions): Mount | undefined {
  if (mount === undefined) {
    if (fsType !== undefined || mountOptions !== undefined || format !== undefined) {
      throw usageFailure('--fs-type, --mount-options and --format say how to mount: give --mount POINT as well');
    }
    return undefined;
  }
  // The mount point is a path in the guest, so this host's working directory has no say in it.
  return {
    mountPoint: mount,
    fsType: fsType ?? 'ext4',
    options: [...(mountOptions ?? [])],
    ...present({ format: format === undefined ? undefined : FORMATS[format] }),
  };
}
