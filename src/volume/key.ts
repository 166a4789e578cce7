import type { KeyMaterial } from '../keys/material.ts';
import type { KeyReference } from '../keys/reference.ts';
import type { VolumeSpec } from './spec.ts';
import type { VolumeHost } from './host.ts';

/** The reference of the key that opens a volume; undefined when it needs none from outside. */
export function keyReference({ encryption }: VolumeSpec): KeyReference | undefined {
  if (encryption?.kind === 'host-luks') return encryption.key;
  return encryption?.key.kind === 'provided' ? encryption.key.reference : undefined;
}

/**
 * Fetches the key that opens a volume, if it needs one. It is asked for before anything is changed: a source that is
 * down leaves nothing behind. Whoever calls this disposes of it.
 * @throws ShimError with a reason of keys/errors.ts
 */
export async function fetchKey(host: VolumeHost, spec: VolumeSpec): Promise<KeyMaterial | undefined> {
  const reference = keyReference(spec);
  return reference === undefined ? undefined : await host.keys.fetch(reference, { signal: host.gone });
}
