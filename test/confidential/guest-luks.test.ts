import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { ensureCommands } from '../../scripts/lib/packages.ts';
import { fileHash, MIB, readAt, writeAt } from '../support/confidential.ts';
import {
  ext4,
  LUKS_TIMEOUT_MS as timeoutMs,
  luksGuestMissing as skip,
  provided,
  refused,
  startLuksGuest,
  type LuksGuest,
} from '../support/luks-guest.ts';
import type { RawDisk } from '../support/raw-vm.ts';

/** What opens an encrypted disk in the guest, and what does not. The mapping itself: guest-luks-mapping.test.ts. */

const PATTERN_WINDOW_BYTES = 16;
const FIRST_FREE_SLOT = 0x10;

const disks: readonly RawDisk[] = [
  { serial: 'ephemeral', slot: 0x04, bytes: 96 * MIB },
  { serial: 'provided', slot: 0x05, bytes: 64 * MIB },
  { serial: 'made-here', slot: 0x0c, bytes: 64 * MIB },
];

/** How many of the aligned windows of a file occur in a set; a window of plaintext at any alignment would show. */
async function windowsFound(path: string, wanted: ReadonlySet<string>): Promise<number> {
  let found = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) {
    const buffer = chunk as Buffer;
    for (let at = 0; at + PATTERN_WINDOW_BYTES <= buffer.length; at += PATTERN_WINDOW_BYTES) {
      if (wanted.has(buffer.toString('latin1', at, at + PATTERN_WINDOW_BYTES))) found += 1;
    }
  }
  return found;
}

describe('keys of encrypted disks in a real guest', { skip }, () => {
  let guest: LuksGuest;
  let directory: string;

  before(async () => {
    await ensureCommands(['cryptsetup']);
    directory = await mkdtemp(join(tmpdir(), 'qshim-luks-'));
    guest = await startLuksGuest(disks);
  });

  after(async () => {
    await guest[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });

  describe('an ephemeral key', () => {
    const seed = randomBytes(48);
    /** The guest makes 64 MiB of it: 1 MiB of random bytes, 64 times. */
    const pattern = createHash('shake256', { outputLength: MIB }).update(seed).digest();
    const wanted = new Set<string>();
    for (let at = 0; at < pattern.length; at += PATTERN_WINDOW_BYTES) {
      wanted.add(pattern.toString('latin1', at, at + PATTERN_WINDOW_BYTES));
    }

    it('what is written through the mapping does not occur on the host; no LUKS either', async () => {
      const opened = await guest.open('ephemeral', { mode: 'create', mount: ext4('ephemeral') });
      const { created, cipher, sectorSize, integrity, keySlots, mount } = opened;
      assert.deepEqual([created, cipher, sectorSize, integrity, keySlots], [true, 'aes-xts-plain64', 4096, false, 1]);
      assert.equal(mount?.formatted, true);
      assert.equal(opened.device, '/dev/mapper/vol-ephemeral');
      const write =
        'cat > /tmp/p; for i in $(seq 64); do cat /tmp/p; done > /mnt/ephemeral/f; sync; sha256sum < /tmp/p';
      const done = await guest.agent.exec({ path: '/bin/sh', args: ['-c', write], input: pattern, timeoutMs });
      assert.match(done.stdout.toString(), new RegExp(createHash('sha256').update(pattern).digest('hex')));

      const path = guest.vm.diskPath('ephemeral');
      assert.equal(await windowsFound(path, wanted), 0);
      // The check itself can see a pattern.
      const plain = join(directory, 'plain');
      await writeFile(plain, Buffer.concat([Buffer.alloc(MIB), pattern]));
      assert.equal(await windowsFound(plain, wanted), MIB / PATTERN_WINDOW_BYTES);
      const content = await readAt(path, 0, 4 * MIB);
      assert.equal(content.indexOf('LUKS'), -1);
      assert.notEqual((await execa('cryptsetup', ['isLuks', path], { reject: false })).exitCode, 0);
    });

    it('the key is on a ramfs and nowhere else', async () => {
      const found = await guest.output(
        'stat -f -c %T /run/qshim-luks/vol-ephemeral/key; stat -c "%a %s" /run/qshim-luks/vol-ephemeral/key',
      );
      assert.match(found, /^(ramfs|UNKNOWN)\n600 64$/);
      assert.match(await guest.output('grep /run/qshim-luks/vol-ephemeral /proc/mounts'), /^ramfs /);
    });

    it('closed and opened again within one boot it is all there', async () => {
      assert.deepEqual(await guest.close('ephemeral'), { closed: true });
      assert.equal(await guest.output('ls /dev/mapper'), 'control');
      assert.equal(await guest.output('ls /run/qshim-luks/vol-ephemeral'), 'header\nkey\nsectors');
      await assert.rejects(guest.open('ephemeral', { mode: 'create' }), refused('GUEST_DISK_NOT_EMPTY'));
      const again = await guest.open('ephemeral', { mode: 'open', mount: ext4('ephemeral') });
      assert.deepEqual([again.created, again.mount?.formatted], [false, false]);
      const sum = await guest.output('head -c 1048576 /mnt/ephemeral/f | sha256sum');
      assert.match(sum, new RegExp(createHash('sha256').update(pattern).digest('hex')));
      // Heard or not, the same call again is the same answer.
      const repeated = await guest.open('ephemeral', { mode: 'open', mount: ext4('ephemeral') });
      assert.deepEqual([repeated.created, repeated.mount?.formatted], [false, false]);
    });

    it('forgotten, or after power-off, it is not to be had again', async () => {
      assert.deepEqual(await guest.close('ephemeral'), { closed: true });
      const image = await readAt(guest.vm.diskPath('ephemeral'), 0, 96 * MIB);
      assert.deepEqual(await guest.close('ephemeral', { forget: true }), { closed: true });
      assert.equal(await guest.output('ls /run/qshim-luks'), '');
      await assert.rejects(guest.open('ephemeral', { mode: 'open' }), refused('LUKS_NO_HEADER'));

      const list = [{ serial: 'ephemeral', slot: 4, bytes: image.length, content: [{ offset: 0, bytes: image }] }];
      await using next = await startLuksGuest(list);
      await assert.rejects(next.open('ephemeral', { mode: 'open' }), refused('LUKS_NO_HEADER'));
      for (const mode of ['create', 'open_or_create_if_empty'] as const) {
        await assert.rejects(
          next.open('ephemeral', { mode, mount: ext4('ephemeral') }),
          refused('GUEST_DISK_NOT_EMPTY'),
        );
      }
      assert.equal(
        await fileHash(next.vm.diskPath('ephemeral')),
        createHash('sha256').update(image).digest('hex'),
        'a refusal writes nothing',
      );
    });
  });

  describe('a provided key', () => {
    // With the bytes that a shell or a text file would lose.
    const key = Buffer.concat([Buffer.from([0, 10, 13, 255, 39, 34, 36]), randomBytes(40), Buffer.from([10])]);
    const name = 'vol-provided';

    it('the host, given the key, reads the same header', async () => {
      const opened = await guest.open('provided', { key: provided(key), mount: ext4('provided') });
      assert.deepEqual([opened.created, opened.mount?.formatted, opened.keySlots], [true, true, 1]);
      await guest.output('echo kept > /mnt/provided/f');
      assert.deepEqual(await guest.close('provided'), { closed: true });
      const path = guest.vm.diskPath('provided');
      const dump = await execa('cryptsetup', ['luksDump', path]);
      for (const line of [
        /Version:\s+2/,
        /cipher: aes-xts-plain64/,
        /sector: 4096/,
        /PBKDF:\s+argon2id/,
        /Memory:\s+65536/,
      ]) {
        assert.match(dump.stdout, line);
      }
      const keyFile = join(directory, 'key');
      await writeFile(keyFile, key, { mode: 0o600 });
      await execa('cryptsetup', ['open', '--test-passphrase', `--key-file=${keyFile}`, path]);
    });

    it('it opens with the key, with no other, and is never created again', async () => {
      const path = guest.vm.diskPath('provided');
      const wrong = provided(randomBytes(48));
      const before = await fileHash(path);
      for (const mode of ['open', 'open_or_create_if_empty'] as const) {
        await assert.rejects(
          guest.open('provided', { mode, key: wrong, mount: ext4('provided') }),
          refused('LUKS_WRONG_KEY'),
        );
      }
      const create = guest.open('provided', { mode: 'create', key: provided(key), mount: ext4('provided') });
      await assert.rejects(create, refused('GUEST_DISK_NOT_EMPTY'));
      assert.equal(await fileHash(path), before);
      const opened = await guest.open('provided', { mode: 'open', key: provided(key), mount: ext4('provided') });
      assert.deepEqual([opened.created, opened.mount?.formatted, opened.keySlots], [false, false, 1]);
      assert.equal(await guest.output('cat /mnt/provided/f'), 'kept');
      // Open already: still only for who has the key.
      await assert.rejects(guest.open('provided', { mode: 'open', key: wrong }), refused('LUKS_WRONG_KEY'));
      assert.equal(await guest.output(`blockdev --getsize64 /dev/mapper/${name}`), String(48 * MIB));
    });

    it('the key is in no argument, environment or file of the guest, and not on its console', async () => {
      // The first bytes would end a string; the middle is what would be seen.
      const needle = key.subarray(8, 40).toString('base64').slice(0, 40);
      const seen = await guest.output('cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | base64 -w 0');
      assert.equal(Buffer.from(seen, 'base64').indexOf(key.subarray(8, 40)), -1);
      assert.equal((await guest.vm.console()).includes(needle), false);
      const files = await guest.output(
        'find /run /tmp /root /mnt -xdev -type f -size -1000 -exec cat {} + | base64 -w 0',
      );
      assert.equal(Buffer.from(files, 'base64').indexOf(key.subarray(8, 40)), -1);
      assert.deepEqual(await guest.close('provided'), { closed: true });
    });

    const damages: readonly (readonly [string, string, (path: string) => Promise<void>])[] = [
      ['a damaged header', 'LUKS_HEADER_DAMAGED', damageBoth],
      ['a disk that has lost its end', 'LUKS_DEVICE_TRUNCATED', async (path) => await truncate(path, 40 * MIB)],
      ['a disk shorter than its header', 'LUKS_DEVICE_TRUNCATED', async (path) => await truncate(path, 8 * MIB)],
      [
        'a disk whose headers are gone',
        'LUKS_NO_HEADER',
        async (path) => await writeAt(path, 0, Buffer.alloc(32 * 1024)),
      ],
    ];

    it('damage has a name, and is never leave to format', async (t) => {
      const source = guest.vm.diskPath('provided');
      const list: RawDisk[] = [];
      for (const [index, [, , damage]] of damages.entries()) {
        const path = join(directory, `damaged-${index}`);
        await copyFile(source, path);
        await damage(path);
        const file = await readAt(path, 0, 64 * MIB);
        await using handle = await open(path, 'r');
        const { size } = await handle.stat();
        const content = [{ offset: 0, bytes: file.subarray(0, size) }];
        list.push({ serial: `damaged-${index}`, slot: FIRST_FREE_SLOT + index, bytes: size, content });
      }
      await using next = await startLuksGuest(list);
      for (const [index, [what, reason]] of damages.entries()) {
        await t.test(what, async () => {
          const serial = `damaged-${index}`;
          const before = await fileHash(next.vm.diskPath(serial));
          const request = { key: provided(key), mount: ext4(serial) };
          await assert.rejects(next.open(serial, { ...request, mode: 'open' }), refused(reason));
          const other = reason === 'LUKS_NO_HEADER' ? 'GUEST_DISK_NOT_EMPTY' : reason;
          await assert.rejects(next.open(serial, request), refused(other));
          assert.equal(await fileHash(next.vm.diskPath(serial)), before);
        });
      }
    });

    it("a container made by the host's cryptsetup is opened, and formatted only while its data area is blank", async () => {
      // The guest reads the file's present contents: nothing of this disk is in its cache yet.
      const path = guest.vm.diskPath('made-here');
      const keyFile = join(directory, 'key');
      const cost = ['--pbkdf=pbkdf2', '--pbkdf-force-iterations=1000'];
      await execa('cryptsetup', ['luksFormat', '-q', '--type=luks2', ...cost, `--key-file=${keyFile}`, path]);
      const request = { mode: 'open', key: provided(key), mount: ext4('made-here') } as const;
      const never = { ...request, mount: { ...request.mount, format: 'never' } } as const;
      await assert.rejects(guest.open('made-here', never), refused('GUEST_NO_FILESYSTEM'));
      const opened = await guest.open('made-here', request);
      assert.deepEqual([opened.created, opened.mount?.formatted], [false, true]);
      assert.deepEqual(await guest.close('made-here'), { closed: true });
      const raw = await guest.open('made-here', { mode: 'open', key: provided(key) });
      await guest.output('dd if=/dev/zero of="$1" bs=65536 count=4', raw.device);
      assert.deepEqual(await guest.close('made-here'), { closed: true });
      await assert.rejects(guest.open('made-here', request), refused('GUEST_DISK_NOT_EMPTY'));
    });
  });
});

/** The JSON of both copies (behind the binary headers at 0 and 16 KiB) no longer matches its checksum. */
async function damageBoth(path: string): Promise<void> {
  for (const offset of [4096, 16 * 1024 + 4096]) await writeAt(path, offset + 64, Buffer.from('damage'));
}
