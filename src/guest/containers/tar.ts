/** A small ustar archive (POSIX.1-1988): how config.json and copied files reach the guest in one piece. */

export interface ArchivedFile {
  /** Relative, at most 100 bytes. */
  readonly name: string;
  readonly mode: number;
  readonly content: Uint8Array;
}

const BLOCK_BYTES = 512;

/** Packs regular files, in order. @throws RangeError for a name that does not fit */
export function packTar(files: readonly ArchivedFile[]): Buffer {
  const parts = files.flatMap(({ name, mode, content }) => {
    const padding = Buffer.alloc((BLOCK_BYTES - (content.length % BLOCK_BYTES)) % BLOCK_BYTES);
    return [header(name, mode, content.length), Buffer.from(content), padding];
  });
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK_BYTES)]);
}

function header(name: string, mode: number, bytes: number): Buffer {
  if (Buffer.byteLength(name) > 100) throw new RangeError(`the name ${name} is too long for a tar header`);
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, '0');
  block.write(name, 0);
  block.write(octal(mode & 0o7777, 7), 100);
  block.write(octal(0, 7), 108);
  block.write(octal(0, 7), 116);
  block.write(octal(bytes, 11), 124);
  block.write(octal(0, 11), 136);
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
