import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createReadStream, openSync, constants, closeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { LeftBytes } from '../../src/base/fifo.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { FifoKeeper } from '../../src/containerd/hand-over.ts';
import { ProcessIo } from '../../src/containerd/process-io.ts';
import type { GuestProcess } from '../../src/guest/containers/types.ts';
import { Holds } from '../../src/relay/holds.ts';

const FIFO_BYTES = 64 * 1024;

describe("the end of a process's output", () => {
  let directory: string;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'qshim-io-'));
  });
  after(() => rm(directory, { recursive: true }));

  /** A process whose standard output goes into a FIFO, and the relay's part. */
  async function process_(
    name: string,
  ): Promise<{ io: ProcessIo; path: string; stdout: PassThrough; keeper: FifoKeeper }> {
    const path = join(directory, name);
    await execa('mkfifo', [path]);
    const record = { stdin: '', stdout: path, stderr: '', terminal: false, stdinClosed: false, started: true };
    const io = ProcessIo.open(record, silentLogger());
    const holds = new Holds();
    const keeper: FifoKeeper = {
      hold: (fifos) => {
        holds.hold(name, fifos);
        return Promise.resolve();
      },
      release: () => {
        holds.release(name);
        return Promise.resolve();
      },
    };
    await keeper.hold(io.fifos);
    const stdout = new PassThrough();
    const leave = (): LeftBytes => {
      stdout.destroy();
      return { bytes: Buffer.alloc(0), ended: false };
    };
    Object.assign(stdout, { leave });
    io.join({ stdout, stderr: undefined, stdin: undefined } as unknown as GuestProcess, keeper);
    return { io, path, stdout, keeper };
  }

  it('is told once its reader has read the last byte, however slowly', async () => {
    const { io, path, stdout } = await process_('slow');
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    stdout.end(Buffer.alloc(FIFO_BYTES / 2, 'x'));
    let told = false;
    const delivered = io.delivered().then((outcome) => {
      told = true;
      return outcome;
    });
    await sleep(300);
    assert.equal(told, false, 'all bytes are in the FIFO, and none has been read');
    const stream = createReadStream('', { fd: reader });
    let bytes = 0;
    for await (const chunk of stream as AsyncIterable<Buffer>) bytes += chunk.length;
    assert.equal(bytes, FIFO_BYTES / 2);
    assert.equal(await delivered, 'all');
    await io.close();
  });

  it('that nobody reads is told at once, and waits for a reader that comes later', async () => {
    const { io, path, stdout } = await process_('away');
    stdout.end('the last words\n');
    assert.equal(await io.delivered(), 'unread');
    const chunks: Buffer[] = [];
    const reader = createReadStream(path);
    reader.on('data', (chunk) => chunks.push(Buffer.from(chunk)));
    await once(reader, 'end');
    assert.equal(Buffer.concat(chunks).toString(), 'the last words\n');
    await io.close();
  });

  it('of a process that is deleted unread is dropped without a wait', async () => {
    const { io, stdout, keeper, path } = await process_('dropped');
    stdout.write(Buffer.alloc(4 * FIFO_BYTES));
    await io.close('drop');
    await keeper.release();
    assert.throws(() => closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)), /ENXIO/);
    assert.ok(stdout.destroyed);
  });
});
