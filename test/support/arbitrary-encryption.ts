import fc from 'fast-check';
import {
  HOST_CIPHERS,
  HOST_HASHES,
  type EncryptionSpec,
  type EncryptionView,
} from '../../src/volume/model/encryption.ts';
import type { KeyReference } from '../../src/keys/reference.ts';

/** Complete encryption specs, as journal and API must carry them. */

const plain = { noNullPrototype: true } as const;
const uuid = fc.constantFrom('', '0f5e7d22-0000-4000-8000-00000000abcd');

export const keyReference: fc.Arbitrary<KeyReference> = fc.oneof(
  fc.record(
    { kind: fc.constantFrom('file' as const, 'tang' as const), path: fc.constantFrom('/k/a', '/k/ü b') },
    plain,
  ),
  fc.record(
    {
      kind: fc.constantFrom('systemd-credential' as const, 'environment' as const, 'command' as const),
      name: fc.constantFrom('disk.key', 'VAULT_1'),
    },
    plain,
  ),
);

const hostLuks: fc.Arbitrary<EncryptionSpec> = fc.record(
  {
    kind: fc.constant('host-luks' as const),
    key: keyReference,
    format: fc.constant('never' as const),
    sizeBytes: fc.nat(1000).map((sectors) => sectors * 512),
    cipher: fc.constantFrom(...HOST_CIPHERS),
    hash: fc.constantFrom(...HOST_HASHES),
    iterationMs: fc.integer({ min: 1, max: 60_000 }),
    uuid,
  },
  plain,
);

const guestLuks2: fc.Arbitrary<EncryptionSpec> = fc.record(
  {
    kind: fc.constant('guest-luks2' as const),
    key: fc.oneof(
      fc.constant({ kind: 'ephemeral' as const }),
      fc.record({ kind: fc.constant('provided' as const), reference: keyReference }, plain),
    ),
    mode: fc.constantFrom('open' as const, 'open_or_create_if_empty' as const),
    integrity: fc.boolean(),
    sectorSize: fc.constantFrom(512 as const, 4096 as const),
    uuid,
  },
  plain,
);

/** Any that fits a raw file or a block device, read-only or not. */
export const encryptionSpec: fc.Arbitrary<EncryptionSpec | undefined> = fc.option(fc.oneof(hostLuks, guestLuks2), {
  nil: undefined,
});

export const encryptionView: fc.Arbitrary<EncryptionView | undefined> = fc.option(
  fc.record(
    {
      format: fc.constantFrom('luks1' as const, 'luks2' as const),
      cipher: fc.constantFrom('aes-xts-plain64', 'serpent-xts-plain64'),
      sectorSize: fc.constantFrom(512, 4096),
      integrity: fc.boolean(),
      keySlots: fc.nat(32),
      uuid,
      created: fc.boolean(),
      mappedDevice: fc.constantFrom('', '/dev/mapper/a-crypt'),
    },
    plain,
  ),
  { nil: undefined },
);
