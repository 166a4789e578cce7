import { closeSync, readSync, writeSync } from 'node:fs';
import { isShimError } from '../base/errors.ts';
import { fileHelpers } from '../files/helpers.ts';
import { takeDescriptor } from '../files/take.ts';
import { keyError } from './errors.ts';
import type { SecretFile } from './key-file.ts';

/**
 * Has a helper read a small file (key-file.ts), so that a file system that hangs holds nobody else up. The bytes are
 * the caller's to zero; what the helper had of them is zeroed.
 * @throws as readSecretFile; ShimError KEY_SOURCE_DOWN when the file system does not answer
 */
export async function lookAtSecretFile(wanted: SecretFile, timeoutMs: number): Promise<Buffer> {
  try {
    using kept = await fileHelpers.keep('readSecretFile', [wanted], { path: wanted.path, timeoutMs });
    const bytes = Buffer.alloc(Number(kept.value));
    const memory = await takeDescriptor(kept);
    try {
      readSync(memory, bytes, 0, bytes.length, 0);
      writeSync(memory, Buffer.alloc(bytes.length), 0, bytes.length, 0);
    } finally {
      closeSync(memory);
    }
    return bytes;
  } catch (error) {
    if (!isShimError(error) || error.reason !== 'SOURCE_NOT_ANSWERING') throw error;
    const { path } = wanted;
    throw keyError('KEY_SOURCE_DOWN', `${path}: ${error.message}`, { metadata: { path }, cause: error });
  }
}
