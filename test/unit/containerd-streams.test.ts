import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { errnoOf } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { ProcessRecord } from '../../src/containerd/pod-record.ts';
import { ProcessIo } from '../../src/containerd/process-io.ts';
import { PortReader, PortWriter } from '../../src/guest/containers/streams.ts';
import type { GuestProcess } from '../../src/guest/containers/types.ts';
import { until } from '../support/until.ts';

const TOKEN = 'ab'.repeat(16);

/**
 * A process's stdout and stdin between two FIFOs each: QEMU's and containerd's. Both are held open from outside, as
 * QEMU and the relay hold them, while daemons come and go.
 */
class Rig implements AsyncDisposable {
  /** The end of stdin was asked for so often. */
  inputEnds = 0;
  readonly #directory: string;
  readonly #fds: number[] = [];
  record: ProcessRecord;
  #io: ProcessIo | undefined;
  #guest: { readonly stdout: PortReader; readonly stdin: PortWriter } | undefined;

  private constructor(directory: string) {
    this.#directory = directory;
    this.record = {
      ...{ stdin: this.path('stdin'), stdout: this.path('stdout'), stderr: '', terminal: false },
      ...{ stdinClosed: false, started: true },
    };
  }

  static async make(): Promise<Rig> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-streams-'));
    await execa('mkfifo', ['stdin', 'stdout', 'port.in', 'port.out'], { cwd: directory });
    return new Rig(directory);
  }

  path(name: string): string {
    return join(this.#directory, name);
  }

  /** One end of a FIFO, without blocking. */
  open(name: string, flags: number): number {
    const fd = openSync(this.path(name), flags | constants.O_NONBLOCK);
    this.#fds.push(fd);
    return fd;
  }

  close(fd: number): void {
    closeSync(fd);
    this.#fds.splice(this.#fds.indexOf(fd), 1);
  }

  /** A daemon takes the process up. */
  join(): void {
    const stdout = new PortReader(this.path('port.out'), TOKEN);
    const stdin = new PortWriter(this.path('port.in'), () => {
      this.inputEnds += 1;
      return Promise.resolve();
    });
    for (const stream of [stdout, stdin]) stream.on('error', () => undefined);
    this.#guest = { stdout, stdin };
    this.#io = ProcessIo.open(this.record, silentLogger());
    const keeper = { hold: () => Promise.resolve(), release: () => Promise.resolve() };
    this.#io.join({ stdout, stdin, stderr: undefined } as unknown as GuestProcess, keeper);
  }

  /** Its orderly end: what the next one knows is what is on disk. */
  async leave(): Promise<void> {
    await this.#io?.close();
    this.#guest?.stdout.destroy();
    this.#guest?.stdin.destroy();
    this.record = JSON.parse(JSON.stringify(this.record)) as ProcessRecord;
    this.#io = undefined;
  }

  get io(): ProcessIo {
    assert.ok(this.#io);
    return this.#io;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave();
    for (const fd of this.#fds) closeSync(fd);
    await rm(this.#directory, { recursive: true });
  }
}

/** Writes as much of the bytes as the FIFO takes. @returns how many */
function put(fd: number, bytes: Buffer): number {
  try {
    return writeSync(fd, bytes);
  } catch (error) {
    if (errnoOf(error) === 'EAGAIN') return 0;
    throw error;
  }
}

/** What there is, up to a bound; undefined at the end of file. */
function get(fd: number, bytesMax: number): Buffer | undefined {
  const bytes = Buffer.alloc(bytesMax);
  try {
    const length = readSync(fd, bytes);
    return length === 0 ? undefined : bytes.subarray(0, length);
  } catch (error) {
    if (errnoOf(error) === 'EAGAIN') return bytes.subarray(0, 0);
    throw error;
  }
}

/**
 * Moves all of `sent` in at one end, faster than it is read at the other, while daemons change.
 * @returns what came out
 */
async function carriedThroughRestarts(rig: Rig, into: number, sent: Buffer, out: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let written = 0;
  let received = 0;
  for (let round = 1; received < sent.length; round += 1) {
    assert.ok(round < 20_000, `${sent.length - received} bytes do not come`);
    for (let put1 = 1; put1 > 0;) {
      put1 = put(into, sent.subarray(written, written + 8192));
      written += put1;
      await sleep(0);
    }
    for (let reads = 0; reads < 16; reads += 1) {
      const part = get(out, 3000) ?? Buffer.alloc(0);
      parts.push(part);
      received += part.length;
    }
    await sleep(1);
    if (round % 24 !== 0 || received >= sent.length) continue;
    await rig.leave();
    rig.join();
  }
  return Buffer.concat(parts);
}

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

it('a process that has not been started takes no input: whoever has some waits, and can say when it ends', async () => {
  await using rig = await Rig.make();
  const guest = rig.open('port.in', constants.O_RDONLY);
  rig.record.started = false;
  rig.join();
  assert.throws(() => rig.open('stdin', constants.O_WRONLY), { code: 'ENXIO' });
  rig.io.openStdin();
  rig.io.openStdin();
  const client = rig.open('stdin', constants.O_WRONLY);
  put(client, Buffer.from('abcd'));
  rig.close(client);
  rig.io.closeStdin();
  await until('it has come', () => Promise.resolve(get(guest, 10)?.toString() === 'abcd'));
  await until('its end is asked for', () => Promise.resolve(rig.inputEnds === 1));
});

describe('streams of a process while daemons come and go in order', { timeout: 120_000 }, () => {
  it('output that comes faster than it is read arrives byte for byte, to its end', async () => {
    await using rig = await Rig.make();
    const guest = rig.open('port.out', constants.O_RDWR);
    const client = rig.open('stdout', constants.O_RDWR);
    rig.join();
    const sent = randomBytes(2_000_000);
    assert.equal(digest(await carriedThroughRestarts(rig, guest, sent, client)), digest(sent));
    put(guest, Buffer.from(TOKEN));
    await sleep(100);
    assert.equal(get(client, 10)?.length, 0, 'the token is not part of it');
    rig.close(client);
    assert.equal(await rig.io.delivered(), 'all');
  });

  it('a token of which a daemon has read one half is taken out; what only begins like one is output', async () => {
    for (const [tail, left, ended] of [
      [TOKEN, '', true],
      [TOKEN.slice(0, 10), TOKEN.slice(0, 10), false],
    ] as const) {
      await using rig = await Rig.make();
      const guest = rig.open('port.out', constants.O_RDWR);
      // As much as is read at once, ten bytes of the token among them; then the stream has enough.
      const said = 'y'.repeat(32 * 1024 - 10);
      put(guest, Buffer.from(said + tail));
      const reader = new PortReader(rig.path('port.out'), TOKEN);
      reader.read(0);
      await until('the stream is full', () => Promise.resolve(reader.readableLength >= said.length));
      const rest = reader.leave();
      assert.equal(rest.bytes.toString(), said + left);
      assert.equal(rest.ended, ended);
    }
  });

  it('what waits for a slow reader is one chunk, also when it was written byte by byte', async () => {
    await using rig = await Rig.make();
    const guest = rig.open('port.out', constants.O_RDWR);
    const reader = new PortReader(rig.path('port.out'), undefined);
    let chunks = 0;
    const push = reader.push.bind(reader);
    reader.push = (chunk: unknown) => {
      chunks += 1;
      return push(chunk);
    };
    reader.read(0);
    for (let count = 0; count < 50; count += 1) {
      put(guest, Buffer.of(count));
      await sleep(1);
    }
    assert.equal(chunks, 1, 'so many were taken before anybody read');
    const seen: number[] = [];
    reader.on('data', (bytes: Buffer) => seen.push(...bytes));
    await until('all have come', () => Promise.resolve(seen.length === 50));
    assert.deepEqual(
      seen,
      Array.from({ length: 50 }, (_, index) => index),
    );
    reader.destroy();
  });

  it('what a living process has written is passed on to its last byte, though the token may begin with it', async () => {
    await using rig = await Rig.make();
    const guest = rig.open('port.out', constants.O_RDWR);
    const reader = new PortReader(rig.path('port.out'), TOKEN);
    let text = '';
    let ended = false;
    reader.on('data', (bytes: Buffer) => (text += bytes.toString())).on('end', () => (ended = true));
    let said = '';
    for (let length = 1; length < TOKEN.length; length += 1) {
      const words = `${length}: ${TOKEN.slice(0, length)}`;
      put(guest, Buffer.from(words));
      said += words;
      await until(`it has come: ${words}`, () => Promise.resolve(text === said));
    }
    // The process's last words are the token's beginning; then comes the token.
    put(guest, Buffer.from(TOKEN.slice(0, 5)));
    put(guest, Buffer.from(TOKEN));
    await until('the end has come', () => Promise.resolve(ended));
    assert.equal(text, said + TOKEN.slice(0, 5));
  });

  it('input that a process is slow to read arrives byte for byte', async () => {
    await using rig = await Rig.make();
    const guest = rig.open('port.in', constants.O_RDONLY);
    rig.open('stdin', constants.O_RDONLY); // The relay.
    rig.join();
    const client = rig.open('stdin', constants.O_WRONLY);
    const sent = randomBytes(1_000_000);
    assert.equal(digest(await carriedThroughRestarts(rig, client, sent, guest)), digest(sent));
    assert.equal(rig.inputEnds, 0, 'nobody has closed it');
  });

  it('after CloseIO the rest of the input and its end come through a restart', async () => {
    await using rig = await Rig.make();
    const guest = rig.open('port.in', constants.O_RDONLY);
    rig.open('stdin', constants.O_RDONLY); // The relay.
    rig.join();
    const client = rig.open('stdin', constants.O_WRONLY);
    rig.io.closeStdin();
    await rig.leave();
    const sent = randomBytes(30_000);
    assert.equal(put(client, sent), sent.length);
    rig.join();
    const parts: Buffer[] = [];
    await until('it has come', () => {
      parts.push(get(guest, 65_536) ?? Buffer.alloc(0));
      return Promise.resolve(Buffer.concat(parts).length === sent.length);
    });
    assert.equal(digest(Buffer.concat(parts)), digest(sent));
    assert.equal(rig.inputEnds, 0, 'a client still has it open');
    await rig.leave();
    rig.close(client);
    rig.join();
    await until('the process has its end of file', () => Promise.resolve(rig.inputEnds === 1));
  });

  it('nobody reads: a daemon that leaves keeps what it has read, and the next one delivers it', async () => {
    await using rig = await Rig.make();
    const guest = rig.open('port.out', constants.O_RDWR);
    const client = rig.open('stdout', constants.O_RDWR);
    rig.join();
    // More than the client's FIFO takes. Twice of that and what the daemon reads ahead may not fit: a FIFO holds pages,
    // full or not.
    const sent = randomBytes(65_536 + 40_000);
    let written = 0;
    await until('all is with the daemon and its FIFOs', () => {
      written += put(guest, sent.subarray(written, written + 4096));
      return Promise.resolve(written === sent.length);
    });
    put(guest, Buffer.from(TOKEN));
    await sleep(50);
    await rig.leave();
    rig.join();
    const delivered = rig.io.delivered();
    const parts: Buffer[] = [];
    await until('it has come', () => {
      parts.push(get(client, 65_536) ?? Buffer.alloc(0));
      return Promise.resolve(Buffer.concat(parts).length >= sent.length);
    });
    assert.equal(digest(Buffer.concat(parts)), digest(sent));
    rig.close(client);
    assert.equal(await delivered, 'all');
  });
});
