import { loadSync } from '@grpc/proto-loader';
import type { Request, Request__Output } from '../grpc/generated/ttrpc/Request.ts';
import type { Response, Response__Output } from '../grpc/generated/ttrpc/Response.ts';
import type { Status, Status__Output } from '../grpc/generated/google/rpc/Status.ts';
import { codecOf, LOADER_OPTIONS } from '../grpc/schema.ts';

const definitions = loadSync(['containerd/ttrpc.proto'], LOADER_OPTIONS);

/** What the frames of ttrpc carry (proto/containerd/ttrpc.proto). */
export const requestCodec = codecOf<Request, Request__Output>(definitions, 'ttrpc.Request');
export const responseCodec = codecOf<Response, Response__Output>(definitions, 'ttrpc.Response');
export const statusCodec = codecOf<Status, Status__Output>(definitions, 'google.rpc.Status');
