import { isDirect, type DiskSpec } from './disk.ts';

/** What every block node of a volume is told, spelled out. */
export function commonNode(disk: DiskSpec): {
  readonly 'read-only': boolean;
  readonly 'auto-read-only': false;
  readonly discard: 'ignore' | 'unmap';
  readonly cache: { readonly direct: boolean; readonly 'no-flush': boolean };
} {
  return {
    'read-only': disk.readOnly,
    // Never let QEMU weaken a writable volume to read-only behind the caller's back.
    'auto-read-only': false,
    discard: disk.discard,
    cache: { direct: isDirect(disk.cache), 'no-flush': disk.cache === 'unsafe' },
  };
}
