import assert from 'node:assert/strict';
import { mkdtemp, open, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { ID_LENGTH_MAX } from '../../src/base/ids.ts';
import { configWith } from '../../src/config.ts';
import { generationOf, mediumOf, namesFor } from '../../src/volume/model/names.ts';
import type { QemuObject } from '../../src/volume/model/objects.ts';
import type { Medium } from '../../src/volume/medium.ts';
import { makeFile, unmakeFile } from '../../src/volume/source/make-file.ts';
import { qcow2File } from '../../src/volume/source/qcow2-file.ts';
import { writeEmptyQcow2 } from '../../src/volume/source/qcow2-empty.ts';
import { moduleOf, type SourceSpec } from '../../src/volume/source/registry.ts';
import { Volume } from '../../src/volume/volume.ts';
import { BASE_SPEC } from '../support/base-spec.ts';

const SOURCES: readonly SourceSpec[] = [
  { kind: 'raw-file', path: '/v/a' },
  { kind: 'qcow2-file', path: '/v/b' },
  { kind: 'block-device', path: '/dev/c' },
  { kind: 'nbd', server: { type: 'unix', path: '/v/d' }, exportName: 'd', reconnectDelayS: 0, tls: undefined },
];

/** A volume on its third medium, with another beside it. */
function moved(source: SourceSpec, other: SourceSpec): Volume {
  const slot = { bridge: { id: 'bridge0', address: 16 }, device: 3 };
  const identity = {
    ...{ sandboxId: 's', volumeId: 'v', generation: 7, slot, placement: { vectors: 2, iothreads: ['iothread0'] } },
    ...{ spec: { ...BASE_SPEC, source }, backingIdentity: 'file:1:1', resolvedPath: moduleOf(source).describe(source) },
  };
  const look = { endsInSector: true, blank: false, emptiness: 'look' } as const;
  const options = { mutexWaitersMax: 1, relaySocket: (number: number) => `/s/nbd-${number}` };
  const volume = Volume.begin(identity, { ...options, sizeBytes: 4096, look, lease: undefined });
  const medium = (number: number, of: SourceSpec): Medium => {
    const resolvedPath = moduleOf(of).describe(of);
    return { number, source: of, resolvedPath, backingIdentity: `file:1:${number}`, aio: undefined };
  };
  volume.setOtherMedia([medium(12, other)]);
  volume.moveTo(medium(12, other));
  return volume;
}

describe('a volume that has moved, in QEMU', () => {
  it('no list holds a command or a driver by which QEMU dies: facts on live operations', () => {
    const commands = new Set(['add-fd', 'blockdev-add', 'blockdev-mirror', 'device_add', 'object-add']);
    const drivers = new Set(['raw', 'qcow2', 'file', 'host_device', 'nbd']);
    const driversOf = ({ add }: QemuObject): readonly unknown[] => {
      if (add.command !== 'blockdev-add') return [];
      const { driver } = add.arguments;
      const file = 'file' in add.arguments ? add.arguments.file : undefined;
      return [driver, ...(typeof file === 'object' ? [file.driver] : [])];
    };
    for (const source of SOURCES) {
      for (const other of SOURCES) {
        for (const object of moved(source, other).everyObject()) {
          assert.ok(commands.has(object.add.command), object.add.command);
          for (const driver of driversOf(object)) assert.ok(drivers.has(String(driver)), String(driver));
        }
      }
    }
  });

  it('a mirror leaves auto-finalize alone: without it the guest stands still until somebody finalizes', () => {
    const [source, target] = SOURCES;
    assert.ok(source !== undefined && target !== undefined);
    const { arguments: args } = moved(source, target).mirrorTo({ number: 20 }).add;
    assert.ok(!('auto-finalize' in args));
    assert.deepEqual(
      [args.device, args.target, args['copy-mode'], args['on-target-error'], args['auto-dismiss']],
      ['vol-7-m12-fmt', 'vol-7-m20-fmt', 'write-blocking', 'report', false],
    );
  });

  it('is taken away with both of its media, each name once, and the device last of the list', () => {
    const [source, target] = SOURCES;
    assert.ok(source !== undefined && target !== undefined);
    const objects = moved(source, target).everyObject();
    const names = objects.flatMap(({ gone }) => gone);
    assert.equal(new Set(names).size, names.length);
    for (const name of ['vol-7-fmt', 'vol-7-file', 'vol-7-m12-fmt', 'vol-7-m12-file', 'vol-7-m12-mirror']) {
      assert.ok(names.includes(name), name);
    }
    assert.equal(objects.at(-1)?.type, 'device');
  });

  it('names of media tell generation and medium, fit a node, and none is two media’s', () => {
    const number = fc.integer({ min: 1, max: 10 ** 6 });
    fc.assert(
      fc.property(number, number, number, (generation, one, two) => {
        const [first, second] = [namesFor('v', generation, one), namesFor('v', generation, two)];
        for (const name of [first.root, first.protocol, first.job, first.mirror.job, first.mirror.filter]) {
          assert.deepEqual([generationOf(name), mediumOf(name)], [generation, one]);
          assert.ok(name.length <= 31, name);
        }
        if (one !== two) assert.notEqual(first.fdset.number, second.fdset.number);
        assert.equal(mediumOf(namesFor('x'.repeat(ID_LENGTH_MAX), generation).root), 0);
      }),
    );
  });
});

describe('files that a move makes', () => {
  let directory: string;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'qshim-make-'));
  });
  after(() => rm(directory, { recursive: true }));
  const config = (): { readonly allowed_roots: string[] } => ({ allowed_roots: [directory] });

  it('an empty qcow2 image is what its module finds to be one, of every size', async () => {
    for (const sizeBytes of [512, 2 ** 29, 2 ** 29 + 512, 2 ** 43]) {
      const path = join(directory, `${sizeBytes}.qcow2`);
      await makeFile('target', path, config(), (handle) => writeEmptyQcow2(handle, sizeBytes));
      const use = { readOnly: false, logicalBlockSize: 512, hostLuks: undefined, createsIfEmpty: true, direct: false };
      const found = await qcow2File.inspect(
        { kind: 'qcow2-file', path },
        use,
        configWith({ allowed_roots: [directory] }),
      );
      assert.deepEqual([found.sizeBytes, found.emptiness], [sizeBytes, 'zero']);
      await rm(path);
    }
  });

  it('what is there already is neither taken nor followed, and one that cannot be filled is not left', async () => {
    const fill = (): Promise<void> => Promise.resolve();
    await writeFile(join(directory, 'there'), 'mine');
    await symlink('/etc/passwd', join(directory, 'link'));
    await symlink(join(directory, 'nothing'), join(directory, 'dangling'));
    for (const name of ['there', 'link', 'dangling']) {
      await assert.rejects(makeFile('target', join(directory, name), config(), fill), { reason: 'SOURCE_CHANGED' });
    }
    const full = (): Promise<void> => Promise.reject(new Error('no room'));
    await assert.rejects(makeFile('target', join(directory, 'full'), config(), full), /no room/);
    assert.deepEqual((await readdir(directory)).sort(), ['dangling', 'link', 'there']);
  });

  it('only the file that was made goes again', async () => {
    const path = join(directory, 'made');
    const madeAtMs = Date.now();
    const identity = await makeFile('target', path, config(), (handle) => handle.truncate(4096));
    assert.match((await unmakeFile(path, { identity: 'file:1:1', madeAtMs })) ?? '', /another file/);
    assert.equal((await stat(path)).size, 4096);
    assert.equal(await unmakeFile(path, { identity, madeAtMs }), undefined);
    await assert.rejects(stat(path), /ENOENT/);
    // Its making was not seen to have ended: born since, and nobody has written to it.
    await makeFile('target', path, config(), (handle) => handle.truncate(2 ** 30));
    assert.match((await unmakeFile(path, { identity: '', madeAtMs: Date.now() + 60_000 })) ?? '', /another file/);
    await using handle = await open(path, 'r+');
    await handle.write(Buffer.alloc(2 * 1024 * 1024, 1));
    assert.match((await unmakeFile(path, { identity: '', madeAtMs })) ?? '', /another file/);
    await handle.truncate(0);
    assert.equal(await unmakeFile(path, { identity: '', madeAtMs }), undefined);
  });
});
