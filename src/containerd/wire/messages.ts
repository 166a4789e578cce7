import { invalidArgument, messageOf } from '../../base/errors.ts';
import type { Any, Any__Output } from '../../grpc/generated/google/protobuf/Any.ts';
import type { Timestamp } from '../../grpc/generated/google/protobuf/Timestamp.ts';
import type { Metrics } from '../../grpc/generated/io/containerd/cgroups/v2/Metrics.ts';
import type { PodVolumes, PodVolumes__Output } from '../../grpc/generated/qshim/v1/PodVolumes.ts';
import type { PodSandboxConfig, PodSandboxConfig__Output } from '../../grpc/generated/runtime/v1/PodSandboxConfig.ts';
import { messageCodec } from './schema.ts';

/** Messages that travel inside google.protobuf.Any. containerd's type urls are bare names, without a host. */

const VALUE_BYTES_MAX = 4 * 1024 * 1024;

type AnyValue = Partial<Any__Output>;

function typeOf(any: AnyValue): string {
  const name = any.type_url ?? '';
  return name.slice(name.lastIndexOf('/') + 1);
}

/** The bytes in an Any. @throws ShimError INVALID_ARGUMENT when they are too many */
export function bytesOf(field: string, any: AnyValue): Buffer {
  // Decoded from a plain view (grpc/handlers.ts) it is one too, whatever its type says.
  const bytes = Buffer.from(any.value ?? []);
  if (bytes.length <= VALUE_BYTES_MAX) return bytes;
  throw invalidArgument(field, `${bytes.length} bytes`, `at most ${VALUE_BYTES_MAX} are read`);
}

/** JSON in an Any, as containerd carries the types of the OCI runtime specification. */
export function jsonOf(field: string, any: AnyValue | null): unknown {
  try {
    return JSON.parse(bytesOf(field, any ?? {}).toString('utf8'));
  } catch (error) {
    throw invalidArgument(field, typeOf(any ?? {}), `holds no JSON: ${messageOf(error)}`);
  }
}

/** CRI's configuration of a pod; undefined when it is something else, as without CRI. */
export function podSandboxConfig(options: AnyValue | null): PodSandboxConfig__Output | undefined {
  if (options === null || typeOf(options) !== 'runtime.v1.PodSandboxConfig') return undefined;
  const codec = messageCodec<PodSandboxConfig, PodSandboxConfig__Output>('runtime.v1.PodSandboxConfig');
  return codec.deserialize(bytesOf('options', options));
}

/** @throws ShimError INVALID_ARGUMENT when it is another message, or none */
export function podVolumes(any: AnyValue): PodVolumes__Output {
  const name = 'qshim.v1.PodVolumes';
  if (typeOf(any) !== name) throw invalidArgument('extensions["volumes"]', typeOf(any), `must be a ${name}`);
  try {
    return messageCodec<PodVolumes, PodVolumes__Output>(name).deserialize(bytesOf('extensions["volumes"]', any));
  } catch (error) {
    throw invalidArgument('extensions["volumes"]', name, `cannot be decoded: ${messageOf(error)}`);
  }
}

/** A cgroup's figures, as Task.Stats and Controller.Metrics carry them. */
export function metricsAny(metrics: Metrics): Any {
  const name = 'io.containerd.cgroups.v2.Metrics';
  return { type_url: name, value: messageCodec<Metrics, Metrics>(name).serialize(metrics) };
}

export function timestampOf(milliseconds: number): Timestamp {
  return { seconds: Math.floor(milliseconds / 1000), nanos: Math.round((milliseconds % 1000) * 1e6) };
}
