import { isUtf8 } from 'node:buffer';
import { createCipheriv, randomBytes, randomFillSync } from 'node:crypto';
import { ShimError } from '../base/errors.ts';
import type { KeyMaterial } from '../keys/material.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import { MemoryFiles } from './memory-file.ts';

const MASTER_KEY_BYTES = 32;
/** Below those of volumes (model/names.ts). */
const MASTER_FDSET = 900;
const IV_BYTES = 16;

export interface SecretNames {
  readonly keySecret: string;
  readonly masterSecret: string;
}

/**
 * Gives QEMU a key. It goes over QMP encrypted (AES-256-CBC) under a master key that is drawn for this once and goes
 * another way: in a file in memory that has no name, gone as soon as QEMU has read it or this process has ended,
 * however that ends. So neither what is recorded of QMP nor what is found in a directory yields the key, and a daemon
 * that comes back needs no master key, and has none to clear away.
 */
export class SecretHandover implements AsyncDisposable {
  readonly #qmp: QmpClient;
  readonly #secretDir: string;
  readonly #key: KeyMaterial | undefined;
  readonly #master = Buffer.alloc(MASTER_KEY_BYTES);
  /** Ids of the objects that QEMU may have, the newest first. */
  readonly #given: string[] = [];

  /** @param key what the secrets stand for; undefined where the list of objects has none */
  constructor(qmp: QmpClient, secretDir: string, key: KeyMaterial | undefined) {
    this.#qmp = qmp;
    this.#secretDir = secretDir;
    this.#key = key;
  }

  /**
   * Adds one of the two secrets, the master key first.
   * @param named `keyid` names the master key; without one it is the master key
   * @throws ShimError FAILED_PRECONDITION / KEY_NOT_TEXT (QEMU takes UTF-8 without NUL), SECRET_DIR_NOT_IN_MEMORY
   */
  async add({ id, keyid }: { readonly id: string; readonly keyid?: string }): Promise<void> {
    if (this.#key === undefined) throw new Error('an encrypted volume is attached without its key');
    if (keyid === undefined) {
      randomFillSync(this.#master);
      // Before anything is sent: a key that is of no use leaves nothing behind.
      this.#key.use(checkText);
      this.#given.unshift(id);
      await handOverMaster(this.#qmp, this.#secretDir, id, this.#master);
      return;
    }
    const { data, iv } = this.#key.use((bytes) => encrypt(bytes, this.#master));
    this.#given.unshift(id);
    await this.#qmp.run('object-add', { 'qom-type': 'secret', id, keyid, format: 'base64', data, iv });
  }

  /** Takes the secrets away again: nothing needs them any more. @throws what the connection throws */
  async release(): Promise<void> {
    for (let id = this.#given[0]; id !== undefined; id = this.#given[0]) {
      // It may never have been made. The removal looks once more.
      await this.#qmp.run('object-del', { id }).catch((error: unknown) => {
        if (!isQmpError(error)) throw error;
      });
      this.#given.shift();
    }
  }

  /** Should the connection break, the volume's removal takes away what is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#master.fill(0);
    await this.release().catch(() => undefined);
  }
}

/**
 * Gives QEMU a key for as long as `work` lasts. Both secret objects are gone when this returns.
 * @throws as SecretHandover does; what `work` throws
 */
export async function withSecret<T>(
  qmp: QmpClient,
  secretDir: string,
  names: SecretNames,
  key: KeyMaterial,
  work: () => Promise<T>,
): Promise<T> {
  await using secrets = new SecretHandover(qmp, secretDir, key);
  await secrets.add({ id: names.masterSecret });
  await secrets.add({ id: names.keySecret, keyid: names.masterSecret });
  const result = await work();
  await secrets.release();
  return result;
}

function checkText(bytes: Buffer): void {
  if (isUtf8(bytes) && !bytes.includes(0)) return;
  throw new ShimError('FAILED_PRECONDITION', 'the key is not text (UTF-8 without NUL), which QEMU needs it to be', {
    reason: 'KEY_NOT_TEXT',
  });
}

function encrypt(bytes: Buffer, master: Buffer): { readonly data: string; readonly iv: string } {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-cbc', master, iv);
  const data = Buffer.concat([cipher.update(bytes), cipher.final()]);
  return { data: data.toString('base64'), iv: iv.toString('base64') };
}

async function handOverMaster(qmp: QmpClient, secretDir: string, id: string, master: Buffer): Promise<void> {
  await using memory = new MemoryFiles(qmp, secretDir, MASTER_FDSET);
  // A secret's `file` takes no /dev/fdset (crypto/secret.c, g_file_get_contents). The reply comes when it was read.
  await qmp.run('object-add', { 'qom-type': 'secret', id, file: await memory.give(master) });
}
