import { getSystemErrorName } from 'node:util';
import { constants } from 'node:os';
import type { Socket } from 'node:net';
import koffi from 'koffi';

/** System calls that Node does not offer, through koffi. Linux, x86-64 and arm64: both have these numbers. */
const PIDFD_SEND_SIGNAL = 424;
const PIDFD_OPEN = 434;

/** fcntl.h and linux/memfd.h. */
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_NOEXEC_SEAL = 8;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
/** F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE. */
const SEALS = 1 | 2 | 4 | 8;

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** The C library that Node runs on. */
export const libc = koffi.load(null);
/** koffi's functions answer with `any`. */
type Native = (...args: readonly unknown[]) => unknown;
const flock: Native = libc.func('int flock(int fd, int operation)');
const close: Native = libc.func('int close(int fd)');
const memfdCreate: Native = libc.func('int memfd_create(const char *name, unsigned int flags)');
const fcntl: Native = libc.func('int fcntl(int fd, int command, ...)');
const syscall: Native = libc.func('long syscall(long number, ...)');

/**
 * The result of a system call.
 * @param call its name
 * @param result what the C library gave: negative when it failed, and `errno` says why
 * @throws an error as Node's own calls throw it, with `code`, `errno` (negative) and `syscall`
 */
export function checked(call: string, result: unknown): number {
  if (typeof result === 'number' && result >= 0) return result;
  const errno = -koffi.errno();
  const code = getSystemErrorName(errno);
  throw Object.assign(new Error(`${code}: ${call} failed`), { code, errno, syscall: call });
}

/** The descriptor of an open socket, which Node's interface does not show; none once it is closed. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  const descriptor: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  return typeof descriptor === 'number' && descriptor >= 0 ? descriptor : undefined;
}

/**
 * Asks for a lock on an open file (flock(2)), without waiting. It belongs to the open file: it lasts until the
 * descriptor is closed, by whoever, and all that inherited it. Node opens files with O_CLOEXEC: no child has it.
 * @param how `shared`: only to try whether it works
 * @returns false when another open file has it
 * @throws the system error when it cannot be locked: ENOSYS, EOPNOTSUPP, ENOLCK of file systems without such locks
 */
export function tryLock(fd: number, how: 'exclusive' | 'shared' = 'exclusive'): boolean {
  if (flock(fd, (how === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0) return true;
  if (koffi.errno() === constants.errno.EWOULDBLOCK) return false;
  checked('flock', -1);
  return false;
}

/**
 * A file in memory that has no path, and that `seal` can make unchangeable (memfd_create(2)). No program that this
 * process starts has it but those that it is given to.
 * @param name as /proc/PID/fd shows it, at most 249 bytes
 * @returns a descriptor for reading and writing; whoever has it closes it
 * @throws the system error: EMFILE, ENOSYS, EPERM where a filter forbids the call
 */
export function sealableFile(name: string): number {
  const made = memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  // Kernels before 6.3 know no MFD_NOEXEC_SEAL.
  if (made === -1 && koffi.errno() === constants.errno.EINVAL)
    return checked('memfd_create', memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  return checked('memfd_create', made);
}

/**
 * From here nobody can change such a file or its size, through whatever descriptor, nor take that back (fcntl(2)). It
 * can be mapped privately, for writing too.
 * @throws the system error: EBUSY while a process still has it mapped for writing
 */
export function seal(fd: number): void {
  checked('fcntl(F_ADD_SEALS)', fcntl(fd, F_ADD_SEALS, 'int', SEALS));
}

/** Whether an open file is one that `seal` has made unchangeable. */
export function isSealed(fd: number): boolean {
  const seals = fcntl(fd, F_GET_SEALS);
  return typeof seals === 'number' && seals >= 0 && (seals & SEALS) === SEALS;
}

/** One process, whatever becomes of its number: pidfd_open(2). */
export class ProcessHandle implements Disposable {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @throws the system error ESRCH: there is no such process; ENOSYS or EPERM: this host has no pidfd (Linux 5.3) */
  static open(pid: number): ProcessHandle {
    return new ProcessHandle(checked('pidfd_open', syscall(PIDFD_OPEN, 'int', pid, 'unsigned int', 0)));
  }

  /** Sends a signal by its number. @throws the system error ESRCH: it has ended; EPERM */
  signal(number: number): void {
    const result = syscall(PIDFD_SEND_SIGNAL, 'int', this.#fd, 'int', number, 'void *', null, 'unsigned int', 0);
    checked('pidfd_send_signal', result);
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}
