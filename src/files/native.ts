import { closeSync, constants } from 'node:fs';
import { constants as osConstants } from 'node:os';
import koffi from 'koffi';
import { checked, libc } from '../base/native.ts';

/**
 * The system calls that Node does not have and files by descriptor need: openat2(2), socketpair(2), sendmsg(2) and
 * recvmsg(2) with SCM_RIGHTS (unix(7)). Called straight from libc; the layouts are those of 64-bit Linux.
 * None of them waits: sockets are used with MSG_DONTWAIT.
 */

/** linux/openat2.h */
const RESOLVE_NO_MAGICLINKS = 0x02;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_BENEATH = 0x08;
/** The same number on every architecture (asm-generic/unistd.h). */
const SYS_OPENAT2 = 437;
const OPEN_HOW_BYTES = 24;
/** The same (linux/close_range.h); the kernel has it since 5.9, and the flag since 5.11. */
const SYS_CLOSE_RANGE = 436;
const CLOSE_RANGE_CLOEXEC = 4;
const FIRST_OWN_DESCRIPTOR = 3;
const DESCRIPTOR_MAX = 0xffff_ffff;

/** fcntl.h, as x86-64 and arm64 have them. */
const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;

/** linux/prctl.h */
const PR_SET_PDEATHSIG = 1;

/** linux/memfd.h */
const MFD_CLOEXEC = 1;

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_SEQPACKET = 5;
/** struct sockaddr_un. */
const ADDRESS_BYTES = 110;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
/** struct cmsghdr: its length, level and type; then the descriptor. */
const CMSG_HEADER_BYTES = 16;
const CMSG_LENGTH = 20;
const CMSG_SPACE = 24;

const Iovec = koffi.struct({ iov_base: 'void *', iov_len: 'size_t' });
const Msghdr = koffi.struct({
  msg_name: 'void *',
  msg_namelen: 'uint32_t',
  msg_iov: koffi.pointer(Iovec),
  msg_iovlen: 'size_t',
  msg_control: 'void *',
  msg_controllen: 'size_t',
  msg_flags: 'int',
});

interface Message {
  readonly msg_name: null;
  readonly msg_namelen: number;
  readonly msg_iov: readonly { readonly iov_base: Buffer; readonly iov_len: number }[];
  readonly msg_iovlen: number;
  readonly msg_control: Buffer | null;
  readonly msg_controllen: number;
  readonly msg_flags: number;
}

const closeRange = libc.func('long syscall(long, uint32_t, uint32_t, int)') as unknown as (
  number: number,
  first: number,
  last: number,
  flags: number,
) => number;
const openat2 = libc.func('long syscall(long, int, const char *, void *, size_t)') as unknown as (
  call: number,
  directory: number,
  path: string,
  how: Buffer,
  bytes: number,
) => number;
const socketpair = libc.func('int socketpair(int, int, int, _Out_ int *)') as unknown as (
  domain: number,
  type: number,
  protocol: number,
  pair: number[],
) => number;
const sendmsg = libc.func('sendmsg', 'intptr_t', ['int', koffi.pointer(Msghdr), 'int']) as unknown as (
  socket: number,
  message: Message,
  flags: number,
) => number;
const recvmsg = libc.func('recvmsg', 'intptr_t', ['int', koffi.inout(koffi.pointer(Msghdr)), 'int']) as unknown as (
  socket: number,
  message: Message,
  flags: number,
) => number;

const openSocket = libc.func('int socket(int, int, int)') as unknown as (
  domain: number,
  type: number,
  protocol: number,
) => number;
const sendTo = libc.func('intptr_t sendto(int, void *, size_t, int, void *, uint32_t)') as unknown as (
  socket: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
  address: Buffer,
  addressBytes: number,
) => number;
const memfdCreate = libc.func('int memfd_create(const char *, unsigned int)') as unknown as (
  name: string,
  flags: number,
) => number;
const prctl = libc.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)') as unknown as (
  option: number,
  ...values: readonly [number, number, number, number]
) => number;

/**
 * Keeps from the programs that this process starts what its own starter has left open: only what they are given by name
 * reaches them. For the daemon's first moment. Without effect on kernels that cannot do it.
 */
export function keepDescriptors(): void {
  closeRange(SYS_CLOSE_RANGE, FIRST_OWN_DESCRIPTOR, DESCRIPTOR_MAX, CLOSE_RANGE_CLOEXEC);
}

/** The kernel kills this process once the one that started it has ended, however it ended (PR_SET_PDEATHSIG). */
export function dieWithParent(): void {
  checked('prctl', prctl(PR_SET_PDEATHSIG, osConstants.signals.SIGKILL, 0, 0, 0));
}

/**
 * Opens what lies below a directory, without following a symbolic link on the way or at the end, and without leaving
 * that directory: as a place in the file system (O_PATH), which neither waits nor touches what is there.
 * @param directory a descriptor of the directory
 * @param path relative; `.` is the directory itself
 * @throws the system error: ELOOP for a symbolic link, EXDEV for a way out, ENOSYS before Linux 5.6
 */
export function openBeneath(directory: number, path: string): number {
  const how = Buffer.alloc(OPEN_HOW_BYTES);
  how.writeBigUInt64LE(BigInt(O_PATH | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS), 16);
  return checked('openat2', openat2(SYS_OPENAT2, directory, path, how, OPEN_HOW_BYTES));
}

/** Flags for open(2) of the directory that openBeneath starts from. */
export const PLACE_FLAGS = O_PATH | constants.O_DIRECTORY;
/** The same for a file: it is seen, not opened, and no symbolic link at the end is followed. */
export const PLACE_OF_FILE = O_PATH | constants.O_NOFOLLOW;

/**
 * Sends one datagram to a unix socket.
 * @param path absolute; `@` at the beginning: a name without a file (unix(7))
 * @throws the system error: nobody is there, or its queue is full
 */
export function sendDatagram(path: string, bytes: Uint8Array): void {
  const name = Buffer.from(path);
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_UNIX, 0);
  if (name.length > address.length - 2) throw new Error(`${path} is too long for a socket`);
  name.copy(address, 2);
  if (path.startsWith('@')) address[2] = 0;
  const socket = checked('socket', openSocket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  try {
    checked('sendto', sendTo(socket, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL, address, 2 + name.length));
  } finally {
    closeSync(socket);
  }
}

/** A file in memory that has no path. @param name as /proc/PID/fd shows it @throws the system error (EMFILE) */
export function memoryFile(name: string): number {
  return checked('memfd_create', memfdCreate(name, MFD_CLOEXEC));
}

/** Two ends of a local connection that keeps messages apart. @throws the system error (EMFILE) */
export function messagePair(): readonly [number, number] {
  const pair = [0, 0];
  checked('socketpair', socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
  return [pair[0] ?? -1, pair[1] ?? -1];
}

/**
 * Sends bytes with a descriptor beside them; the other side gets a descriptor of its own for the same open file.
 * @returns how many bytes went; the descriptor has gone with the first
 * @throws the system error: EAGAIN when the socket takes nothing now
 */
export function sendWithDescriptor(socket: number, bytes: Uint8Array, descriptor: number): number {
  const control = Buffer.alloc(CMSG_SPACE);
  control.writeBigUInt64LE(BigInt(CMSG_LENGTH), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(descriptor, CMSG_HEADER_BYTES);
  return checked('sendmsg', sendmsg(socket, messageOf(bytes, control), MSG_DONTWAIT | MSG_NOSIGNAL));
}

/** Sends bytes alone. @returns how many went @throws the system error, as sendWithDescriptor */
export function sendBytes(socket: number, bytes: Uint8Array): number {
  return checked('sendmsg', sendmsg(socket, messageOf(bytes, null), MSG_DONTWAIT | MSG_NOSIGNAL));
}

/**
 * Takes one message, or what a stream has, and the descriptor that came with it, if one did.
 * @returns no bytes when the other side has closed
 * @throws the system error: EAGAIN when there is none
 */
export function receiveDescriptor(
  socket: number,
  bytesMax: number,
): { readonly bytes: Buffer; readonly descriptor: number | undefined } {
  const [bytes, control] = [Buffer.alloc(bytesMax), Buffer.alloc(CMSG_SPACE)];
  const length = checked('recvmsg', recvmsg(socket, messageOf(bytes, control), MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  const whole = control.readBigUInt64LE(0) === BigInt(CMSG_LENGTH);
  const came = whole && control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_RIGHTS;
  const descriptor = came ? control.readInt32LE(CMSG_HEADER_BYTES) : undefined;
  return { bytes: bytes.subarray(0, length), descriptor };
}

function messageOf(bytes: Uint8Array, control: Buffer | null): Message {
  const base = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    msg_name: null,
    msg_namelen: 0,
    msg_iov: [{ iov_base: base, iov_len: base.length }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control?.length ?? 0,
    msg_flags: 0,
  };
}
