import { createReadStream, createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { constants, createGzip } from 'node:zlib';
import { execa } from 'execa';
import { walk } from './tree.ts';

/**
 * Packs the tree into an initramfs (cpio, newc) owned by root, entries in byte order, without device numbers and inode
 * numbers of this machine: the same tree gives the same bytes.
 */
export async function packInitramfs(tree: string, to: string): Promise<void> {
  const options = ['-o', '-0', '-H', 'newc', '--reproducible', '--owner=+0:+0', '--quiet', '-F', to];
  const names = await walk(tree);
  await execa('cpio', options, { cwd: tree, input: `${names.join('\0')}\0` });
}

/** gzip with the time in its header left out. */
export async function gzipFile(from: string, to: string): Promise<void> {
  const level = constants.Z_BEST_COMPRESSION;
  await pipeline(createReadStream(from), createGzip({ level }), createWriteStream(to));
}
