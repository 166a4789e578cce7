/** The exit codes of the `qshim` command. Scripts branch on them; docs/cli.md and `qshim --help` list them. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  conflict: 4,
  deadline: 5,
  unreachable: 6,
  denied: 7,
  exhausted: 8,
  interrupted: 130,
  /** 128 + SIGPIPE, as a program without a handler would end: whoever read our output has left. */
  brokenPipe: 141,
} as const;

/** Codes with their meaning, for the help text and the documentation test. */
export const EXIT_CODE_MEANINGS: readonly (readonly [code: number, meaning: string])[] = [
  [EXIT.ok, 'done'],
  [EXIT.failed, 'the operation failed'],
  [EXIT.usage, 'wrong usage of this command'],
  [EXIT.notFound, 'no such sandbox or volume'],
  [EXIT.conflict, 'it exists with another spec, the state does not allow it, or a concurrent operation won'],
  [EXIT.deadline, 'the deadline passed: the guest has not let go yet, the daemon keeps asking'],
  [EXIT.unreachable, 'the daemon cannot be reached'],
  [EXIT.denied, 'permission denied'],
  [EXIT.exhausted, 'no slot is left, or a queue is full'],
  [EXIT.interrupted, 'interrupted with Ctrl-C; the daemon finishes what it began'],
];

/** gRPC status names that have an exit code of their own; any other failure is 1. */
const BY_STATUS: Readonly<Record<string, number>> = {
  NOT_FOUND: EXIT.notFound,
  ALREADY_EXISTS: EXIT.conflict,
  FAILED_PRECONDITION: EXIT.conflict,
  ABORTED: EXIT.conflict,
  DEADLINE_EXCEEDED: EXIT.deadline,
  PERMISSION_DENIED: EXIT.denied,
  RESOURCE_EXHAUSTED: EXIT.exhausted,
};

/**
 * The exit code for a gRPC status name. UNAVAILABLE counts as "unreachable" only when no daemon answered: a daemon
 * that says UNAVAILABLE itself (QEMU gone, stopping) was reached, so that is an operation that failed.
 */
export function exitCodeOf(status: string, answeredByDaemon: boolean): number {
  if (status === 'UNAVAILABLE' && !answeredByDaemon) return EXIT.unreachable;
  return BY_STATUS[status] ?? EXIT.failed;
}

/** Highest number of a Linux signal; keeps `128 + signal` within the eight bits of an exit code. */
const SIGNAL_MAX = 127;

/** The exit code that stands for a guest command: its own, or 128 + signal as a shell would say. */
export function exitCodeOfGuest(result: { readonly exitCode: number; readonly signal: number }): number {
  if (result.signal > 0) return 128 + Math.min(result.signal, SIGNAL_MAX);
  return result.exitCode & 0xff;
}
