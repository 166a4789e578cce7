/**
 * What was seen on the host of a source in which something is to be made if it is empty. Empty is what was proven to be
 * so: nobody has looked everywhere and found a byte that is not zero.
 *
 * - `zero`: a guest reads nothing but zeroes.
 * - `noise`: nobody ever wrote to it, though a guest reads noise: a LUKS image over zeroes.
 * - `data`: there is something.
 * - `look`: the host cannot tell, or has not looked; the guest has to read it.
 */
export type Emptiness = 'zero' | 'noise' | 'data' | 'look';

/** What is known of one cluster, or of one part, of a source. */
export type Seen = 'zero' | 'data' | 'unknown';

/** The whole of its parts: one that holds data decides, one that nobody can tell leaves it open. */
export function emptinessOf(parts: Iterable<Seen>): Emptiness {
  let open = false;
  for (const part of parts) {
    if (part === 'data') return 'data';
    open ||= part === 'unknown';
  }
  return open ? 'look' : 'zero';
}

/**
 * An L2 entry of qcow2 (docs/interop/qcow2.txt in QEMU's sources). A cluster that has a place in the file may hold
 * zeroes all the same: that shows only when it is read.
 * @param version from 3 on, bit 0 says that the cluster reads as zeroes
 */
export function seenOfL2Entry(entry: bigint, version: number): Seen {
  const compressed = (entry & (1n << 62n)) !== 0n;
  if (compressed) return 'unknown';
  if (version >= 3 && (entry & 1n) !== 0n) return 'zero';
  return (entry & L2_OFFSET_MASK) === 0n ? 'zero' : 'unknown';
}

const L2_OFFSET_MASK = 0x00fffffffffffe00n;
