import { open } from 'node:fs/promises';

/** The header of a LUKS1 image, as much of it as qshim reads, for a QEMU that is not there. */

const HEADER_BYTES = 592;
const SLOTS_OFFSET = 208;
const SLOT_BYTES = 48;
const SLOTS = 8;
const USED = 0x00ac71f3;
const FREE = 0x0000dead;
const PAYLOAD_SECTORS = 4040;
const KEY_BYTES = 64;

/** Writes a header with one key, in the first slot. */
export async function writeLuks1(path: string): Promise<void> {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write('LUKS\xba\xbe', 0, 'latin1');
  header.writeUInt16BE(1, 6);
  header.write('aes', 8);
  header.write('xts-plain64', 40);
  header.write('sha256', 72);
  header.writeUInt32BE(PAYLOAD_SECTORS, 104);
  header.writeUInt32BE(KEY_BYTES, 108);
  header.write('0f7c9a56-2a7c-4a34-9d53-0b1f0f9a3c11', 168);
  for (let slot = 0; slot < SLOTS; slot += 1) header.writeUInt32BE(slot === 0 ? USED : FREE, at(slot));
  await using file = await open(path, 'r+');
  await file.write(header, 0, header.length, 0);
}

/** Marks a key slot as used, or as free. */
export async function markSlot(path: string, slot: number, used: boolean): Promise<void> {
  const mark = Buffer.alloc(4);
  mark.writeUInt32BE(used ? USED : FREE);
  await using file = await open(path, 'r+');
  await file.write(mark, 0, mark.length, at(slot));
}

const at = (slot: number): number => SLOTS_OFFSET + slot * SLOT_BYTES;
