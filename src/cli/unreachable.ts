import { SOCKET_PATH_BYTES_MAX, pathBytes } from '../base/socket-path.ts';
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

/** No socket can have such a path, so none is looked for. */
export function tooLong(socketPath: string): CliFailure {
  const bytes = pathBytes(socketPath);
  const message = `the path of the socket has ${bytes} bytes, a unix socket's may have ${SOCKET_PATH_BYTES_MAX}: ${socketPath}`;
  return new CliFailure('INVALID_ARGUMENT', message, {
    reason: 'SOCKET_PATH_TOO_LONG',
    metadata: { socket: socketPath },
    exitCode: EXIT.usage,
  });
}

function why(errno: string | undefined, details: string): string {
  if (errno === 'ENOENT' || errno === 'ENOTDIR') return 'the socket does not exist';
  if (errno === 'ECONNREFUSED') return 'nobody listens on the socket';
  if (errno === 'ECONNRESET' || /dropped|GOAWAY|closed/i.test(details)) return 'the connection was lost';
  return details;
}
