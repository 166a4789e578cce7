import type { SourceSpec } from './registry.ts';

/**
 * The source for whoever has a path of this host and names no kind: a mount of containerd, an image whose keys change.
 * What is neither a block device nor a regular file is refused by the inspection.
 * @param isBlockDevice as the path was seen to lead to one; false as well when it could not be looked at
 */
export function sourceOfPath(path: string, isBlockDevice: boolean): SourceSpec {
  return { kind: isBlockDevice ? 'block-device' : 'raw-file', path };
}
