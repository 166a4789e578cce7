import type { VolumeSpec } from '../../src/volume/spec.ts';

/** A plain raw file with every default filled in; tests change what they are about. */
export const BASE_SPEC: VolumeSpec = {
  source: { kind: 'raw-file', path: '/volumes/a.raw' },
  readOnly: false,
  cache: 'writeback',
  aio: 'auto',
  discard: 'unmap',
  detectZeroes: 'off',
  serial: 'a',
  queues: 1,
  logicalBlockSize: 512,
  physicalBlockSize: 512,
  mount: undefined,
  writeErrors: 'enospc',
  readErrors: 'report',
  encryption: undefined,
};
