import { CliFailure } from './cli-failure.ts';
import { EXIT } from './exit-codes.ts';

export interface UnreachableOptions {
  /** errno name of the attempt, where it is known. */
  readonly errno: string | undefined;
  /** What the transport said, for the cases that we have no words for. */
  readonly details: string;
  readonly cause?: unknown;
}

/** No daemon could be reached over the socket: why, in the words of whoever has to mend it. */
export function unreachable(socketPath: string, { errno, details, cause }: UnreachableOptions): CliFailure {
  const metadata = { socket: socketPath };
  if (errno === 'EACCES' || errno === 'EPERM') {
    return new CliFailure('PERMISSION_DENIED', `not allowed to connect to ${socketPath}`, {
      reason: 'SOCKET_NOT_ACCESSIBLE',
      metadata,
      exitCode: EXIT.denied,
      cause,
    });
  }
  return new CliFailure('UNAVAILABLE', `no daemon answers at ${socketPath}: ${why(errno, details)}`, {
    reason: 'DAEMON_UNREACHABLE',
    metadata,
    exitCode: EXIT.unreachable,
    cause,
  });
}

function why(errno: string | undefined, details: string): string {
  if (errno === 'ENOENT' || errno === 'ENOTDIR') return 'the socket does not exist';
  if (errno === 'ECONNREFUSED') return 'nobody listens on the socket';
  if (errno === 'ECONNRESET' || /dropped|GOAWAY|closed/i.test(details)) return 'the connection was lost';
  return details;
}
