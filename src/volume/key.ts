import type { KeyUse } from '../keys/bindings.ts';
import type { KeyMaterial } from '../keys/material.ts';
import type { KeyReference } from '../keys/reference.ts';
import type { VolumeSpec } from './spec.ts';
import type { VolumeHost } from './host.ts';

/** The reference of the key that opens a volume; undefined when it needs none from outside. */
export function keyReference({ encryption }: VolumeSpec): KeyReference | undefined {
  if (encryption?.kind === 'host-luks') return encryption.key;
  return encryption?.key.kind === 'provided' ? encryption.key.reference : undefined;
}

/** What the key of a volume is asked for. */
function keyUse({ labels }: VolumeHost, { encryption }: VolumeSpec): KeyUse {
  const uuid = encryption === undefined || encryption.uuid === '' ? undefined : encryption.uuid;
  if (encryption?.kind === 'guest-luks2') {
    return { kind: 'guest_luks2', labels, uuid, creates: encryption.mode !== 'open' };
  }
  return { kind: 'host_luks', labels, uuid, creates: encryption?.format === 'if_empty' };
}

/**
 * Fetches the key that opens a volume, if it needs one. It is asked for before anything is changed: a source that is
 * down leaves nothing behind. Whoever calls this disposes of it.
 * @throws ShimError with a reason of keys/errors.ts
 */
export async function fetchKey(host: VolumeHost, spec: VolumeSpec): Promise<KeyMaterial | undefined> {
  const reference = keyReference(spec);
  if (reference === undefined) return undefined;
  return await host.keys.fetch(reference, keyUse(host, spec), { signal: host.gone });
}
