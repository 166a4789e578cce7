import type { Config } from '../config.ts';
import { fileHelpers, type DescriptorSender, type LookAt } from '../files/helpers.ts';
import type { BootImages, BootOptions } from './boot-images.ts';
import type { VOLUME_JOBS } from './jobs.ts';
import type { Inspection, IntendedUse } from './source/module.ts';
import { moduleOf, type SourceSpec } from './source/registry.ts';

/** Looks at files that callers name, from the daemon's side: each runs in a helper, under a time limit. */

type Jobs = typeof VOLUME_JOBS;
type ArgumentsOf<K extends keyof Jobs> = Parameters<Jobs[K]> extends readonly [unknown, ...infer A] ? A : never;
type ResultOf<K extends keyof Jobs> = Awaited<ReturnType<Jobs[K]>>;

export type LookLimits = Pick<Config, 'source_timeout_ms'>;

/**
 * Has a helper do one of VOLUME_JOBS.
 * @param path the file that it touches
 * @throws what the job throws; ShimError UNAVAILABLE / SOURCE_NOT_ANSWERING
 */
export async function look<K extends keyof Jobs>(
  job: K,
  path: string,
  limits: LookLimits,
  ...args: ArgumentsOf<K>
): Promise<ResultOf<K>> {
  return (await fileHelpers.ask(job, args, at(path, limits))) as ResultOf<K>;
}

/** What is there of a source. @throws as the source's module does; as `look` */
export async function lookAtSource(
  source: SourceSpec,
  use: IntendedUse,
  config: Config,
): Promise<Inspection<SourceSpec>> {
  const module = moduleOf(source);
  const path = module.filePath(source);
  if (path === undefined) return await module.inspect(source, use, config);
  return await look('inspect', path, config, source, use, config);
}

/** A source that was looked at and is still open, so that QEMU can have what was seen. */
export interface OpenSource extends Disposable {
  readonly found: Inspection<SourceSpec>;
  readonly send: DescriptorSender;
}

/** The same, and keeps it open, for as long as it is not disposed of. */
export async function openSource(source: SourceSpec, use: IntendedUse, config: Config): Promise<OpenSource> {
  const path = moduleOf(source).filePath(source) ?? '/';
  const kept = await fileHelpers.keep('open', [source, use, config], at(path, config));
  // The job's result: what the module's inspection gives.
  const found = kept.value as ResultOf<'open'>;
  return { found, send: kept.send, [Symbol.dispose]: () => kept[Symbol.dispose]() };
}

/** `identity` of what QEMU has open, when the journal is lost. @throws as `look` */
export async function identifySource(source: SourceSpec, limits: LookLimits): Promise<string> {
  const module = moduleOf(source);
  const path = module.filePath(source);
  return await (path === undefined ? module.identify(source) : look('identify', path, limits, source));
}

/** Bytes that the host has left for it. @throws as `look` */
export async function freeBytesFor(source: SourceSpec, limits: LookLimits): Promise<number> {
  const module = moduleOf(source);
  const path = module.filePath(source);
  return await (path === undefined ? module.freeBytes(source) : look('freeBytes', path, limits, source));
}

/** Both boot images, with every symbolic link resolved. @throws as findBootImage; as `look` */
export async function findBootImages(named: BootImages, config: BootOptions & LookLimits): Promise<BootImages> {
  const { kernel, initrd, boot_roots } = config;
  const find = (option: keyof BootImages): Promise<string> =>
    look('findBootImage', named[option], config, option, named[option], { kernel, initrd, boot_roots });
  const [foundKernel, foundInitrd] = await Promise.all([find('kernel'), find('initrd')]);
  return { kernel: foundKernel, initrd: foundInitrd };
}

function at(path: string, config: LookLimits): LookAt {
  return { path, timeoutMs: config.source_timeout_ms };
}
