/**
 * Generates src/grpc/generated from proto/ (`npm run proto`): types, and by protoc the descriptors that reflection
 * serves. The result is committed, and a unit test holds it current.
 */
import { access, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { ensureCommands, ensurePackages } from './lib/packages.ts';

const API_FILES = ['common', 'sandboxes', 'volumes', 'operations', 'stats', 'budgets', 'events', 'pod'].map(
  (name) => `qshim/v1/${name}.proto`,
);
const CONTAINERD_FILES = ['sandbox', 'task', 'task_events', 'event_service', 'cgroups', 'cri', 'ttrpc'].map(
  (name) => `containerd/${name}.proto`,
);

export const PROTO_FILES = [...API_FILES, ...CONTAINERD_FILES];

/** Writes the generated types into `outDir`. */
export async function generateTypes(outDir: string): Promise<void> {
  await rm(outDir, { recursive: true, force: true });
  await execa(
    'proto-loader-gen-types',
    [
      '--longs=Number',
      '--enums=String',
      '--defaults',
      '--oneofs',
      '--grpcLib=@grpc/grpc-js',
      '--targetFileExtension=.ts',
      '--importFileExtension=.ts',
      `--outDir=${outDir}`,
      ...PROTO_FILES,
      'google/rpc/status.proto',
      '--includeDirs=proto',
    ],
    { preferLocal: true },
  );
}

const REFLECTION_FILES = ['v1', 'v1alpha'].map((version) => `grpc/reflection/${version}/reflection.proto`);

/** Files of the API's services (src/grpc/reflection.ts). A service of a file that these import would be told of too. */
const REFLECTED_FILES = [
  ...['sandboxes', 'volumes', 'operations', 'stats', 'budgets', 'events'].map((name) => `qshim/v1/${name}.proto`),
  'grpc/health/v1/health.proto',
  ...REFLECTION_FILES,
];

/** Where Debian puts google/protobuf/*.proto. */
const WELL_KNOWN = '/usr/include';

/** Installs protoc, and the files that it does not bring itself, as far as either is missing. */
export async function ensureProtoc(): Promise<void> {
  await ensureCommands(['protoc']);
  await ensurePackages(['libprotobuf-dev'], hasWellKnown);
}

async function hasWellKnown(): Promise<boolean> {
  return await access(join(WELL_KNOWN, 'google/protobuf/timestamp.proto')).then(
    () => true,
    () => false,
  );
}

/** Writes `api.descriptors.pb` into `outDir`: a FileDescriptorSet, in the order of dependencies. */
export async function generateDescriptors(outDir: string): Promise<void> {
  await execa('protoc', [
    '--include_imports',
    '--proto_path=proto',
    '--proto_path=grpc/health=node_modules/grpc-health-check/proto/health',
    '--proto_path=node_modules/@grpc/reflection/build/proto',
    `--proto_path=${WELL_KNOWN}`,
    `--descriptor_set_out=${join(outDir, 'api.descriptors.pb')}`,
    ...REFLECTED_FILES,
  ]);
}

if (import.meta.main) {
  await ensureProtoc();
  await generateTypes('src/grpc/generated');
  await generateDescriptors('src/grpc/generated');
}
