import type { BlockDirtyInfo, BlockInfo, IoThrottle } from '../../qmp/protocol.ts';

/** What QEMU shows of a volume beside its counters. Pure. */
export interface VolumeDetails {
  /** The limits of its I/O as they are in force; undefined when there is none. */
  readonly throttle: IoThrottle | undefined;
  readonly bitmaps: readonly BlockDirtyInfo[];
  /** QEMU's word for how the last request went: ok, failed, nospace. Only of devices that pause the VM for it. */
  readonly ioStatus: string | undefined;
}

/** Reads one entry of query-block; undefined when no medium is in it. */
export function detailsFrom({ inserted, 'io-status': ioStatus }: BlockInfo): VolumeDetails | undefined {
  if (inserted === undefined) return undefined;
  return { throttle: throttleFrom(inserted), bitmaps: inserted['dirty-bitmaps'] ?? [], ioStatus };
}

/** QEMU shows zeroes where there is no limit, and a group only while there is one. */
function throttleFrom(shown: IoThrottle): IoThrottle | undefined {
  const { bps, bps_rd, bps_wr, iops, iops_rd, iops_wr } = shown;
  const limited = [bps, bps_rd, bps_wr, iops, iops_rd, iops_wr].some((limit) => limit > 0);
  return limited ? shown : undefined;
}
