/**
 * Generates src/grpc/generated from proto/ (`npm run proto`); the result is committed, and a unit test holds it
 * current.
 */
import { rm } from 'node:fs/promises';
import { execa } from 'execa';

const API_FILES = ['common', 'sandboxes', 'volumes', 'events', 'pod'].map((name) => `qshim/v1/${name}.proto`);
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

if (import.meta.main) await generateTypes('src/grpc/generated');
