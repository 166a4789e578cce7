import type { Stats } from 'node:fs';
import type { SourceSpec } from './registry.ts';

/**
 * The source for whoever has a path of this host and names no kind: a mount of containerd, an image whose keys change.
 * What is neither a block device nor a regular file is refused by the inspection.
 * @param found what stat(2) says of it; undefined when it could not be looked at
 */
export function sourceOfPath(path: string, found: Stats | undefined): SourceSpec {
  return { kind: found?.isBlockDevice() === true ? 'block-device' : 'raw-file', path };
}
