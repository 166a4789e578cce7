import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { fileHash, MIB, readAt, writeAt } from '../support/confidential.ts';
import {
  ext4,
  luksGuestMissing as skip,
  provided,
  refused,
  startLuksGuest,
  type LuksGuest,
} from '../support/luks-guest.ts';
import type { RawDisk } from '../support/raw-vm.ts';

/** The mapping in the guest: what it refuses to lie on, what it notices, how it goes. Its keys: guest-luks.test.ts. */

const small = 32 * MIB;
/** The guest reads the whole disk before it encrypts it; a busy machine without KVM takes its time for that. */
const READING_MS = 600_000;
const disks: readonly RawDisk[] = [
  { serial: 'bare', slot: 0x03, bytes: small },
  { serial: 'sealed', slot: 0x06, bytes: 64 * MIB },
  { serial: 'sealed-xfs', slot: 0x07, bytes: 384 * MIB },
  { serial: 'sealed-key', slot: 0x08, bytes: 64 * MIB },
  { serial: 'used', slot: 0x09, bytes: small, content: [{ offset: 0, bytes: Buffer.alloc(MIB, 'used') }] },
  { serial: 'tail', slot: 0x0a, bytes: small, content: [{ offset: small - 1, bytes: Buffer.from('x') }] },
  { serial: 'busy', slot: 0x0b, bytes: small },
];

describe('mappings of encrypted disks in a real guest', { skip }, () => {
  let guest: LuksGuest;
  before(async () => {
    guest = await startLuksGuest(disks);
  });
  after(() => guest[Symbol.asyncDispose]());

  it('a guest without dm-crypt fails, and nothing is written', async () => {
    const hide = 'p=$(find /lib/modules/ -name "$1.ko*"); mkdir -p /hidden; mv $p /hidden; echo "$p"';
    const [crypt, integrity] = [await guest.output(hide, 'dm-crypt'), await guest.output(hide, 'dm-integrity')];
    const before = await fileHash(guest.vm.diskPath('bare'));
    const missing = refused('GUEST_DM_CRYPT_MISSING', 'UNIMPLEMENTED');
    await assert.rejects(guest.open('bare', { mount: ext4('bare') }), missing);
    await guest.output('mv /hidden/dm-crypt.* "$1"', crypt);
    await assert.rejects(guest.open('bare', { integrity: true, mount: ext4('bare') }), missing);
    await guest.output('mv /hidden/dm-integrity.* "$1"', integrity);
    assert.equal(await guest.output('grep -c /mnt/bare /proc/mounts || true'), '0');
    assert.equal(await fileHash(guest.vm.diskPath('bare')), before);
  });

  describe('integrity', () => {
    for (const [serial, fsType] of [
      ['sealed', 'ext4'],
      ['sealed-xfs', 'xfs'],
    ] as const) {
      it(`${fsType} on an unwiped disk`, async () => {
        const mount = { ...ext4(serial), fsType };
        const opened = await guest.open(serial, { integrity: true, mount, timeoutMs: READING_MS });
        assert.deepEqual(
          [opened.created, opened.cipher, opened.sectorSize, opened.integrity, opened.mount?.formatted],
          [true, 'aes-xts-plain64', 4096, true, true],
        );
        await guest.output(
          'dd if=/dev/urandom of="/mnt/$1/f" bs=65536 count=300 && sync && sha256sum "/mnt/$1/f" > "/mnt/$1/sum"',
          serial,
        );
        assert.match(await guest.output('dmsetup table "vol-$1_dif"', serial), / D /, 'no journal');
        assert.deepEqual(await guest.close(serial), { closed: true });
        const again = await guest.open(serial, { integrity: true, mode: 'open', mount });
        assert.equal(again.mount?.formatted, false);
        assert.match(await guest.output('sha256sum -c "/mnt/$1/sum"', serial), /OK/);
        assert.deepEqual(await guest.close(serial), { closed: true });
      });
    }

    it('a changed byte is an error, not other data; the mapping does not stay', async () => {
      const key = provided(randomBytes(32));
      const request = { key, integrity: true, mount: ext4('sealed-key'), timeoutMs: READING_MS };
      assert.equal((await guest.open('sealed-key', request)).mount?.formatted, true);
      assert.deepEqual(await guest.close('sealed-key'), { closed: true });
      await assert.rejects(
        guest.open('sealed-key', { ...request, integrity: false }),
        refused('LUKS_INTEGRITY_MISMATCH'),
      );
      // Below the whole data area, everything that is not zero.
      const path = guest.vm.diskPath('sealed-key');
      const start = 17 * MIB;
      const data = await readAt(path, start, 6 * MIB);
      for (let at = 0; at < data.length; at += 4096) {
        if (data.readUInt32LE(at) !== 0) data[at] = (data[at] ?? 0) ^ 1;
      }
      await writeAt(path, start, data);
      await guest.output('echo 3 > /proc/sys/vm/drop_caches');
      await assert.rejects(guest.open('sealed-key', { ...request, mode: 'open' }), refused('LUKS_INTEGRITY_ERROR'));
      assert.equal(await guest.output('ls /dev/mapper'), 'control');
    });
  });

  describe('refusals and closing', () => {
    for (const serial of ['used', 'tail']) {
      it(`a disk that is not empty (${serial}) is left as it is`, async () => {
        const before = await fileHash(guest.vm.diskPath(serial));
        for (const key of [{ kind: 'ephemeral' }, provided(randomBytes(32))] as const) {
          for (const mode of ['create', 'open_or_create_if_empty'] as const) {
            await assert.rejects(guest.open(serial, { key, mode }), refused('GUEST_DISK_NOT_EMPTY'));
          }
          await assert.rejects(guest.open(serial, { key, mode: 'open' }), refused('LUKS_NO_HEADER'));
        }
        assert.equal(await fileHash(guest.vm.diskPath(serial)), before);
      });
    }

    it('a blank disk is no encrypted one; another serial is another disk', async () => {
      for (const key of [{ kind: 'ephemeral' }, provided(randomBytes(32))] as const) {
        await assert.rejects(guest.open('bare', { key, mode: 'open' }), refused('LUKS_NO_HEADER'));
      }
      await assert.rejects(guest.open('bare', { serial: 'nobody' }), refused('GUEST_DISK_MISMATCH'));
      assert.deepEqual(await guest.close('bare'), { closed: true });
    });

    it('who keeps it is named; by force key and disk go at once', async () => {
      await guest.open('busy', { mount: ext4('busy') });
      const pid = await guest.output('cd /mnt/busy; sleep 300 > /dev/null 2>&1 & echo $!');
      const busy = await guest.close('busy');
      assert.ok(!busy.closed);
      assert.deepEqual(
        busy.busy.map(({ pid, what }) => [pid, what]),
        [[Number(pid), 'cwd']],
      );
      assert.deepEqual([busy.open, busy.mountedAt], [true, ['/mnt/busy']]);
      await guest.output('mkdir /mnt/more; mount --bind /mnt/busy /mnt/more');
      const half = await guest.close('busy');
      assert.ok(!half.closed && half.open);
      assert.deepEqual(half.mountedAt, ['/mnt/busy'], 'the other mount was free and has gone');
      const forced = await guest.close('busy', { force: true });
      assert.ok(!forced.closed && forced.released, JSON.stringify(forced));
      assert.match(await guest.output('dmsetup table vol-busy'), /^0 \d+ error$/);
      await assert.rejects(guest.open('busy'), refused('LUKS_NAME_IN_USE'));
      await guest.output('kill "$1"; while [ -e "/proc/$1" ]; do sleep 0.05; done', pid);
      await guest.output('while dmsetup table vol-busy > /dev/null 2>&1; do sleep 0.05; done');
      const opened = await guest.open('busy', { mode: 'open', mount: ext4('busy') });
      assert.deepEqual([opened.created, opened.mount?.formatted], [false, false]);
      assert.deepEqual(await guest.close('busy'), { closed: true });
    });

    it('two at once create once', async () => {
      const both = await Promise.all([
        guest.open('bare', { mount: ext4('bare') }),
        guest.open('bare', { mount: ext4('bare') }),
      ]);
      assert.deepEqual(both.map(({ created }) => created).sort(), [false, true]);
      assert.deepEqual(both.map(({ mount }) => mount?.formatted).sort(), [false, true]);
      assert.deepEqual(await guest.close('bare', { forget: true }), { closed: true });
      assert.equal(await guest.output('ls /dev/mapper; ls /run | grep lock || true'), 'control');
    });
  });
});
