import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { KeyMaterial } from '../../src/keys/material.ts';
import { addWithFiles } from '../../src/volume/credentials.ts';
import { withSecret } from '../../src/volume/secret.ts';
import { bareQemuMissing, startBareQemu } from '../support/bare-qemu.ts';
import { Authority } from '../support/certificates.ts';

/** What QEMU reads once goes to it in descriptors; those of volumes that are attached at once lie beside each other. */

const AT_ONCE = 8;
const ROUNDS = 12;
const STAGGER_MS = 7;
const MEMORY = '/dev/shm';

describe(
  'keys and credentials that are given to one QEMU at once',
  { skip: bareQemuMissing(), timeout: 120_000 },
  () => {
    it('keys: each is read, and each is its own', async () => {
      await using qemu = await startBareQemu(['-machine', 'none']);
      const give = async (number: number): Promise<void> => {
        await sleep(Math.random() * STAGGER_MS);
        const names = { masterSecret: `master-${number}`, keySecret: `key-${number}` };
        using key = KeyMaterial.take(Buffer.from(`the key of volume ${number}`));
        await withSecret(qemu.qmp, MEMORY, names, key, () => Promise.resolve());
      };
      for (let round = 0; round < ROUNDS; round += 1) {
        await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => give(round * AT_ONCE + index)));
      }
      assert.deepEqual(await qemu.qmp.run('query-fdsets'), []);
    });

    it('credentials: each has its files', async () => {
      await using qemu = await startBareQemu(['-machine', 'none']);
      const authority = await Authority.make(qemu.directory, 'house');
      await copyFile(authority.ca.cert, join(qemu.directory, 'ca-cert.pem'));
      const give = async (number: number): Promise<void> => {
        await sleep(Math.random() * STAGGER_MS);
        const id = `tls-${number}`;
        const dir = join(qemu.directory, id);
        const args = { 'qom-type': 'tls-creds-x509', id, endpoint: 'client', dir, 'verify-peer': true } as const;
        await addWithFiles(qemu.qmp, MEMORY, {
          add: { command: 'object-add', arguments: args },
          files: qemu.directory,
        });
        await qemu.qmp.run('object-del', { id });
      };
      for (let round = 0; round < ROUNDS; round += 1) {
        await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => give(round * AT_ONCE + index)));
      }
      assert.deepEqual(await qemu.qmp.run('query-fdsets'), []);
    });
  },
);
