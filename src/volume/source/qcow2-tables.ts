import type { FileHandle } from 'node:fs/promises';
import { tellProgress } from '../../files/progress.ts';
import { emptinessOf, seenOfL2Entry, type Emptiness, type Seen } from '../model/emptiness.ts';

/** Enough for 8 TiB in clusters of 64 KiB, if all of it has tables; one whose tables are longer the guest reads. */
const TABLE_BYTES_MAX = 1024 * 1024 * 1024;
const ENTRY_BYTES = 8;
const OFFSET_MASK = 0x00fffffffffffe00n;
/** Entries of 16 bytes, of which each describes parts of a cluster. */
const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n;
const INCOMPATIBLE_DIRTY_OR_CORRUPT = 3n;

/**
 * What the tables of a qcow2 image without a backing file say: `zero` when no cluster has a place in the file, or each
 * says that it reads as zeroes. Never `data`: a cluster that is there may hold zeroes.
 * @param header its first 80 bytes at least, checked before
 */
export async function emptinessOfQcow2(handle: FileHandle, header: Buffer): Promise<Emptiness> {
  const version = header.readUInt32BE(4);
  const features = version >= 3 ? header.readBigUInt64BE(72) : 0n;
  if (header.readBigUInt64BE(8) !== 0n) return 'look';
  if ((features & (INCOMPATIBLE_EXTENDED_L2 | INCOMPATIBLE_DIRTY_OR_CORRUPT)) !== 0n) return 'look';
  const l2Bytes = 2 ** header.readUInt32BE(20);
  const l1 = await readTable(handle, header.readBigUInt64BE(40), header.readUInt32BE(36) * ENTRY_BYTES);
  if (l1 === undefined) return 'look';
  const tables = entriesOf(l1)
    .map((entry) => entry & OFFSET_MASK)
    .filter((offset) => offset !== 0n);
  if (tables.length * l2Bytes > TABLE_BYTES_MAX) return 'look';
  for (const offset of tables) {
    const table = await readTable(handle, offset, l2Bytes);
    const seen: readonly Seen[] =
      table === undefined ? ['unknown'] : entriesOf(table).map((entry) => seenOfL2Entry(entry, version));
    const emptiness = emptinessOf(seen);
    if (emptiness !== 'zero') return emptiness;
  }
  return 'zero';
}

/** Undefined when the file ends before it, or it is longer than a table may be. */
async function readTable(handle: FileHandle, offset: bigint, bytes: number): Promise<Buffer | undefined> {
  if (bytes > TABLE_BYTES_MAX || offset > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  const table = Buffer.alloc(bytes);
  tellProgress();
  const { bytesRead } = await handle.read(table, 0, bytes, Number(offset));
  return bytesRead === bytes ? table : undefined;
}

function entriesOf(table: Buffer): readonly bigint[] {
  return Array.from({ length: table.length / ENTRY_BYTES }, (_, index) => table.readBigUInt64BE(index * ENTRY_BYTES));
}
