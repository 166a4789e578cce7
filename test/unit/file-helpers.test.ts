import assert from 'node:assert/strict';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, open, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { errnoOf, isShimError } from '../../src/base/errors.ts';
import { configWith } from '../../src/config.ts';
import { FileHelpers } from '../../src/files/helpers.ts';
import { leadsElsewhere } from '../../src/files/leads.ts';
import { mountPointOf } from '../../src/files/mounts.ts';
import { errorData, errorFrom } from '../../src/files/wire.ts';
import { PLACE_FLAGS, messagePair, openBeneath, receiveDescriptor } from '../../src/files/native.ts';
import { lookAtSecretFile } from '../../src/keys/secret-look.ts';
import { openSource } from '../../src/volume/looks.ts';
import { fileIdentity, openKnown } from '../../src/volume/source/open-file.ts';
import { hungFileSystem, type HungFileSystem } from '../support/hung-fs.ts';

const USE = { readOnly: false, logicalBlockSize: 512, hostLuks: undefined, createsIfEmpty: false, direct: false };
const TIMEOUT_MS = 500;
let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'qshim-files-'));
});
after(async () => await rm(directory, { recursive: true }));

function thrown(act: () => unknown): string | undefined {
  try {
    act();
  } catch (error) {
    return errnoOf(error);
  }
  return undefined;
}

describe('where a path leads', () => {
  it('out of its file system: by a link, by .., by a mount on the way; and no further', async () => {
    const home = await realpath(await mkdtemp(join(tmpdir(), 'qshim-leads-')));
    try {
      await mkdir(join(home, 'a/b'), { recursive: true });
      await mkdir(join(home, 'mounted'));
      await writeFile(join(home, 'a/b/file'), '');
      await symlink('b/file', join(home, 'a/near'));
      await symlink('../mounted/x', join(home, 'a/far'));
      await symlink('/other/place', join(home, 'a/absolute'));
      await symlink(join(home, 'a'), join(home, 'self'));
      await symlink('round', join(home, 'round'));
      const points = ['/', home, join(home, 'mounted'), '/other'];
      const mountinfo = points.map((point, id) => `${id} 0 0:1 / ${point} rw - tmpfs x rw`).join('\n');
      const leads = (path: string): Promise<string | undefined> => leadsElsewhere(`${home}/${path}`, mountinfo);
      for (const stays of ['a/b/file', 'a/near', 'self/b', 'a/../a/near', 'missing/x', 'round', '.']) {
        assert.equal(await leads(stays), undefined, stays);
      }
      assert.equal(await leads('a/far'), `${home}/mounted/x`);
      assert.equal(await leads('a/absolute/deep'), '/other/place/deep');
      assert.equal(await leads('a/../../up'), `${dirname(home)}/up`);
      assert.equal(await leadsElsewhere(`${home}/mounted/../a`, mountinfo), `${home}/a`);
    } finally {
      await rm(home, { recursive: true });
    }
  });
});

describe('a file below a root', () => {
  it('is opened without following a symbolic link, at the end or on the way, and without leaving the root', async () => {
    const root = join(directory, 'root');
    await mkdir(join(root, 'a'), { recursive: true });
    await writeFile(join(root, 'a/file'), 'bytes');
    await symlink('file', join(root, 'a/link'));
    await symlink('a', join(root, 'way'));
    await symlink('/etc', join(root, 'out'));
    const place = openSync(root, PLACE_FLAGS);
    try {
      closeSync(openBeneath(place, 'a/file'));
      assert.equal(
        thrown(() => openBeneath(place, 'a/link')),
        'ELOOP',
      );
      assert.equal(
        thrown(() => openBeneath(place, 'way/file')),
        'ELOOP',
      );
      assert.equal(
        thrown(() => openBeneath(place, 'out/passwd')),
        'ELOOP',
      );
      assert.equal(
        thrown(() => openBeneath(place, '../files')),
        'EXDEV',
      );
      assert.equal(
        thrown(() => openBeneath(place, '/etc/passwd')),
        'EXDEV',
      );
    } finally {
      closeSync(place);
    }
  });

  it('that was looked at is opened again only while it is the same', async () => {
    const path = join(directory, 'known');
    await writeFile(path, 'one');
    const identity = fileIdentity(await stat(path));
    await using file = await openKnown(path, identity, 0);
    assert.equal((await file.stat()).size, 3);
    await writeFile(join(directory, 'other'), 'other');
    await rename(join(directory, 'other'), path);
    await assert.rejects(openKnown(path, identity, 0), { reason: 'SOURCE_CHANGED' });
    await rm(path);
    await symlink('/etc/passwd', path);
    await assert.rejects(openKnown(path, identity, 0), { reason: 'SOURCE_CHANGED' });
  });

  it('is sent as it was seen, whatever lies at its path by then', async () => {
    const path = join(directory, 'sent');
    writeFileSync(path, Buffer.alloc(512, 'seen'));
    const config = configWith({ allowed_roots: [directory] });
    using source = await openSource({ kind: 'raw-file', path }, USE, config);
    await rm(path);
    writeFileSync(path, Buffer.alloc(512, 'swapped'));
    const [ours, qemus] = messagePair();
    try {
      await source.send(ours, Buffer.from('add-fd'));
      const { bytes, descriptor } = receiveDescriptor(qemus, 100);
      assert.equal(bytes.toString(), 'add-fd');
      assert.ok(descriptor !== undefined);
      await using file = await open(`/proc/self/fd/${descriptor}`, 'r');
      assert.equal((await file.readFile('utf8')).slice(0, 4), 'seen');
      closeSync(descriptor);
    } finally {
      closeSync(ours);
      closeSync(qemus);
    }
  });

  it('is let go of once it was sent, when QEMU has answered before the helper', async () => {
    const path = join(directory, 'quick');
    writeFileSync(path, Buffer.alloc(512, 'seen'));
    const source = await openSource({ kind: 'raw-file', path }, USE, configWith({ allowed_roots: [directory] }));
    const [ours, qemus] = messagePair();
    try {
      const sent = source.send(ours, Buffer.from('add-fd'));
      source[Symbol.dispose]();
      await sent;
      const { descriptor } = receiveDescriptor(qemus, 100);
      assert.ok(descriptor !== undefined);
      closeSync(descriptor);
    } finally {
      closeSync(ours);
      closeSync(qemus);
    }
  });
});

it('an error of a helper tells the daemon whether something had been sent', () => {
  const system = Object.assign(new Error('EPIPE'), { code: 'EPIPE', sent: true });
  const received = errorFrom(errorData(system));
  assert.equal(errnoOf(received), 'EPIPE');
  assert.ok('sent' in received);
  assert.ok(!('sent' in errorFrom(errorData(new Error('nothing went')))));
});

it('the file system of a path is found without touching it', () => {
  const line = (point: string): string => `36 35 98:0 / ${point} rw,noatime - ext4 /dev/root rw`;
  const mountinfo = ['/', '/data', '/data/with\\040blank', '/data2'].map(line).join('\n');
  assert.equal(mountPointOf('/data/x/y', mountinfo), '/data');
  assert.equal(mountPointOf('/data', mountinfo), '/data');
  assert.equal(mountPointOf('/data2/x', mountinfo), '/data2');
  assert.equal(mountPointOf('/data3', mountinfo), '/');
  assert.equal(mountPointOf('/data/with blank/x', mountinfo), '/data/with blank');
  assert.equal(mountPointOf('/', mountinfo), '/');
});

describe('a file system that hangs', async () => {
  const probe = await hungFileSystem();
  const skip = probe === undefined && 'no FUSE file system can be had here (needs root and /dev/fuse)';
  await probe?.[Symbol.asyncDispose]();

  async function hung(): Promise<HungFileSystem> {
    const system = await hungFileSystem();
    assert.ok(system !== undefined);
    return system;
  }
  const reasonOf = (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => 'answered',
      (error: unknown) => (isShimError(error) ? error.reason : String(error)),
    );

  it('fails its own looks, in time, and nobody else notices', { skip }, async () => {
    await using system = await hung();
    using helpers = new FileHelpers();
    const path = join(directory, 'plain');
    await writeFile(path, 'bytes');
    const look = (at: string, timeoutMs = TIMEOUT_MS): Promise<unknown> =>
      helpers.ask('isBlockDevice', [at], { path: at, timeoutMs });
    // More than libuv has threads, and more than may hang.
    const looks = Array.from({ length: 12 }, (_, index) => reasonOf(look(join(system.path, String(index)))));
    for (let round = 0; round < 5; round += 1) assert.equal(await look(path, 60_000), false);
    assert.deepEqual([...new Set(await Promise.all(looks))], ['SOURCE_NOT_ANSWERING']);
    assert.ok(system.taken() > 0, 'the file system was asked');
    assert.equal(await reasonOf(look(join(system.path, 'later'))), 'SOURCE_NOT_ANSWERING');
    assert.equal(await look(path, 60_000), false);
  });

  it('takes nothing from the file system on which a link to it lies', { skip }, async () => {
    await using system = await hung();
    using helpers = new FileHelpers();
    const path = join(directory, 'beside');
    await writeFile(path, 'bytes');
    await symlink(system.path, join(directory, 'folder'));
    await symlink('folder/file', join(directory, 'link'));
    const look = (at: string, timeoutMs = TIMEOUT_MS): Promise<unknown> =>
      helpers.ask('isBlockDevice', [at], { path: at, timeoutMs });
    const looks = Array.from({ length: 12 }, () => reasonOf(look(join(directory, 'link'))));
    assert.deepEqual([...new Set(await Promise.all(looks))], ['SOURCE_NOT_ANSWERING']);
    assert.equal(await look(path, 60_000), false);
  });

  it('holds up nobody whose file lies below another root', { skip }, async () => {
    await using system = await hung();
    using helpers = new FileHelpers();
    const path = join(directory, 'below');
    await writeFile(path, 'bytes');
    const roots = [system.path, join(system.path, 'deep'), directory];
    const at = { path, timeoutMs: TIMEOUT_MS };
    assert.equal(await helpers.ask('resolveAllowed', ['field', path, roots], at), await realpath(path));
    const outside = helpers.ask('resolveAllowed', ['field', '/etc/hostname', roots], { ...at, path: '/etc/hostname' });
    assert.equal(await reasonOf(outside), 'OUTSIDE_ALLOWED_ROOTS');
    assert.equal(system.taken(), 0, 'nobody has asked it');
  });

  it('gives no key, and says so in time', { skip }, async () => {
    await using system = await hung();
    const wanted = { path: join(system.path, 'key'), directories: ['/'], bytesMax: 100, kind: 'key' } as const;
    assert.equal(await reasonOf(lookAtSecretFile(wanted, TIMEOUT_MS)), 'KEY_SOURCE_DOWN');
  });

  it('is asked again once it has let go of those that hung', { skip }, async () => {
    using helpers = new FileHelpers();
    let path: string;
    {
      await using system = await hung();
      path = join(system.path, 'file');
      const at = { path, timeoutMs: TIMEOUT_MS };
      const looks = Array.from({ length: 4 }, () => reasonOf(helpers.ask('isBlockDevice', [path], at)));
      assert.deepEqual([...new Set(await Promise.all(looks))], ['SOURCE_NOT_ANSWERING']);
    }
    // The mount is gone: what lies there now is the directory below it, which is gone as well.
    assert.equal(await helpers.ask('isBlockDevice', [path], { path, timeoutMs: 60_000 }), false);
  });
});
