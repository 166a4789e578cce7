/** A small ustar archive (POSIX.1-1988): how config.json and copied files reach the guest in one piece. */

export interface ArchivedFile {
  /** Relative, at most 100 bytes. */
  readonly name: string;
  readonly mode: number;
  /** User and group by number, and the time of the last change in seconds since 1970: 0 where they are left out. */
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeSeconds?: number;
  readonly content: Uint8Array;
}

const BLOCK_BYTES = 512;

/** Packs regular files, in order. @throws RangeError for a name that does not fit */
export function packTar(files: readonly ArchivedFile[]): Buffer {
  const parts = files.flatMap((file) => {
    const { content } = file;
    const padding = Buffer.alloc((BLOCK_BYTES - (content.length % BLOCK_BYTES)) % BLOCK_BYTES);
    return [header(file), Buffer.from(content), padding];
  });
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK_BYTES)]);
}

function header({ name, mode, uid = 0, gid = 0, mtimeSeconds = 0, content }: ArchivedFile): Buffer {
  if (Buffer.byteLength(name) > 100) throw new RangeError(`the name ${name} is too long for a tar header`);
  const block = Buffer.alloc(BLOCK_BYTES);
  block.write(name, 0);
  block.write(octal(mode & 0o7777, 7), 100);
  writeId(block, uid, 108);
  writeId(block, gid, 116);
  block.write(octal(content.length, 11), 124);
  block.write(octal(Math.max(0, Math.trunc(mtimeSeconds)), 11), 136);
  block.write('        0', 148); // The checksum counts its own field as blanks; then the type: a regular file.
  block.write('ustar\x0000', 257, 'latin1');
  block.write(
    `${octal(
      block.reduce((sum, byte) => sum + byte, 0),
      6,
    )}\0 `,
    148,
    'latin1',
  );
  return block;
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, '0');
}

/** Of an id that has more than seven octal digits: in binary, with the first bit set (GNU tar, which busybox reads). */
function writeId(block: Buffer, id: number, offset: number): void {
  if (id <= 0o7777777) {
    block.write(octal(id, 7), offset);
    return;
  }
  block[offset] = 0x80;
  block.writeUInt32BE(id, offset + 4);
}
