import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Server } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';

/** Tag of the only field of google.protobuf.FileDescriptorSet: `repeated FileDescriptorProto file = 1`. */
const FILE_TAG = 0x0a;

/**
 * Has the API's server tell of its services (gRPC server reflection, v1 and v1alpha): the descriptors that protoc has
 * made of the files in proto/ (`npm run proto`). What the proto loader makes of them lacks dependencies and real file
 * names, and strict clients refuse it.
 */
export function addReflection(server: Server): void {
  const set = readFileSync(join(import.meta.dirname, 'generated/api.descriptors.pb'));
  // The service reads this member of each definition, and nothing else; an index of messages is for who decodes them.
  const definitions = { files: { fileDescriptorProtos: filesOf(set) } } as unknown as PackageDefinition;
  new ReflectionService(definitions).addToServer(server);
}

/** The files of a FileDescriptorSet, each as its bytes. @throws Error when it is none */
function filesOf(set: Buffer): readonly Buffer[] {
  const files: Buffer[] = [];
  for (let at = 0; at < set.length;) {
    if (set[at] !== FILE_TAG) throw new Error(`no FileDescriptorSet: tag ${set[at]} at ${at}`);
    at += 1;
    let length = 0;
    for (let shift = 0, more = true; more; shift += 7, at += 1) {
      const byte = set[at] ?? 0;
      length |= (byte & 0x7f) << shift;
      more = byte >= 0x80;
    }
    files.push(set.subarray(at, at + length));
    at += length;
  }
  return files;
}
