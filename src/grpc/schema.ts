import { join } from 'node:path';
import { loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition, type Options, type PackageDefinition } from '@grpc/proto-loader';
import type { ProtoGrpcType as BudgetsGrpcType } from './generated/budgets.ts';
import type { ProtoGrpcType as EventsGrpcType } from './generated/events.ts';
import type { ProtoGrpcType as OperationsGrpcType } from './generated/operations.ts';
import type { ProtoGrpcType as SandboxesGrpcType } from './generated/sandboxes.ts';
import type { ProtoGrpcType as StatsGrpcType } from './generated/stats.ts';
import type { ProtoGrpcType as VolumesGrpcType } from './generated/volumes.ts';

/** Directory that holds the .proto files, in a checkout and in an installed package alike. */
export const PROTO_DIR = join(import.meta.dirname, '../../proto');

/** Must match the flags in scripts/proto.ts, or the generated types lie. */
export const LOADER_OPTIONS: Options = {
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
  includeDirs: [PROTO_DIR],
};

/** The API's descriptors, for server and clients. Reads the .proto files once, at start. */
function loadApiDefinition(): PackageDefinition {
  const files = ['sandboxes', 'volumes', 'operations', 'stats', 'budgets', 'events'].map(
    (name) => `qshim/v1/${name}.proto`,
  );
  return loadSync(files, LOADER_OPTIONS);
}

/** The descriptors of google.rpc.Status and ErrorInfo, with which errors carry their details. */
export function loadStatusDefinition(): PackageDefinition {
  return loadSync(['google/rpc/status.proto'], LOADER_OPTIONS);
}

type ApiGrpcType = SandboxesGrpcType &
  VolumesGrpcType &
  OperationsGrpcType &
  BudgetsGrpcType &
  StatsGrpcType &
  EventsGrpcType;

/** The typed client constructors and service definitions of qshim.v1. */
export function loadApi(): ApiGrpcType {
  // The generated types describe exactly what the loader makes of these files; the loader itself is untyped.
  return loadPackageDefinition(loadApiDefinition()) as unknown as ApiGrpcType;
}

/** The codec of one message among descriptors, by its full name. */
export function codecOf<In extends object, Out extends object>(
  definitions: PackageDefinition,
  name: string,
): MessageTypeDefinition<In, Out> {
  const definition = definitions[name];
  if (definition === undefined || !('format' in definition) || !('serialize' in definition)) {
    throw new Error(`proto definition ${name} is missing`);
  }
  // The loader's own type does not say which message it is; the name does.
  return definition as unknown as MessageTypeDefinition<In, Out>;
}
