import { constants } from 'node:fs';
import { access, realpath, stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { ShimError } from '../base/errors.ts';

/** Which file it is, and in which version: a file that is replaced or written to has another identity. */
export interface FileIdentity {
  /** With symbolic links resolved. */
  readonly path: string;
  // Whole numbers as text: an inode or a time in nanoseconds does not fit a JavaScript number.
  readonly device: string;
  readonly inode: string;
  readonly bytes: string;
  readonly modifiedNs: string;
}

/** Which file lies at a path now. @throws the system error (ENOENT) */
export async function identifyFile(path: string): Promise<FileIdentity> {
  const resolved = await realpath(path);
  const { dev, ino, size, mtimeNs } = await stat(resolved, { bigint: true });
  return {
    path: resolved,
    device: String(dev),
    inode: String(ino),
    bytes: String(size),
    modifiedNs: String(mtimeNs),
  };
}

/**
 * The path of a program that is given as a path or as a name on PATH.
 * @throws ShimError FAILED_PRECONDITION / QEMU_NOT_STARTED when there is none
 */
export async function findProgram(program: string, searchPath = process.env['PATH'] ?? ''): Promise<string> {
  const candidates = program.includes('/')
    ? [program]
    : searchPath.split(delimiter).map((directory) => join(directory === '' ? '.' : directory, program));
  for (const candidate of candidates) {
    const runs = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (runs) return candidate;
  }
  throw new ShimError('FAILED_PRECONDITION', `${program} is no program that can be run`, {
    reason: 'QEMU_NOT_STARTED',
    metadata: { binary: program },
  });
}
