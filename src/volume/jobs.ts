import { stat } from 'node:fs/promises';
import type { Config } from '../config.ts';
import type { JobContext } from '../files/serve.ts';
import { findBootImage } from './boot-images.ts';
import { beforeCreation, digestOfDevice, emptyAgain } from './image-bytes.ts';
import { readLuks1 } from './luks-image.ts';
import type { IntendedUse, Inspection } from './source/module.ts';
import { makeFile, placeForFile, unmakeFile } from './source/make-file.ts';
import { resolveAllowed } from './source/open-file.ts';
import { moduleOf, type SourceSpec } from './source/registry.ts';

/**
 * Everything that volumes do with files that callers name. It runs in helpers (files/helpers.ts), and the daemon asks
 * for it through looks.ts.
 */
export const VOLUME_JOBS = {
  inspect: (_context: JobContext, source: SourceSpec, use: IntendedUse, config: Config) =>
    moduleOf(source).inspect(source, use, config),
  /** The same; what was looked at stays open for QEMU. */
  open: ({ keep }: JobContext, source: SourceSpec, use: IntendedUse, config: Config): Promise<Inspection<SourceSpec>> =>
    moduleOf(source).inspect(source, use, config, keep),
  identify: (_context: JobContext, source: SourceSpec) => moduleOf(source).identify(source),
  freeBytes: (_context: JobContext, source: SourceSpec) => moduleOf(source).freeBytes(source),
  placeForFile: (_context: JobContext, ...args: Parameters<typeof placeForFile>) => placeForFile(...args),
  /** Makes an empty source of a kind that is a file (SourceModule.make). */
  makeFile: (
    _context: JobContext,
    source: SourceSpec,
    { field, path, sizeBytes }: { readonly field: string; readonly path: string; readonly sizeBytes: number },
    config: Pick<Config, 'allowed_roots'>,
  ) =>
    makeFile(field, path, config, async (handle) => {
      const module = moduleOf(source);
      if (module.make === undefined) throw new Error(`no ${module.apiName} can be made`);
      await module.make(handle, sizeBytes);
    }),
  unmakeFile: (_context: JobContext, ...args: Parameters<typeof unmakeFile>) => unmakeFile(...args),
  resolveAllowed: (_context: JobContext, field: string, path: string, allowedRoots: readonly string[]) =>
    resolveAllowed(field, path, allowedRoots),
  /** False as well when it cannot be looked at. */
  isBlockDevice: (_context: JobContext, path: string) =>
    stat(path).then(
      (found) => found.isBlockDevice(),
      () => false,
    ),
  findBootImage: (_context: JobContext, ...args: Parameters<typeof findBootImage>) => findBootImage(...args),
  readLuks1: (_context: JobContext, ...args: Parameters<typeof readLuks1>) => readLuks1(...args),
  beforeCreation: (_context: JobContext, ...args: Parameters<typeof beforeCreation>) => beforeCreation(...args),
  digestOfDevice: (_context: JobContext, ...args: Parameters<typeof digestOfDevice>) => digestOfDevice(...args),
  emptyAgain: (_context: JobContext, ...args: Parameters<typeof emptyAgain>) => emptyAgain(...args),
} as const;
