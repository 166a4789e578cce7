import { loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader';
import type { ProtoGrpcType as EventGrpcType } from '../../grpc/generated/event_service.ts';
import type { ProtoGrpcType as SandboxGrpcType } from '../../grpc/generated/sandbox.ts';
import type { ProtoGrpcType as TaskGrpcType } from '../../grpc/generated/task.ts';
import { codecOf, LOADER_OPTIONS } from '../../grpc/schema.ts';

const FILES = ['sandbox', 'task', 'task_events', 'event_service', 'cgroups', 'cri'].map(
  (name) => `containerd/${name}.proto`,
);

let loaded: PackageDefinition | undefined;

/** The descriptors of containerd's services, of CRI's messages, and of our own extension. Read once. */
export function containerdDefinition(): PackageDefinition {
  loaded ??= loadSync([...FILES, 'qshim/v1/pod.proto'], LOADER_OPTIONS);
  return loaded;
}

/** Typed service definitions and clients of containerd's own API. */
export function loadContainerdApi(): SandboxGrpcType & TaskGrpcType & EventGrpcType {
  // The generated types describe exactly what the loader makes of these files; the loader itself is untyped.
  return loadPackageDefinition(containerdDefinition()) as unknown as SandboxGrpcType & TaskGrpcType & EventGrpcType;
}

/** The codec of one message, by its full name. */
export function messageCodec<In extends object, Out extends object>(name: string): MessageTypeDefinition<In, Out> {
  return codecOf(containerdDefinition(), name);
}
