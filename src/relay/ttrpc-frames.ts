/**
 * The framing of ttrpc, containerd's small RPC protocol for shims (PROTOCOL.md of containerd/ttrpc, version 1.2). A
 * frame is a header of ten bytes and its data: length of the data (32 bits, big-endian), stream id (32 bits), message
 * type, flags. Pure.
 */

export const HEADER_BYTES = 10;
export const DATA_BYTES_MAX = 4 * 1024 * 1024;

export const MESSAGE = { request: 1, response: 2, data: 3 } as const;
/** Flag of a request whose caller goes on sending. */
export const REMOTE_OPEN = 2;

export interface Frame {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  /** Undefined: it was longer than DATA_BYTES_MAX, and has been passed over. */
  readonly data: Buffer | undefined;
}

/** Puts frames together out of bytes that come in pieces of any size. */
export class FrameReader {
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #data: Buffer | undefined;
  #dataBytes = 0;

  /**
   * @returns the frames that end in this piece.
   * @throws Error when this is not ttrpc: then nothing that follows makes sense
   */
  take(piece: Buffer): readonly Frame[] {
    const frames: Frame[] = [];
    let rest = piece;
    while (rest.length > 0) {
      rest = this.#headerBytes < HEADER_BYTES ? this.#takeHeader(rest) : this.#takeData(rest);
      if (this.#headerBytes === HEADER_BYTES && this.#dataBytes === this.#length) frames.push(this.#frame());
    }
    return frames;
  }

  get #length(): number {
    return this.#header.readUInt32BE(0);
  }

  #takeHeader(bytes: Buffer): Buffer {
    // Lengths have at most 23 bits; the protocol keeps the first byte for later versions.
    if (this.#headerBytes === 0 && bytes[0] !== 0) throw new Error(`a frame cannot begin with byte ${bytes[0]}`);
    const taken = bytes.copy(this.#header, this.#headerBytes);
    this.#headerBytes += taken;
    if (this.#headerBytes === HEADER_BYTES) {
      this.#dataBytes = 0;
      this.#data = this.#length > DATA_BYTES_MAX ? undefined : Buffer.alloc(this.#length);
    }
    return bytes.subarray(taken);
  }

  #takeData(bytes: Buffer): Buffer {
    const taken = Math.min(bytes.length, this.#length - this.#dataBytes);
    if (this.#data !== undefined) bytes.copy(this.#data, this.#dataBytes, 0, taken);
    this.#dataBytes += taken;
    return bytes.subarray(taken);
  }

  #frame(): Frame {
    const header = this.#header;
    const frame = { streamId: header.readUInt32BE(4), type: header[8] ?? 0, flags: header[9] ?? 0, data: this.#data };
    this.#headerBytes = 0;
    this.#data = undefined;
    return frame;
  }
}

/** @throws RangeError when the data is longer than DATA_BYTES_MAX */
export function encodeFrame(streamId: number, type: number, data: Buffer): Buffer {
  if (data.length > DATA_BYTES_MAX) throw new RangeError(`${data.length} bytes do not fit into a frame`);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(data.length, 0);
  header.writeUInt32BE(streamId, 4);
  header[8] = type;
  return Buffer.concat([header, data]);
}
