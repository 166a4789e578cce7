import { z } from 'zod';
import type { SourceModule } from './module.ts';
import {
  checkSourcePath,
  freeBytesAt,
  identifyLocal,
  inspectLocal,
  localAioModes,
  localCommand,
  localProtocol,
  pathOf,
  pathSchema,
} from './local.ts';

const schema = pathSchema.extend({ kind: z.literal('raw-file') }).readonly();
export type RawFileSource = z.infer<typeof schema>;

/** A regular file; its bytes are the disk's bytes. */
export const rawFile: SourceModule<RawFileSource> = {
  kind: 'raw-file',
  apiName: 'raw_file',
  messageName: 'rawFile',
  schema,
  command: localCommand('raw', 'raw image file'),
  demands: { blockDrivers: ['raw', 'file'], sharedMemory: false, noClones: false },
  carriesHostLuks: true,
  hostBlockSizes: false,
  canBeCut: true,
  byDescriptor: true,
  format: { driver: 'raw' },
  filePath: ({ path }) => path,
  fromMessage: (message) => ({ kind: 'raw-file', path: pathOf(message) }),
  toMessage: ({ path }) => ({ path }),
  complete: checkSourcePath,
  describe: ({ path }) => path,
  place: ({ path }) => path,
  resolved: (source, path) => ({ ...source, path }),
  inspect: (source, use, config, keep) =>
    inspectLocal(
      source,
      { use, config, wanted: { is: (found) => found.isFile(), name: 'a regular file' }, keep },
      ({ found }) => Promise.resolve({ sizeBytes: found.size }),
    ),
  aioModes: localAioModes,
  protocol: (_source, names, disk, aio) => localProtocol('file', names, disk, aio),
  helpers: () => [],
  make: (handle, sizeBytes) => handle.truncate(sizeBytes),
  recognise: ({ root, protocol }) =>
    protocol.drv === 'file' && root.drv !== 'qcow2' ? { kind: 'raw-file', path: protocol.file } : undefined,
  identify: identifyLocal,
  freeBytes: freeBytesAt,
};
