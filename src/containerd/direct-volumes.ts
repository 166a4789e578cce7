import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../base/errors.ts';
import type { Pod } from './pod.ts';
import type { DirectVolumeRecord } from './pod-record.ts';

/** Which direct-assigned volumes pods have, and the files that tell Kata's tools so. */

/** Kata's spelling: URL-safe base64 with padding (Go's base64.URLEncoding). */
export function base64Url(path: string): string {
  return Buffer.from(path).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
}

/** Those that the pod's VM has. */
export function directVolumesOf(pod: Pod): readonly DirectVolumeRecord[] {
  if (pod.destroyed || pod.record.exit !== undefined) return [];
  return pod.record.containers
    .filter(({ ready }) => ready)
    .flatMap(({ directVolumes, volumes }) =>
      (directVolumes ?? []).filter(({ volumeId }) => volumes.includes(volumeId)),
    );
}

/**
 * Leaves an empty file with the pod's id beside the record of each volume that the pod has, and nowhere else: by it
 * `kata-ctl direct-volume` and `kata-runtime direct-volume` find the sandbox of a volume. A record that is gone stays
 * so.
 * @param directory of Kata's records
 */
export async function tellKata(pod: Pod, directory: string): Promise<void> {
  const wanted = new Set(directVolumesOf(pod).map(({ volumePath }) => base64Url(volumePath)));
  const names = await readdir(directory).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    const path = join(directory, name, pod.sandboxId);
    if (!wanted.has(name)) {
      await rm(path, { force: true }).catch((error: unknown) => {
        if (errnoOf(error) !== 'ENOTDIR') throw error;
      });
      continue;
    }
    await writeFile(path, '', { mode: 0o600 }).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }
}
