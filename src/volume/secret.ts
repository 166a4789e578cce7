import { isUtf8 } from 'node:buffer';
import { createCipheriv, randomBytes, randomFillSync } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { ShimError } from '../base/errors.ts';
import type { KeyMaterial } from '../keys/material.ts';
import { unnamedFile } from '../qemu/unnamed-file.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';

/** linux/magic.h */
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;
const MASTER_KEY_BYTES = 32;
const IV_BYTES = 16;

export interface SecretNames {
  readonly keySecret: string;
  readonly masterSecret: string;
}

/**
 * Gives QEMU a key for as long as `work` lasts. The key goes over QMP encrypted (AES-256-CBC) under a master key that is
 * drawn for this once and goes another way: in a file in memory that has no name, gone as soon as QEMU has read it or this
 * process has ended, however that ends. So neither what is recorded of QMP nor what is found in a directory yields the key,
 * and a daemon that comes back needs no master key, and has none to clear away.
 * Both secret objects are gone when this returns; should the connection break, the volume's removal takes them away.
 * @throws ShimError FAILED_PRECONDITION / KEY_NOT_TEXT (QEMU takes UTF-8 without NUL), SECRET_DIR_NOT_IN_MEMORY; what
 *   `work` throws
 */
export async function withSecret<T>(
  qmp: QmpClient,
  secretDir: string,
  names: SecretNames,
  key: KeyMaterial,
  work: () => Promise<T>,
): Promise<T> {
  const master = Buffer.alloc(MASTER_KEY_BYTES);
  try {
    randomFillSync(master);
    const { data, iv } = key.use((bytes) => encrypt(bytes, master));
    await handOverMaster(qmp, secretDir, names.masterSecret, master);
    try {
      await qmp.run('object-add', {
        'qom-type': 'secret',
        id: names.keySecret,
        keyid: names.masterSecret,
        format: 'base64',
        data,
        iv,
      });
      return await work();
    } finally {
      await removeSecrets(qmp, [names.keySecret, names.masterSecret]);
    }
  } finally {
    master.fill(0);
  }
}

function encrypt(bytes: Buffer, master: Buffer): { readonly data: string; readonly iv: string } {
  if (!isUtf8(bytes) || bytes.includes(0)) {
    throw new ShimError('FAILED_PRECONDITION', 'the key is not text (UTF-8 without NUL), which QEMU needs it to be', {
      reason: 'KEY_NOT_TEXT',
    });
  }
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-cbc', master, iv);
  const data = Buffer.concat([cipher.update(bytes), cipher.final()]);
  return { data: data.toString('base64'), iv: iv.toString('base64') };
}

async function handOverMaster(qmp: QmpClient, secretDir: string, id: string, master: Buffer): Promise<void> {
  await checkInMemory(secretDir);
  await using file = await unnamedFile(master, secretDir);
  // QEMU is this user's, and may read what this process has open. The reply comes when it has.
  await qmp.run('object-add', { 'qom-type': 'secret', id, file: `/proc/${process.pid}/fd/${file.fd}` });
}

async function checkInMemory(directory: string): Promise<void> {
  const { type } = await statfs(directory);
  if (type === TMPFS_MAGIC || type === RAMFS_MAGIC) return;
  throw new ShimError('FAILED_PRECONDITION', `secret_dir (${directory}) is neither on tmpfs nor on ramfs`, {
    reason: 'SECRET_DIR_NOT_IN_MEMORY',
    metadata: { path: directory },
  });
}

async function removeSecrets(qmp: QmpClient, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    await qmp.run('object-del', { id }).catch((error: unknown) => {
      // It may never have been made. The removal looks once more.
      if (!isQmpError(error)) throw error;
    });
  }
}
