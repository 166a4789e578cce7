import { open, statfs, type FileHandle } from 'node:fs/promises';
import { ShimError } from '../base/errors.ts';
import { giveDescriptor } from '../files/give.ts';
import { unnamedFile } from '../qemu/unnamed-file.ts';
import type { QmpClient } from '../qmp/client.ts';

/** linux/magic.h */
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;

/**
 * Files in memory that QEMU opens by a path, for as long as this lasts:
 *
 *     bytes ─▶ a file without a name ─ add-fd ─▶ QEMU, which opens /proc/self/fd/NUMBER once more
 *
 * So a QEMU reads them that sees no file of the host and is another user's, and nobody else has a way to them. They are
 * gone with this process, however it ends. Disposing zeroes them and takes the descriptors back.
 */
export class MemoryFiles implements AsyncDisposable {
  readonly #qmp: QmpClient;
  readonly #directory: string;
  readonly #fdset: number;
  readonly #files: { readonly file: FileHandle; readonly length: number }[] = [];
  /** Numbers of the descriptors that QEMU has of them. */
  readonly #given: number[] = [];

  /**
   * @param directory must be in memory
   * @param fdset the set of descriptors that they are given in; others of this VM may use it at the same time
   */
  constructor(qmp: QmpClient, directory: string, fdset: number) {
    this.#qmp = qmp;
    this.#directory = directory;
    this.#fdset = fdset;
  }

  /**
   * @returns the path by which QEMU opens a file with these bytes
   * @throws ShimError FAILED_PRECONDITION / SECRET_DIR_NOT_IN_MEMORY; what QEMU refuses
   */
  async give(bytes: Buffer): Promise<string> {
    await checkInMemory(this.#directory);
    const file = await unnamedFile(bytes, this.#directory);
    this.#files.push({ file, length: bytes.length });
    // QEMU may be another user's.
    await file.chmod(0o444);
    await using readable = await open(`/proc/self/fd/${file.fd}`, 'r');
    const { fd } = await this.#qmp.addDescriptor({ 'fdset-id': this.#fdset }, (socket, text) =>
      giveDescriptor(socket, text, readable.fd),
    );
    this.#given.push(fd);
    return `/proc/self/fd/${fd}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A VM that is paused keeps the descriptors until it is given others; there is nothing in the files any more.
    for (const { file, length } of this.#files) {
      await file.write(Buffer.alloc(length), 0, length, 0);
      await file.close();
    }
    // These and no others: beside them lie those of volumes that are attached at the same time, which QEMU has yet to
    // read, and a number that is free again may be the next one's.
    // Without a connection QEMU closes what nothing uses by itself (monitor/fds.c, monitor_fdsets_cleanup).
    for (const fd of this.#given) {
      await this.#qmp.run('remove-fd', { 'fdset-id': this.#fdset, fd }).catch(() => undefined);
    }
  }
}

async function checkInMemory(directory: string): Promise<void> {
  const { type } = await statfs(directory);
  if (type === TMPFS_MAGIC || type === RAMFS_MAGIC) return;
  throw new ShimError('FAILED_PRECONDITION', `secret_dir (${directory}) is neither on tmpfs nor on ramfs`, {
    reason: 'SECRET_DIR_NOT_IN_MEMORY',
    metadata: { path: directory },
  });
}
