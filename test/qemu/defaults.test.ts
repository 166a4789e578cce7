import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { configWith } from '../../src/config.ts';
import { fileHelpers } from '../../src/files/helpers.ts';
import { namesFor } from '../../src/volume/model/names.ts';
import type { QemuObject } from '../../src/volume/model/objects.ts';
import { objectsOf, spelledOut } from '../../src/volume/plan.ts';
import { slotAt } from '../../src/volume/model/slots.ts';
import { openForQemu, type VolumeSpec } from '../../src/volume/spec.ts';
import { BASE_SPEC } from '../support/base-spec.ts';
import { bareQemuMissing, startBareQemu, type BareQemu } from '../support/bare-qemu.ts';

after(() => fileHelpers[Symbol.dispose]());

const DISK_BYTES = 4 * 1024 * 1024;
/** Everything that a plan says of a front end, and QEMU tells. */
const PROPERTIES = [
  'serial',
  'num-queues',
  'vectors',
  'logical_block_size',
  'physical_block_size',
  'write-cache',
  'discard',
  'share-rw',
  'werror',
  'rerror',
] as const;
/**
 * What `auto` comes to is QEMU's own; what it does then is in hw/block/block.c, and test/qemu/io-errors.test.ts sees it
 * happen.
 */
const AUTO: Readonly<Record<string, string>> = { 'write-cache': 'on', werror: 'enospc', rerror: 'report' };

const BASE: VolumeSpec = { ...BASE_SPEC, aio: 'threads', serial: 's' };

const VARIANTS: readonly Partial<VolumeSpec>[] = [
  ...(['none', 'writeback', 'writethrough', 'directsync', 'unsafe'] as const).map((cache) => ({ cache })),
  { discard: 'ignore' },
  { readOnly: true, discard: 'ignore' },
  { detectZeroes: 'unmap' },
  { detectZeroes: 'on', discard: 'ignore' },
  { logicalBlockSize: 4096, physicalBlockSize: 4096 },
  { physicalBlockSize: 4096 },
  { writeErrors: 'report', readErrors: 'stop' },
  { writeErrors: 'stop', readErrors: 'ignore' },
];

await describe('what QEMU is not told', { skip: bareQemuMissing() }, async () => {
  /** How QEMU has a volume that is added by its plan, in full or as it is sent. */
  async function seen(qemu: BareQemu, spec: VolumeSpec, generation: number, lean: boolean): Promise<unknown> {
    const names = namesFor('v', generation);
    const seat = { slot: { ...slotAt(0), device: generation }, placement: { vectors: 2, iothreads: [] } };
    const planned = { spec, resolved: spec.source, names, seat };
    const objects = lean ? objectsOf(planned, 'threads', false) : spelledOut(planned, 'threads', false);
    using file = await openForQemu(spec, configWith({ allowed_roots: [qemu.directory] }), spec.source, false);
    for (const { type, add } of objects) {
      if (type === 'fdset') await qemu.qmp.addDescriptor(add.arguments, file.send);
      else await qemu.qmp.run(add.command, add.arguments);
    }
    const path = `/machine/peripheral/${names.device}`;
    const properties: Record<string, unknown> = {};
    for (const property of PROPERTIES) {
      const value = await qemu.qmp.run('qom-get', { path, property });
      properties[property] = value === 'auto' ? AUTO[property] : value;
    }
    const all: readonly object[] = await qemu.qmp.run('query-named-block-nodes', { flat: true });
    const nodes = all
      .filter((node) => 'node-name' in node && [names.root, names.protocol].includes(String(node['node-name'])))
      .map((node) =>
        JSON.stringify(node)
          .replaceAll(`vol-${generation}-`, 'vol-')
          .replaceAll(`/dev/fdset/${names.fdset.number}`, '/dev/fdset/N'),
      );
    assert.equal(nodes.length, 2);
    return { properties, nodes: nodes.toSorted() };
  }

  await it('it does by itself', async () => {
    const bridge = 'pci-bridge,id=bridge0,chassis_nr=1,shpc=off';
    await using qemu = await startBareQemu(['-machine', 'q35,accel=tcg', '-S', '-device', bridge]);
    let generation = 0;
    for (const variant of VARIANTS) {
      const views: unknown[] = [];
      for (const lean of [false, true]) {
        generation += 1;
        const path = join(qemu.directory, `disk-${generation}-`);
        await using file = await open(path, 'w');
        await file.truncate(DISK_BYTES);
        views.push(await seen(qemu, { ...BASE, ...variant, source: { kind: 'raw-file', path } }, generation, lean));
      }
      assert.deepEqual(views[1], views[0], JSON.stringify(variant));
    }
  });

  await it('is a good part of what could be said', () => {
    const spec = { ...BASE, source: { kind: 'raw-file', path: '/volumes/a' } } as const;
    const seat = { slot: slotAt(0), placement: { vectors: 2, iothreads: [] } };
    const planned = { spec, resolved: spec.source, names: namesFor('v', 1), seat };
    const bytes = (objects: readonly QemuObject[]): number => JSON.stringify(objects.map(({ add }) => add)).length;
    assert.ok(bytes(objectsOf(planned, 'io_uring', false)) < bytes(spelledOut(planned, 'io_uring', false)) * 0.75);
  });
});
