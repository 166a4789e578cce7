import { spawnSync } from 'node:child_process';
import { closeSync, openSync, read, writeSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** FUSE requests: linux/fuse.h. */
const FUSE_INIT = 26;
const REQUEST_BYTES_MAX = 256 * 1024;
const INIT_REPLY_BYTES = 80;
const HEADER_BYTES = 16;

/** A mounted file system whose program takes every request and answers none, as one whose server has gone. */
export interface HungFileSystem extends AsyncDisposable {
  readonly path: string;
  /** Requests that it has taken. A process that made one does not even die. */
  readonly taken: () => number;
}

/** Undefined where it cannot be had: without root, or without FUSE. */
export async function hungFileSystem(): Promise<HungFileSystem | undefined> {
  let device: number;
  try {
    device = openSync('/dev/fuse', 'r+');
  } catch {
    return undefined;
  }
  const path = await mkdtemp(join(tmpdir(), 'qshim-hung-'));
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other';
  const { status } = spawnSync('mount', ['-i', '-t', 'fuse', '-o', options, 'hung', path], {
    stdio: ['ignore', 'ignore', 'ignore', device],
  });
  if (status !== 0) {
    closeSync(device);
    await rmdir(path);
    return undefined;
  }
  const server = serve(device);
  return {
    path,
    taken: server.taken,
    async [Symbol.asyncDispose]() {
      // Forced: whoever waits for an answer, and this process's own read, gets an error.
      spawnSync('umount', ['-f', '-l', path], { stdio: 'ignore' });
      server.stop();
      await rmdir(path);
    },
  };
}

function serve(device: number): { readonly taken: () => number; readonly stop: () => void } {
  let taken = 0;
  let stopped = false;
  const buffer = Buffer.alloc(REQUEST_BYTES_MAX);
  const next = (): void =>
    read(device, buffer, 0, buffer.length, null, (error, bytes) => {
      if (stopped || error !== null || bytes === 0) return;
      if (buffer.readUInt32LE(4) === FUSE_INIT) {
        const reply = Buffer.alloc(INIT_REPLY_BYTES);
        reply.writeUInt32LE(reply.length, 0);
        buffer.copy(reply, 8, 8, HEADER_BYTES);
        reply.writeUInt32LE(7, HEADER_BYTES);
        reply.writeUInt32LE(31, HEADER_BYTES + 4);
        writeSync(device, reply);
      } else {
        taken += 1;
      }
      next();
    });
  next();
  return {
    taken: () => taken,
    stop: () => {
      stopped = true;
      closeSync(device);
    },
  };
}
