import { z } from 'zod';
import { blockDevice, type BlockDeviceSource } from './block-device.ts';
import type { Seen, SourceModule } from './module.ts';
import { qcow2File, type Qcow2FileSource } from './qcow2-file.ts';
import { rawFile, type RawFileSource } from './raw-file.ts';

/**
 * Every kind of source there is. A new one is a file beside this one, an entry here, and a message of the API with its number in
 * proto/qshim/v1/volumes.proto: docs/sources.md goes through it.
 */

export type SourceSpec = RawFileSource | Qcow2FileSource | BlockDeviceSource;
export type AnySource = SourceModule<SourceSpec>;

const MODULES: { readonly [K in SourceSpec['kind']]: SourceModule<Extract<SourceSpec, { kind: K }>> } = {
  'raw-file': rawFile,
  'qcow2-file': qcow2File,
  'block-device': blockDevice,
};

/** All modules, in the order in which they are shown. */
export const SOURCES: readonly AnySource[] = Object.values(MODULES);

export const sourceSchema = z.union([rawFile.schema, qcow2File.schema, blockDevice.schema]);

/** The module of a source. */
export function moduleOf(source: SourceSpec): AnySource {
  return MODULES[source.kind];
}

/** The module with this name in a message of the API. */
export function moduleByMessageName(name: string): AnySource | undefined {
  return SOURCES.find(({ messageName }) => messageName === name);
}

/** What this was made of. @throws Error when no kind knows them */
export function recogniseSource(seen: Seen): SourceSpec {
  for (const module of SOURCES) {
    const source = module.recognise(seen);
    if (source !== undefined) return source;
  }
  throw new Error(`no kind of source makes a node of ${seen.root.drv} over ${seen.protocol.drv}`);
}
