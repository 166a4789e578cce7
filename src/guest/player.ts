/**
 * Messages for the player (programs/player.c), a program that plays a list of system calls. It is started in a
 * template's guest and waits there in a read from a virtio-serial port. A clone wakes up inside that read: one message
 * gives it all that makes it a machine of its own, where starting a process (guest-exec) would take twenty times as
 * long under emulation.
 *
 * A message is at most 16 KiB: four words (total bytes, calls left, last result, bytes of the reply), room for
 * what calls give back, CALLS_MAX calls of eight words (number, six arguments, where the result is stored), data.
 * All words are 64 bit, little endian, and point into the player's own buffer at BUFFER_ADDRESS. The player stops at
 * the first call that fails and answers with the message's first bytes as they are then. It ends when the host closes
 * the port.
 */

/** Where a message lies in the player's memory (programs/program.ld). */
export const BUFFER_ADDRESS = 0x50_0000;
export const BUFFER_BYTES = 0x4000;

/** What the player writes once it has opened its port. One that was built for other messages says something else. */
export const PLAYER_HELLO = 'identity';

const CALLS_OFFSET = 192;
const CALL_BYTES = 64;
const CALLS_MAX = 32;
const DATA_OFFSET = CALLS_OFFSET + CALLS_MAX * CALL_BYTES;
/** The reply holds the four words and what calls gave back. */
export const REPLY_BYTES = CALLS_OFFSET;
const REPLY_ROOM_AT = 32;

const LAST_RESULT = toAddress(16);
const AT_FDCWD = -100;

/** An address in the guest: where a call stores its result, or what an argument points to. */
export type GuestAddress = number & { readonly address: unique symbol };

/** System call numbers of x86-64. */
export const SYSCALL = {
  write: 1,
  ioctl: 16,
  close: 3,
  sethostname: 170,
  clockSettime: 227,
  clockGettime: 228,
  openat: 257,
  getrandom: 318,
} as const;

/** Builds one message: calls are played in the order in which they were added. */
export class PlayerMessage {
  readonly #buffer = Buffer.alloc(BUFFER_BYTES);
  #calls = 0;
  #end = DATA_OFFSET;
  #reply = REPLY_ROOM_AT;

  /** Adds bytes to the message. @returns where they are in the guest */
  data(bytes: Uint8Array): GuestAddress {
    if (this.#end + bytes.length > BUFFER_BYTES) throw new RangeError('the message is full');
    const at = this.#end;
    this.#buffer.set(bytes, at);
    // Aligned, since the next may be a structure.
    this.#end += Math.ceil(bytes.length / 8) * 8;
    return toAddress(at);
  }

  /** Adds a string as C has it. */
  text(value: string): GuestAddress {
    return this.data(Buffer.from(`${value}\0`));
  }

  /** Room in the reply for what a call gives back. @returns where it is in the guest, and where in the reply */
  reply(bytes: number): { readonly address: GuestAddress; readonly offset: number } {
    const offset = this.#reply;
    this.#reply += bytes;
    if (this.#reply > REPLY_BYTES) throw new RangeError('the reply is full');
    return { address: toAddress(offset), offset };
  }

  /** Adds a call. Its result goes to `resultTo`: an argument of a later call, or nowhere. */
  call(number: number, args: readonly (number | bigint)[], resultTo: GuestAddress = LAST_RESULT): void {
    if (this.#calls === CALLS_MAX) throw new RangeError(`a message takes at most ${CALLS_MAX} calls`);
    const at = CALLS_OFFSET + this.#calls * CALL_BYTES;
    this.#calls += 1;
    this.#word(at, number);
    for (const [index, value] of args.entries()) this.#word(at + 8 + index * 8, value);
    this.#word(at + 56, resultTo);
  }

  /** Opens a file of the guest and hands the descriptor to the call that is added next, as its first argument. */
  open(path: string, flags: number): void {
    const next = CALLS_OFFSET + (this.#calls + 1) * CALL_BYTES + 8;
    this.call(SYSCALL.openat, [AT_FDCWD, this.text(path), flags], toAddress(next));
  }

  /** The message as it goes over the port. The caller may zero it once it is written. */
  bytes(): Buffer {
    this.#word(0, this.#end);
    this.#word(8, this.#calls);
    this.#word(16, 0);
    this.#word(24, REPLY_BYTES);
    return this.#buffer.subarray(0, this.#end);
  }

  #word(offset: number, value: number | bigint): void {
    this.#buffer.writeBigInt64LE(BigInt.asIntN(64, BigInt(value)), offset);
  }
}

export interface PlayerReply {
  /** How many of the message's calls were not played; 0 when all went well. */
  readonly callsLeft: number;
  /** What the last call returned: a negative errno when it failed. */
  readonly lastResult: number;
  readonly bytes: Buffer;
}

/** Reads a reply of REPLY_BYTES. The guest is not trusted: anything may come. */
export function readReply(bytes: Buffer): PlayerReply {
  return {
    callsLeft: Number(bytes.readBigUInt64LE(8)),
    lastResult: Number(bytes.readBigInt64LE(16)),
    bytes,
  };
}

function toAddress(offset: number): GuestAddress {
  return (BUFFER_ADDRESS + offset) as GuestAddress;
}
