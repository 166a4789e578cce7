import { z } from 'zod';
import {
  blockDeviceSize,
  checkSourcePath,
  identifyLocal,
  inspectLocal,
  localAioModes,
  localCommand,
  localProtocol,
  pathOf,
  pathSchema,
} from './local.ts';
import type { SourceModule } from './module.ts';

const schema = pathSchema.extend({ kind: z.literal('block-device') }).readonly();
export type BlockDeviceSource = z.infer<typeof schema>;

/** Any block device node of the host. */
export const blockDevice: SourceModule<BlockDeviceSource> = {
  kind: 'block-device',
  apiName: 'block_device',
  messageName: 'blockDevice',
  schema,
  command: localCommand('block', 'block device'),
  demands: { blockDrivers: ['raw', 'host_device'], sharedMemory: false, noClones: false },
  carriesHostLuks: true,
  hostBlockSizes: true,
  canBeCut: false,
  byDescriptor: true,
  format: { driver: 'raw' },
  filePath: ({ path }) => path,
  fromMessage: (message) => ({ kind: 'block-device', path: pathOf(message) }),
  toMessage: ({ path }) => ({ path }),
  complete: checkSourcePath,
  describe: ({ path }) => path,
  place: ({ path }) => path,
  resolved: (source, path) => ({ ...source, path }),
  inspect: (source, use, config, keep) =>
    inspectLocal(
      source,
      { use, config, wanted: { is: (found) => found.isBlockDevice(), name: 'a block device' }, keep },
      async ({ found }) => ({
        sizeBytes: await blockDeviceSize(found),
      }),
    ),
  aioModes: localAioModes,
  protocol: (_source, names, disk, aio) => localProtocol('host_device', names, disk, aio),
  helpers: () => [],
  recognise: ({ protocol }) =>
    protocol.drv === 'host_device' ? { kind: 'block-device', path: protocol.file } : undefined,
  identify: identifyLocal,
  // It has no file system that could fill up; what lies below it (thin storage) is not to be seen here.
  freeBytes: () => Promise.resolve(Infinity),
};
