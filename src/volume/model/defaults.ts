import { isDeepStrictEqual } from 'node:util';
import type { AttachStep } from './plan.ts';
import type { VolumeSpec } from './spec.ts';

/**
 * What QEMU does by itself and need not be told. It reads QMP byte by byte, one turn of its monitor's event loop each, 2 to 10 us:
 * a fully spelled out attach takes half as long again to be read as to be done. A plan says everything; what is sent, and shown
 * as the exact commands, leaves out what it would have in any case.
 *
 * test/qemu/options.test.ts reads the values back from the real QEMU.
 */

/** QAPI BlockdevOptions. */
const NODE: Readonly<Record<string, unknown>> = {
  'read-only': false,
  'auto-read-only': false,
  discard: 'ignore',
  'detect-zeroes': 'off',
  cache: { direct: false, 'no-flush': false },
};
/** A node that is made as part of another gets discard so, and the rest from that other (block.c, bdrv_inherited_options). */
const CHILD_DISCARD = 'unmap';
const INHERITED = ['read-only', 'auto-read-only', 'cache'] as const;
/** Properties of virtio-blk-pci; without werror and rerror a disk has these two. */
const DEVICE: Readonly<Record<string, unknown>> = {
  'write-cache': 'on',
  discard: true,
  'share-rw': false,
  werror: 'enospc',
  rerror: 'report',
};
/** What a file's disk has. A block device may be asked for its own. */
const FILE_DISK: Readonly<Record<string, unknown>> = { logical_block_size: 512, physical_block_size: 512 };

/** The step without what QEMU does by itself; the same in effect. */
export function withoutDefaults<S extends AttachStep>(spec: VolumeSpec, step: S): S {
  switch (step.kind) {
    case 'add-block-node': {
      const { file, ...own } = step.arguments;
      const inherited = Object.fromEntries(INHERITED.map((name) => [name, own[name]]));
      const child = without(file, { ...inherited, discard: CHILD_DISCARD });
      return { ...step, arguments: { ...without(own, NODE), file: child } };
    }
    case 'add-file-node':
      return { ...step, arguments: without(step.arguments, NODE) };
    case 'add-luks-node':
      return { ...step, arguments: without(step.arguments, NODE) };
    case 'add-device': {
      const disk = spec.source.kind === 'block-device' ? {} : FILE_DISK;
      return { ...step, arguments: without(step.arguments, { ...DEVICE, ...disk }) };
    }
    default:
      return step;
  }
}

/** `from` without its members that are as in `defaults`; those may be left out of its type. */
function without<T extends object>(from: T, defaults: Readonly<Record<string, unknown>>): T {
  const kept = Object.entries(from).filter(
    ([name, value]) => !(name in defaults) || !isDeepStrictEqual(value, defaults[name]),
  );
  return Object.fromEntries(kept) as T;
}
