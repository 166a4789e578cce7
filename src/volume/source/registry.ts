import { z } from 'zod';
import { blockDevice } from './block-device.ts';
import type { Seen, SourceModule } from './module.ts';
import { nbd } from './nbd.ts';
import { qcow2File } from './qcow2-file.ts';
import { rawFile } from './raw-file.ts';

/**
 * Every kind of source there is. A new one is a file beside this one, an entry in this list, and a message of the API
 * with its number in proto/qshim/v1/volumes.proto: docs/sources.md goes through it.
 */
const MODULES = [rawFile, qcow2File, blockDevice, nbd] as const;

type SourceOf<M> = M extends SourceModule<infer S> ? S : never;
export type SourceSpec = SourceOf<(typeof MODULES)[number]>;
export type AnySource = SourceModule<SourceSpec>;

/** All modules, in the order in which they are shown. */
export const SOURCES: readonly AnySource[] = MODULES;

export const sourceSchema = z.union(SOURCES.map(({ schema }) => schema));

const BY_KIND = new Map(SOURCES.map((module) => [module.kind, module]));

/** The module of a source. */
export function moduleOf({ kind }: SourceSpec): AnySource {
  const module = BY_KIND.get(kind);
  if (module === undefined) throw new Error(`no module for sources of kind ${kind}`);
  return module;
}

/** The module with this name in a message of the API. */
export function moduleByMessageName(name: string): AnySource | undefined {
  return SOURCES.find(({ messageName }) => messageName === name);
}

/** What this was made of. @throws Error when no kind knows it */
export function recogniseSource(seen: Seen): SourceSpec {
  for (const module of SOURCES) {
    const source = module.recognise(seen);
    if (source !== undefined) return source;
  }
  throw new Error(`no kind of source makes a node of ${seen.root.drv} over ${seen.protocol.drv}`);
}
