/**
 * Programs for x86-64 Linux guests that need nothing of the guest's: no library, no interpreter. They make system calls, and
 * little else.
 */

const CODE_AT = 0x40_0000;
const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const CODE_OFFSET = ELF_HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
const READ = 4;

/** Where the first byte of the code is in the running program. */
export const CODE_ADDRESS = CODE_AT + CODE_OFFSET;
/** Where its memory that can be written is. */
export const BUFFER_ADDRESS = 0x50_0000;

/** An ELF executable that begins at the first byte of `code`. */
export function executable(code: Buffer, bufferBytes: number): Buffer {
  const header = Buffer.alloc(CODE_OFFSET);
  const fileBytes = CODE_OFFSET + code.length;
  Buffer.from('7f454c46020101', 'hex').copy(header); // ELF, 64 bit, little endian, version 1
  header.writeUInt16LE(2, 16); // executable
  header.writeUInt16LE(62, 18); // x86-64
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(CODE_ADDRESS), 24); // entry
  header.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), 32); // program headers
  header.writeUInt16LE(ELF_HEADER_BYTES, 52);
  header.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  header.writeUInt16LE(2, 56);
  segment(header, 0, { flags: READ | 1, address: CODE_AT, fileBytes, memoryBytes: fileBytes });
  segment(header, 1, { flags: READ | 2, address: BUFFER_ADDRESS, fileBytes: 0, memoryBytes: bufferBytes });
  return Buffer.concat([header, code]);
}

function segment(
  header: Buffer,
  index: number,
  {
    flags,
    address,
    fileBytes,
    memoryBytes,
  }: { readonly flags: number; readonly address: number; readonly fileBytes: number; readonly memoryBytes: number },
): void {
  const at = ELF_HEADER_BYTES + index * PROGRAM_HEADER_BYTES;
  header.writeUInt32LE(1, at); // loaded
  header.writeUInt32LE(flags, at + 4);
  header.writeBigUInt64LE(BigInt(address), at + 16);
  header.writeBigUInt64LE(BigInt(address), at + 24);
  header.writeBigUInt64LE(BigInt(fileBytes), at + 32);
  header.writeBigUInt64LE(BigInt(memoryBytes), at + 40);
  header.writeBigUInt64LE(0x1000n, at + 48);
}
