/** From the file that `qshim volume attach-many` and `plan` read to the message of qshim.v1. Pure. */
import type { VolumeSpec } from '../grpc/generated/qshim/v1/VolumeSpec.ts';
import type { VolumeToAttach } from '../grpc/generated/qshim/v1/VolumeToAttach.ts';
import { messageOf } from '../base/errors.ts';
import { SOURCES } from '../volume/source/registry.ts';
import { usageFailure } from './cli-failure.ts';
import { leaseFields, type LeaseFields } from './leases.ts';
import { absolutePath } from './options.ts';

/**
 * Reads a list of volumes: a JSON array of `{ "volumeId": ..., "spec": { ... } }`, in the shape that `--json` prints,
 * with a `"lease"` where there is to be one, as `--lease` takes it.
 * Relative source paths are made absolute. What the fields mean the daemon checks.
 * @throws CliFailure of usage that names what is wrong
 */
export function volumesFromJson(text: string, cwd: string): VolumeToAttach[] {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (error) {
    throw usageFailure(`the list of volumes is not JSON: ${messageOf(error)}`);
  }
  if (!Array.isArray(list)) throw usageFailure('the list of volumes is not a JSON array');
  return list.map((entry: unknown, index) => volumeFrom(entry, `volume ${index + 1} of the list`, cwd));
}

function volumeFrom(entry: unknown, what: string, cwd: string): VolumeToAttach {
  if (!isObject(entry)) throw usageFailure(`${what} is not an object`);
  const { volumeId, spec, lease, ...rest } = entry;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined)
    throw usageFailure(`${what} has a field ${JSON.stringify(unknown)}; volumeId, spec and lease are known`);
  if (typeof volumeId !== 'string') throw usageFailure(`${what} has no volumeId`);
  if (!isObject(spec)) throw usageFailure(`${what} has no spec`);
  return { volumeId, spec: withAbsolutePath(spec, cwd), ...(lease === undefined ? {} : leaseFrom(lease, what)) };
}

function leaseFrom(lease: unknown, what: string): LeaseFields {
  try {
    return leaseFields(String(lease));
  } catch (error) {
    throw usageFailure(`the lease of ${what}: ${messageOf(error)}`);
  }
}

function withAbsolutePath(spec: Readonly<Record<string, unknown>>, cwd: string): VolumeSpec {
  const sources = SOURCES.flatMap(({ messageName, command }) => {
    const source = spec[messageName];
    return isObject(source) ? [[messageName, command.absolute(source, (path) => absolutePath(cwd, path))]] : [];
  });
  return { ...spec, ...(Object.fromEntries(sources) as VolumeSpec) };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
