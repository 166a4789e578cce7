import type { FileHandle } from 'node:fs/promises';

/** An empty qcow2 image, version 3, of clusters of 64 KiB (docs/interop/qcow2.txt in QEMU's sources). */

const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 2 ** CLUSTER_BITS;
const ENTRY_BYTES = 8;
/** What one entry of the first table covers. */
const L1_ENTRY_BYTES = (CLUSTER_BYTES / ENTRY_BYTES) * CLUSTER_BYTES;
const HEADER_BYTES = 104;
const REFCOUNT_ORDER = 4;
const REFCOUNT_BYTES = 2;
const MAGIC = 0x514649fb;
const REFCOUNT_TABLE_AT = CLUSTER_BYTES;
const REFCOUNT_BLOCK_AT = 2 * CLUSTER_BYTES;
const L1_AT = 3 * CLUSTER_BYTES;
/** One block of reference counts is made: so many clusters may hold tables. */
const CLUSTERS_MAX = CLUSTER_BYTES / REFCOUNT_BYTES;

/**
 * Writes an image in which nothing is allocated: header, table and block of reference counts, first table.
 * @param handle an empty file
 * @param sizeBytes what the guest sees
 * @throws Error for one that is larger than about 128 PiB
 */
export async function writeEmptyQcow2(handle: FileHandle, sizeBytes: number): Promise<void> {
  const l1Entries = Math.ceil(sizeBytes / L1_ENTRY_BYTES);
  const l1Clusters = Math.ceil((l1Entries * ENTRY_BYTES) / CLUSTER_BYTES);
  const clusters = L1_AT / CLUSTER_BYTES + l1Clusters;
  if (clusters > CLUSTERS_MAX) throw new Error(`a qcow2 image of ${sizeBytes} bytes is too large`);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(MAGIC, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(CLUSTER_BITS, 20);
  header.writeBigUInt64BE(BigInt(sizeBytes), 24);
  header.writeUInt32BE(l1Entries, 36);
  header.writeBigUInt64BE(BigInt(L1_AT), 40);
  header.writeBigUInt64BE(BigInt(REFCOUNT_TABLE_AT), 48);
  header.writeUInt32BE(1, 56);
  header.writeUInt32BE(REFCOUNT_ORDER, 96);
  header.writeUInt32BE(HEADER_BYTES, 100);
  const table = Buffer.alloc(ENTRY_BYTES);
  table.writeBigUInt64BE(BigInt(REFCOUNT_BLOCK_AT), 0);
  const counts = Buffer.alloc(clusters * REFCOUNT_BYTES);
  for (let cluster = 0; cluster < clusters; cluster += 1) counts.writeUInt16BE(1, cluster * REFCOUNT_BYTES);
  await handle.truncate(clusters * CLUSTER_BYTES);
  await handle.write(header, 0, header.length, 0);
  await handle.write(table, 0, table.length, REFCOUNT_TABLE_AT);
  await handle.write(counts, 0, counts.length, REFCOUNT_BLOCK_AT);
}
