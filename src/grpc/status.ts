import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import type { ShimCode } from '../base/reasons.ts';
import type { ErrorInfo } from './generated/google/rpc/ErrorInfo.ts';
import type { Status } from './generated/google/rpc/Status.ts';
import { codecOf, loadStatusDefinition } from './schema.ts';

/** Domain of every ErrorInfo. */
export const ERROR_DOMAIN = 'qshim';
const DETAILS_KEY = 'grpc-status-details-bin';
/**
 * The message travels twice, percent-encoded (up to three bytes for one) and in the details as base64, and all trailers
 * together must stay below the 16 KiB at which some clients drop the call.
 */
const MESSAGE_BYTES_MAX = 2048;
const METADATA_BYTES_MAX = 512;

const definitions = loadStatusDefinition();
const statusType = codecOf<Status, object>(definitions, 'google.rpc.Status');
const errorInfoType = codecOf<ErrorInfo, object>(definitions, 'google.rpc.ErrorInfo');

/** The one place where a domain error becomes a gRPC status, with ErrorInfo in the trailers. */
export function toServiceError(error: unknown): ServiceError {
  const shimError = isShimError(error)
    ? error
    : new ShimError('INTERNAL', `unexpected: ${messageOf(error)}`, { reason: 'UNEXPECTED', cause: error });
  const code = numberOf(shimError.code);
  const message = cut(shimError.message, MESSAGE_BYTES_MAX);
  const info = errorInfoType.serialize({
    reason: shimError.reason,
    domain: ERROR_DOMAIN,
    metadata: Object.fromEntries(
      Object.entries(shimError.metadata).map(([key, value]) => [key, cut(value, METADATA_BYTES_MAX)]),
    ),
  });
  const details = statusType.serialize({
    code,
    message,
    details: [{ type_url: 'type.googleapis.com/google.rpc.ErrorInfo', value: info }],
  });
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, details);
  return Object.assign(new Error(message), { code, details: message, metadata });
}

/** At most so many bytes of UTF-8; the last character stays whole. */
function cut(text: string, bytesMax: number): string {
  const { read } = new TextEncoder().encodeInto(text.toWellFormed(), new Uint8Array(bytesMax));
  return text.toWellFormed().slice(0, read);
}

function numberOf(code: ShimCode): status {
  return status[code];
}
