import type { FileHandle } from 'node:fs/promises';
import { z } from 'zod';
import { invalidArgument } from '../../base/errors.ts';
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
import type { SourceModule } from './module.ts';
import { writeEmptyQcow2 } from './qcow2-empty.ts';
import { emptinessOfQcow2 } from './qcow2-tables.ts';

const schema = pathSchema.extend({ kind: z.literal('qcow2-file') }).readonly();
export type Qcow2FileSource = z.infer<typeof schema>;

const QCOW2_MAGIC = 0x514649fb;
const QCOW2_HEADER_BYTES = 80;
const QCOW2_INCOMPATIBLE_EXTERNAL_DATA = 1n << 2n;

/** A qcow2 image that stands alone: no backing file, no external data file, no encryption inside. */
export const qcow2File: SourceModule<Qcow2FileSource> = {
  kind: 'qcow2-file',
  apiName: 'qcow2_file',
  messageName: 'qcow2File',
  schema,
  command: localCommand('qcow2', 'qcow2 image without a backing file'),
  demands: { blockDrivers: ['qcow2', 'file'], sharedMemory: false, noClones: false },
  carriesHostLuks: false,
  hostBlockSizes: false,
  canBeCut: true,
  byDescriptor: true,
  // `null` forbids a backing file, so that an image cannot name another file of the host.
  format: { driver: 'qcow2', backing: null },
  filePath: ({ path }) => path,
  fromMessage: (message) => ({ kind: 'qcow2-file', path: pathOf(message) }),
  toMessage: ({ path }) => ({ path }),
  complete: checkSourcePath,
  describe: ({ path }) => path,
  place: ({ path }) => path,
  resolved: (source, path) => ({ ...source, path }),
  inspect: (source, use, config, keep) =>
    inspectLocal(
      source,
      { use, config, wanted: { is: (found) => found.isFile(), name: 'a regular file' }, keep },
      async ({ path, handle }) => {
        const header = await readHeader(path, handle);
        const emptiness = use.createsIfEmpty ? await emptinessOfQcow2(handle, header) : 'look';
        return { sizeBytes: Number(header.readBigUInt64BE(24)), emptiness };
      },
    ),
  aioModes: localAioModes,
  protocol: (_source, names, disk, aio) => localProtocol('file', names, disk, aio),
  helpers: () => [],
  make: writeEmptyQcow2,
  recognise: ({ root, protocol }) => (root.drv === 'qcow2' ? { kind: 'qcow2-file', path: protocol.file } : undefined),
  identify: identifyLocal,
  freeBytes: freeBytesAt,
};

/** Layout: docs/interop/qcow2.txt in QEMU's sources. */
async function readHeader(path: string, handle: FileHandle): Promise<Buffer> {
  const header = Buffer.alloc(QCOW2_HEADER_BYTES);
  const { bytesRead } = await handle.read(header, 0, QCOW2_HEADER_BYTES, 0);
  if (bytesRead < 72 || header.readUInt32BE(0) !== QCOW2_MAGIC) {
    throw invalidArgument('spec.source.path', path, 'is not a qcow2 image', 'NOT_QCOW2');
  }
  if (header.readBigUInt64BE(8) !== 0n) {
    throw invalidArgument('spec.source.path', path, 'has a backing file, which is not allowed', 'QCOW2_BACKING_FILE');
  }
  const version = header.readUInt32BE(4);
  if (version >= 3 && (header.readBigUInt64BE(72) & QCOW2_INCOMPATIBLE_EXTERNAL_DATA) !== 0n) {
    throw invalidArgument(
      'spec.source.path',
      path,
      'has an external data file, which is not allowed',
      'QCOW2_DATA_FILE',
    );
  }
  if (header.readUInt32BE(32) !== 0) {
    throw invalidArgument(
      'spec.source.path',
      path,
      'is encrypted inside qcow2, which is not supported',
      'QCOW2_ENCRYPTED',
    );
  }
  return header;
}
