import { createHash } from 'node:crypto';
import { ShimError } from '../base/errors.ts';
import { ID_LENGTH_MAX } from '../base/ids.ts';

/** How containerd's names become names of qshim. Pure. */

/** The namespace that CRI uses: there a sandbox has the pod's own id. */
export const CRI_NAMESPACE = 'k8s.io';
const HASH_DIGITS = 12;
const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** A pod or a container: containerd's ids are unique only within their namespace. */
export interface Named {
  readonly namespace: string;
  readonly id: string;
}

/** @throws ShimError INVALID_ARGUMENT / INVALID_ID for what containerd itself would not accept */
export function checkNamed(name: Named): Named {
  for (const [field, value] of Object.entries(name)) {
    if (typeof value === 'string' && NAME_PATTERN.test(value)) continue;
    throw new ShimError('INVALID_ARGUMENT', `${field} = ${JSON.stringify(value)}: is not a containerd identifier`, {
      reason: 'INVALID_ID',
      metadata: { field },
    });
  }
  return name;
}

/**
 * The sandbox of a pod: the pod's id in CRI's namespace, else `NAMESPACE.ID`; with a hash of both where that is too
 * long, or where dots of their own leave open which is which.
 */
export function sandboxIdOf({ namespace, id }: Named): string {
  const ofCri = namespace === CRI_NAMESPACE;
  const name = ofCri ? id : `${namespace}.${id}`;
  const dots = name.split('.').length - 1;
  if (name.length <= ID_LENGTH_MAX && dots === (ofCri ? 0 : 1)) return name;
  return `${name.slice(0, ID_LENGTH_MAX - HASH_DIGITS - 1)}-${digest(`${namespace}\0${id}`)}`;
}

/** The volume of a container's root file system. */
export function rootfsVolumeId(containerId: string): string {
  return `rootfs-${digest(containerId)}`;
}

/** The volume of a host source: the same source has the same id, so that containers of a pod share one attachment. */
export function sharedVolumeId(source: string, mount: string): string {
  return `volume-${digest(`${source}\0${mount}`)}`;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, HASH_DIGITS);
}
