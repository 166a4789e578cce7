import { isDeepStrictEqual } from 'node:util';
import type { QemuObject } from './objects.ts';

/**
 * What QEMU does by itself and need not be told. It reads QMP byte by byte, one turn of its monitor's event loop each,
 * 2 to 10 us: a fully spelled out attach takes half as long again to be read as to be done. Modules say everything;
 * what is sent, and shown as the exact commands, leaves out what QEMU would have in any case.
 *
 * test/qemu/defaults.test.ts and test/qemu/options.test.ts read the values back from the real QEMU.
 */

/** QAPI BlockdevOptions. */
const NODE: Readonly<Record<string, unknown>> = {
  'read-only': false,
  'auto-read-only': false,
  discard: 'ignore',
  'detect-zeroes': 'off',
  cache: { direct: false, 'no-flush': false },
};
/**
 * A node that is made as part of another gets discard so, and the rest from that other (block.c,
 * bdrv_inherited_options).
 */
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
/** What a disk has whose source has no block size of its own. */
const BLOCK_SIZES: Readonly<Record<string, unknown>> = { logical_block_size: 512, physical_block_size: 512 };

/**
 * The object without what QEMU does by itself; the same in effect.
 * @param hostBlockSizes QEMU asks the source for its block sizes, so that they have to be named
 */
export function withoutDefaults(object: QemuObject, hostBlockSizes: boolean): QemuObject {
  switch (object.type) {
    case 'node': {
      const args = without(object.add.arguments, NODE);
      if (!('file' in args) || typeof args.file !== 'object')
        return { ...object, add: { ...object.add, arguments: args } };
      const own = object.add.arguments;
      const inherited = Object.fromEntries(INHERITED.map((name) => [name, own[name]]));
      const file = without(args.file, { ...inherited, discard: CHILD_DISCARD });
      // A luks node's file is always a name, and a filter's; what has a nested one keeps its kind.
      return { ...object, add: { ...object.add, arguments: { ...args, file } as typeof args } };
    }
    case 'device': {
      const args = without(object.add.arguments, hostBlockSizes ? DEVICE : { ...DEVICE, ...BLOCK_SIZES });
      return { ...object, add: { ...object.add, arguments: args } };
    }
    default:
      return object;
  }
}

/** `from` without its members that are as in `defaults`; those may be left out of its type. */
function without<T extends object>(from: T, defaults: Readonly<Record<string, unknown>>): T {
  const kept = Object.entries(from).filter(
    ([name, value]) => !(name in defaults) || !isDeepStrictEqual(value, defaults[name]),
  );
  return Object.fromEntries(kept) as T;
}
