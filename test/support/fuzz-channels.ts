import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import fc from 'fast-check';
import { isShimError } from '../../src/base/errors.ts';
import { parseExit } from '../../src/guest/containers/exits.ts';
import { TokenCut } from '../../src/guest/containers/token.ts';
import { DiskArrivals } from '../../src/guest/disk-arrivals.ts';
import { DISKS, EXEC_STATUS, FILE_READ, INFO, MOUNTS, parseAs } from '../../src/guest/replies.ts';
import { busyProcesses, lastWords, parseFacts } from '../../src/guest/run-script.ts';
import { UeventSplitter } from '../../src/guest/uevents.ts';
import { LineSplitter as AgentLines, parseReply, type LineLimit } from '../../src/guest/wire.ts';
import { LineSplitter as QmpLines } from '../../src/qmp/framing.ts';
import { eventNameOf, parseMessage } from '../../src/qmp/message.ts';

/** Byte sequences as a guest may send them: noise, and pieces of what is expected, in any order and cut anywhere. */

const PIECES: readonly string[] = [
  ...['{"return": ', '{"error": {"class": "A", "desc": "', '"id": 7', '}', '{}', '[', ']', '"', '\\', '\\u0041', ','],
  ...['\n', '\r\n', '\xff', '\0', ' ', '{"return": 1}\n', '{"return": {"exited": true, "out-data": "QUFBQQ=="}}\n'],
  ...['add@/devices/pci0000:00/0000:00:01.0/virtio1/block/vda\0', 'SEQNUM=1\0', 'SYNTH_UUID=1\0', 'answer@/1\0'],
  ...['{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESET"', ', "data": {}}\r\n', '{"event": "X"}\r\n'],
  ...['exit key token 1 2 0\n', 'pid 12\n', 'busy=1 fd/3 sh\n', 'error=GUEST_MOUNT_FAILED\n', 'left=/a\\040b\n'],
];
const expected = fc.constantFrom(...PIECES).map((text) => Buffer.from(text, 'latin1'));
const noise = fc.uint8Array({ maxLength: 24 }).map((bytes) => Buffer.from(bytes));
const run = fc.record({ byte: fc.nat(255), length: fc.nat(300) }).map(({ byte, length }) => Buffer.alloc(length, byte));
const piece = fc.oneof(
  { weight: 3, arbitrary: expected },
  { weight: 2, arbitrary: noise },
  { weight: 1, arbitrary: run },
);

/** What one guest sends, in the chunks in which it is read. */
export const sequences: fc.Arbitrary<readonly Buffer[]> = fc.array(piece, { maxLength: 16 });

/** What a parser may keep of a line, in bytes. */
const KEPT_MAX = 512;
const TOKEN = 'exit key token';

/** Feeds a sequence to everything that sees bytes of a guest first. @throws what no guest may make it throw */
export function feed(sequence: readonly Buffer[]): void {
  feedAgent(sequence, { lineBytesMax: KEPT_MAX });
  feedAgent(sequence, { lineBytesMax: 4 * KEPT_MAX, strings: { bytesMax: 64, restBytesMax: 128 } });
  feedQmp(sequence);
  feedUevents(sequence);
  feedPorts(sequence);
}

/** As a socket's memory: it is overwritten as soon as the call returns. */
function lend(chunk: Buffer, use: (memory: Buffer) => void): void {
  const memory = Buffer.from(chunk);
  use(memory);
  memory.fill(0x22);
}

function feedAgent(sequence: readonly Buffer[], limit: LineLimit): void {
  const splitter = new AgentLines(KEPT_MAX);
  splitter.expect(limit);
  for (const chunk of sequence) {
    lend(chunk, (memory) =>
      splitter.push(memory, ({ bytes, kind }) => {
        assert.ok(bytes.length <= limit.lineBytesMax && (kind === 'text' || bytes.length === 0));
        assert.ok(!bytes.includes(0x0a) && !bytes.includes(0xff));
        const reply = parseReply(bytes, limit.strings !== undefined);
        if (reply?.kind === 'return') checkShapes(reply.value);
      }),
    );
  }
}

function checkShapes(value: unknown): void {
  for (const schema of [DISKS, MOUNTS, INFO, EXEC_STATUS, FILE_READ]) {
    try {
      parseAs<unknown>(schema, 'fuzz', value);
    } catch (error) {
      assert.ok(isShimError(error, 'UNAVAILABLE') && error.reason === 'GUEST_AGENT_GARBAGE', String(error));
    }
  }
}

function feedQmp(sequence: readonly Buffer[]): void {
  const splitter = new QmpLines(KEPT_MAX);
  for (const chunk of sequence) {
    lend(chunk, (memory) =>
      splitter.push(memory, (line) => {
        assert.ok(line.length <= KEPT_MAX);
        const name = eventNameOf(line);
        try {
          const message = parseMessage(line.toString('utf8'));
          // What is passed over by its name is what the parser would have called so, unless it repeats a member.
          if (name !== undefined) assert.ok(message.kind !== 'unknown');
        } catch (error) {
          assert.ok(isShimError(error, 'UNAVAILABLE') && error.reason === 'QMP_LOST', String(error));
        }
      }),
    );
  }
}

function feedUevents(sequence: readonly Buffer[]): void {
  const splitter = new UeventSplitter();
  const disks = new DiskArrivals();
  disks.synced(disks.mark());
  const arrival = disks.expect('0000:00:01.0');
  for (const chunk of sequence) {
    lend(chunk, (memory) => {
      for (const event of splitter.push(memory)) {
        assert.ok(event.path.startsWith('/') && event.variables.has('SEQNUM'));
        disks.take(event);
      }
    });
  }
  arrival.end();
}

function feedPorts(sequence: readonly Buffer[]): void {
  const cut = new TokenCut(TOKEN);
  let held = 0;
  for (const chunk of sequence) {
    const { bytes, ended } = cut.take(Buffer.from(chunk));
    held += chunk.length - bytes.length;
    if (ended) break;
    assert.ok(held < TOKEN.length, 'no more is held back than a token');
  }
  const text = Buffer.concat(sequence).toString('latin1');
  for (const line of text.split('\n')) parseExit(line);
  busyProcesses(parseFacts(text));
  assert.ok(lastWords(text).length <= 400);
}

/** A unix socket at which whoever connects is sent a sequence, chunk by chunk. */
export class SequenceServer implements AsyncDisposable {
  sequence: readonly Buffer[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((socket) => {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => this.#sockets.delete(socket));
    for (const chunk of this.sequence) socket.write(chunk);
  });

  static async listen(path: string): Promise<SequenceServer> {
    const server = new SequenceServer();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.#server.listen(path, resolve);
    await promise;
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }
}
