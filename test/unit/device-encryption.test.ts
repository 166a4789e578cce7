import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { completeEncryption, mappingName, type RequestedEncryption } from '../../src/volume/model/encryption.ts';
import { qcow2File } from '../../src/volume/source/qcow2-file.ts';
import { rawFile } from '../../src/volume/source/raw-file.ts';
import { completeSpec } from '../../src/volume/spec.ts';

const KEY = { kind: 'file', path: '/keys/a' } as const;
const HOST = {
  kind: 'host-luks',
  key: KEY,
  format: 'never',
  sizeBytes: 0,
  cipher: '',
  hash: '',
  iterationMs: 0,
  uuid: '',
} as const satisfies RequestedEncryption;
const GUEST = {
  kind: 'guest-luks2',
  key: { kind: 'ephemeral' },
  mode: 'open_or_create_if_empty',
  integrity: false,
  sectorSize: 0,
  uuid: '',
} as const satisfies RequestedEncryption;
const RAW = { source: rawFile, readOnly: false } as const;

function refuses(
  requested: RequestedEncryption,
  field: string,
  volume: Parameters<typeof completeEncryption>[1] = RAW,
) {
  assert.throws(
    () => completeEncryption(requested, volume),
    (error) => {
      assert.ok(error instanceof ShimError);
      assert.deepEqual([error.code, error.metadata['field']], ['INVALID_ARGUMENT', field]);
      return true;
    },
  );
}

describe('encryption of a volume', () => {
  it('defaults', () => {
    assert.deepEqual(completeEncryption(HOST, RAW), {
      ...HOST,
      cipher: 'aes-256',
      hash: 'sha256',
      iterationMs: 2000,
    });
    assert.deepEqual(completeEncryption(GUEST, RAW), { ...GUEST, sectorSize: 4096 });
  });

  it('an encrypted volume does not show by its discards what is in use', () => {
    const requested = {
      readOnly: false,
      source: { kind: 'raw-file', path: '/v/a' },
      cache: undefined,
      aio: 'auto',
      discard: undefined,
      detectZeroes: undefined,
      serial: '',
      queues: 0,
      logicalBlockSize: 0,
      physicalBlockSize: 0,
      mount: undefined,
    } as const;
    assert.equal(completeSpec(requested, 'a', 1).discard, 'unmap');
    assert.equal(completeSpec({ ...requested, encryption: GUEST }, 'a', 1).discard, 'ignore');
  });

  it('what contradicts itself is refused', () => {
    const host = 'spec.encryption.host_luks';
    const guest = 'spec.encryption.guest_luks2';
    refuses(HOST, 'spec.source', { ...RAW, source: qcow2File });
    refuses({ ...HOST, key: undefined }, `${host}.key`);
    refuses({ ...HOST, format: 'if_empty' }, `${host}.format`, { ...RAW, readOnly: true });
    refuses({ ...HOST, sizeBytes: 100 }, `${host}.size_bytes`);
    refuses({ ...HOST, cipher: 'rot13' }, `${host}.cipher`);
    refuses({ ...HOST, hash: 'md5' }, `${host}.hash`);
    refuses({ ...HOST, iterationMs: 60_001 }, `${host}.iteration_ms`);
    refuses({ ...HOST, uuid: 'x' }, `${host}.uuid`);
    refuses({ ...GUEST, key: undefined }, `${guest}.key`);
    refuses({ ...GUEST, mode: 'create' }, `${guest}.mode`, { ...RAW, readOnly: true });
    refuses({ ...GUEST, sectorSize: 1024 }, `${guest}.sector_size`);
    refuses({ ...GUEST, uuid: 'ABC' }, `${guest}.uuid`);
  });

  it('a reference is a plain path or name', () => {
    const field = 'spec.encryption.host_luks.key';
    for (const path of ['keys/a', '/keys/../a', '/keys/./a', '/keys/a\0']) {
      refuses({ ...HOST, key: { kind: 'file', path } }, `${field}.file`);
      refuses({ ...HOST, key: { kind: 'tang', path } }, `${field}.tang`);
    }
    for (const name of ['', '.hidden', 'a/b', 'a b', '-x']) {
      refuses({ ...HOST, key: { kind: 'command', name } }, `${field}.command`);
    }
  });

  it('no volume id makes the name of a mapping that the lower half of another one has', () => {
    assert.equal(mappingName('data'), 'data-crypt');
    assert.equal(mappingName('a_dif').endsWith('_dif'), false);
  });
});
