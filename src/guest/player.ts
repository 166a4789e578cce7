import { BUFFER_ADDRESS, executable } from './elf.ts';

/**
 * A program of 192 bytes for x86-64 Linux guests that plays a list of system calls. It is started in a template's guest and
 * waits there in a read from a virtio-serial port. A clone wakes up inside that read: one message gives it all that makes it
 * a machine of its own, where starting a process (guest-exec) would take twenty times as long under emulation.
 *
 * A message is at most 16 KiB: four words (total bytes, calls left, last result, bytes of the reply), room for
 * what calls give back, CALLS_MAX calls of eight words (number, six arguments, where the result is stored), data.
 * All words are 64 bit, little endian, and point into the player's own buffer at BUFFER_ADDRESS. The player stops at the first
 * call that fails and answers with the message's first bytes as they are then. It ends when the host closes the port.
 */

const BUFFER_BYTES = 0x4000;

/** What the player writes once it has opened its port. */
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

/** Port path in argv[1]. Addresses: code at 0x4000b0, the greeting behind it, the buffer at 0x500000. */
const CODE = Buffer.from([
  ...[0x48, 0x8b, 0x7c, 0x24, 0x10], //             mov rdi, [rsp + 16]: argv[1]
  ...[0xbe, 0x02, 0x00, 0x00, 0x00], //             mov esi, O_RDWR
  ...[0xb8, 0x02, 0x00, 0x00, 0x00, 0x0f, 0x05], // open
  ...[0x85, 0xc0], //                               test eax, eax
  ...[0x0f, 0x88, 0x9b, 0x00, 0x00, 0x00], //       js end
  ...[0x41, 0x89, 0xc4, 0x89, 0xc7], //             mov r12d, eax; mov edi, eax
  ...[0xbe, 0x70, 0x01, 0x40, 0x00], //             mov esi, greeting
  ...[0xba, 0x08, 0x00, 0x00, 0x00], //             mov edx, 8
  ...[0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x05], // write
  ...[0x31, 0xed], //                         again: xor ebp, ebp: bytes read so far
  ...[0x44, 0x89, 0xe7], //                    read: mov edi, r12d
  ...[0x8d, 0xb5, 0x00, 0x00, 0x50, 0x00], //       lea esi, [rbp + buffer]
  ...[0xba, 0x00, 0x40, 0x00, 0x00, 0x29, 0xea], // mov edx, size; sub edx, ebp
  ...[0x31, 0xc0, 0x0f, 0x05], //                   read
  ...[0x85, 0xc0, 0x7e, 0x6b], //                   test eax, eax; jle end
  ...[0x01, 0xc5], //                               add ebp, eax
  ...[0x83, 0xfd, 0x20, 0x72, 0xe1], //             cmp ebp, 32; jb read
  ...[0xbb, 0x00, 0x00, 0x50, 0x00], //             mov ebx, buffer
  ...[0x3b, 0x2b, 0x72, 0xd8], //                   cmp ebp, [rbx]; jb read
  ...[0x4c, 0x8d, 0xab, 0xc0, 0x00, 0x00, 0x00], // lea r13, [rbx + 192]
  ...[0x83, 0x7b, 0x08, 0x00, 0x74, 0x3a], //  next: cmp dword [rbx + 8], 0; je done
  ...[0x49, 0x8b, 0x45, 0x00], //                   mov rax, [r13]
  ...[0x49, 0x8b, 0x7d, 0x08], //                   mov rdi, [r13 + 8]
  ...[0x49, 0x8b, 0x75, 0x10], //                   mov rsi, [r13 + 16]
  ...[0x49, 0x8b, 0x55, 0x18], //                   mov rdx, [r13 + 24]
  ...[0x4d, 0x8b, 0x55, 0x20], //                   mov r10, [r13 + 32]
  ...[0x4d, 0x8b, 0x45, 0x28], //                   mov r8, [r13 + 40]
  ...[0x4d, 0x8b, 0x4d, 0x30], //                   mov r9, [r13 + 48]
  ...[0x0f, 0x05], //                               syscall
  ...[0x48, 0x89, 0x43, 0x10], //                   mov [rbx + 16], rax
  ...[0x49, 0x8b, 0x4d, 0x38, 0x48, 0x89, 0x01], // mov rcx, [r13 + 56]; mov [rcx], rax
  ...[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], //       cmp rax, -4096
  ...[0x77, 0x09], //                               ja done: an errno
  ...[0xff, 0x4b, 0x08], //                         dec dword [rbx + 8]
  ...[0x49, 0x83, 0xc5, 0x40, 0xeb, 0xc0], //       add r13, 64; jmp next
  ...[0x44, 0x89, 0xe7, 0x89, 0xde], //        done: mov edi, r12d; mov esi, ebx
  ...[0x8b, 0x53, 0x18], //                         mov edx, [rbx + 24]
  ...[0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0x05], // write
  ...[0xe9, 0x7b, 0xff, 0xff, 0xff], //             jmp again
  ...[0xbf, 0x01, 0x00, 0x00, 0x00], //         end: mov edi, 1
  ...[0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05], // exit
  ...Buffer.from(PLAYER_HELLO),
]);

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

/** The player as an ELF executable that needs no library. Its only argument is the path of its port. */
export function playerExecutable(): Buffer {
  return executable(CODE, BUFFER_BYTES);
}

function toAddress(offset: number): GuestAddress {
  return (BUFFER_ADDRESS + offset) as GuestAddress;
}
