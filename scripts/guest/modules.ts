import { readFile, writeFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import { execa } from 'execa';
import { ensureCommands } from '../lib/packages.ts';

/**
 * Kernel modules as newer packages have them: compressed. The guest's image has them unpacked: it is not compressed
 * either, and its `insmod` is busybox's.
 */

type Unpack = (from: string) => Promise<Uint8Array>;

const UNPACK: Readonly<Record<string, Unpack>> = {
  '.gz': async (from) => await promisify(gunzip)(await readFile(from)),
  '.zst': async (from) => await promisify(zstdDecompress)(await readFile(from)),
  '.xz': async (from) => {
    await ensureCommands(['xz']);
    const { stdout } = await execa('xz', ['-dc', from], { encoding: 'buffer', stripFinalNewline: false });
    return stdout;
  },
};

/** True for the path of a module such as `kernel/fs/xfs/xfs.ko.xz`. */
export function isCompressed(path: string): boolean {
  return extname(path) in UNPACK;
}

/** `xfs.ko` of `xfs.ko.xz`. */
export function withoutCompression(path: string): string {
  return isCompressed(path) ? path.slice(0, -extname(path).length) : path;
}

/** Writes what the compressed file holds. @throws Error when it is damaged */
export async function unpackModule(from: string, to: string): Promise<void> {
  const unpack = UNPACK[extname(from)];
  if (unpack === undefined) throw new Error(`${from} is not compressed`);
  await writeFile(to, await unpack(from));
}
