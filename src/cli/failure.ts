/** What the command tells its caller when something went wrong, and how a gRPC error becomes that. */
import { loadPackageDefinition, status, type ServiceError } from '@grpc/grpc-js';
import type { ProtoGrpcType as StatusGrpcType } from '../grpc/generated/status.ts';
import { loadStatusDefinition } from '../grpc/schema.ts';
import { messageOf } from '../base/errors.ts';
import { reasonRead } from '../base/reasons.ts';
import { CliFailure } from './cli-failure.ts';
import { EXIT, exitCodeOf } from './exit-codes.ts';
import { unreachable } from './unreachable.ts';

const DETAILS_TRAILER = 'grpc-status-details-bin';
const ERROR_INFO_TYPE = 'google.rpc.ErrorInfo';
const ERROR_DOMAIN = 'qshim';

interface ErrorInfo {
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Turns whatever a call threw into a CliFailure. A google.rpc.ErrorInfo of domain "qshim" in the trailers proves that
 * the daemon itself answered; without one, UNAVAILABLE is about the connection.
 */
export function failureOf(error: unknown, socketPath: string): CliFailure {
  if (error instanceof CliFailure) return error;
  if (!isServiceError(error)) {
    return new CliFailure('INTERNAL', messageOf(error), { reason: 'INTERNAL', exitCode: EXIT.failed, cause: error });
  }
  const code = error.code in status ? status[error.code] : 'UNKNOWN';
  const info = errorInfoOf(error);
  if (info === undefined && code === 'UNAVAILABLE') {
    return unreachable(socketPath, { errno: errnoIn(error.details), details: error.details, cause: error });
  }
  // Without an answer of the daemon it is the caller's own deadline that has passed.
  const late = info === undefined && code === 'DEADLINE_EXCEEDED';
  const message = late ? 'the --deadline has passed' : error.details;
  return new CliFailure(code, message, {
    reason: reasonRead(info?.reason ?? code),
    metadata: info?.metadata ?? {},
    exitCode: exitCodeOf(code, info !== undefined),
    cause: error,
  });
}

/** The google.rpc.ErrorInfo of domain "qshim" that an error carries, or undefined when there is none that parses. */
export function errorInfoOf(error: ServiceError): ErrorInfo | undefined {
  for (const value of error.metadata.get(DETAILS_TRAILER)) {
    if (typeof value === 'string') continue;
    try {
      const { google } = statusTypes();
      const packed = google.rpc.Status.deserialize(value).details.find(({ type_url }) =>
        type_url.endsWith(`/${ERROR_INFO_TYPE}`),
      );
      if (packed === undefined) continue;
      const { domain, reason, metadata } = google.rpc.ErrorInfo.deserialize(packed.value);
      if (domain === ERROR_DOMAIN) return { reason, metadata };
    } catch {
      // Details are a courtesy. Ones that do not parse must not hide the error that they decorate.
      continue;
    }
  }
  return undefined;
}

/** gRPC keeps the errno of a failed connect only in its text: "... Last error: Error: connect ENOENT /path". */
function errnoIn(details: string): string | undefined {
  return /\b(E[A-Z]{3,})\b/.exec(details)?.[1];
}

function isServiceError(error: unknown): error is ServiceError {
  return (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'number' &&
    'details' in error &&
    'metadata' in error
  );
}

let loadedStatusTypes: StatusGrpcType | undefined;

function statusTypes(): StatusGrpcType {
  // The generated types describe exactly what the loader makes of status.proto; the loader itself is untyped.
  loadedStatusTypes ??= loadPackageDefinition(loadStatusDefinition()) as unknown as StatusGrpcType;
  return loadedStatusTypes;
}
