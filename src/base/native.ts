import { load, errno, os } from 'koffi';

/** System calls that Node does not offer, through koffi. Linux, x86-64 and arm64: both have these numbers. */
const PIDFD_SEND_SIGNAL = 424;
const PIDFD_OPEN = 434;

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

const libc = load(null);
/** koffi's functions answer with `any`. */
type Native = (...args: readonly unknown[]) => unknown;
const flock: Native = libc.func('int flock(int fd, int operation)');
const close: Native = libc.func('int close(int fd)');
const syscall: Native = libc.func('long syscall(long number, ...)');

/** A system call's failure, with `code` as Node's own errors have it. */
class SystemCallError extends Error {
  readonly code: string;

  constructor(name: string) {
    const number = errno();
    const code = Object.entries(os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
    super(`${name}: ${code}`);
    this.code = code;
  }
}

function checked(name: string, result: unknown): number {
  if (typeof result === 'number' && result >= 0) return result;
  throw new SystemCallError(name);
}

/**
 * Asks for a lock on an open file (flock(2)), without waiting. It belongs to the open file: it lasts until the
 * descriptor is closed, by whoever, and all that inherited it. Node opens files with O_CLOEXEC: no child has it.
 * @param how `shared`: only to try whether it works
 * @returns false when another open file has it
 * @throws SystemCallError when it cannot be locked: ENOSYS, EOPNOTSUPP, ENOLCK of file systems without such locks
 */
export function tryLock(fd: number, how: 'exclusive' | 'shared' = 'exclusive'): boolean {
  if (flock(fd, (how === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0) return true;
  if (errno() === os.errno.EWOULDBLOCK) return false;
  throw new SystemCallError('flock');
}

/** One process, whatever becomes of its number: pidfd_open(2). */
export class ProcessHandle implements Disposable {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @throws SystemCallError ESRCH: there is no such process; ENOSYS or EPERM: this host has no pidfd (Linux 5.3) */
  static open(pid: number): ProcessHandle {
    return new ProcessHandle(checked('pidfd_open', syscall(PIDFD_OPEN, 'int', pid, 'unsigned int', 0)));
  }

  /** Sends a signal by its number. @throws SystemCallError ESRCH: it has ended; EPERM */
  signal(number: number): void {
    const result = syscall(PIDFD_SEND_SIGNAL, 'int', this.#fd, 'int', number, 'void *', null, 'unsigned int', 0);
    checked('pidfd_send_signal', result);
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}
