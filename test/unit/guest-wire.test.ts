import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { commandLine, LineSplitter, parseReply, syncLine, type AgentLine } from '../../src/guest/wire.ts';

/** The lines that a chunk completes, copied. The chunk's memory is overwritten then, as a socket's is. */
function push(splitter: LineSplitter, chunk: Buffer): readonly AgentLine[] {
  const lines: AgentLine[] = [];
  const memory = Buffer.from(chunk);
  splitter.push(memory, (line) => lines.push({ ...line, bytes: Buffer.from(line.bytes) }));
  memory.fill(0x21);
  return lines;
}

const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));

it('lines do not depend on how the stream is cut', () => {
  // Few values, so that newlines and sentinels are frequent.
  const stream = fc.array(fc.constantFrom(0x0a, 0xff, 0x61, 0x62), { maxLength: 60 });
  const cuts = fc.array(fc.nat(60), { maxLength: 8 });
  fc.assert(
    fc.property(stream, cuts, (values, positions) => {
      const whole = Buffer.from(values);
      const pieces: Buffer[] = [];
      let start = 0;
      for (const cut of [...positions, whole.length].sort((a, b) => a - b)) {
        pieces.push(whole.subarray(start, cut));
        start = Math.min(Math.max(start, cut), whole.length);
      }
      const cutUp = new LineSplitter(10);
      assert.deepEqual(
        pieces.flatMap((piece) => push(cutUp, piece)),
        push(new LineSplitter(10), whole),
      );
    }),
  );
});

it('a sentinel drops what stands before it in the line', () => {
  const [line, next] = push(new LineSplitter(100), Buffer.from('rest\xffkept\nplain\n', 'latin1'));
  assert.deepEqual([line?.bytes.toString(), line?.delimited], ['kept', true]);
  assert.deepEqual([next?.bytes.toString(), next?.delimited], ['plain', false]);
});

it('a line over the limit is reported without its content, and the next one is whole', () => {
  const splitter = new LineSplitter(4);
  const lines = [...push(splitter, Buffer.from('12345')), ...push(splitter, Buffer.from('678\nabcd\n'))];
  assert.deepEqual(
    lines.map((line) => [line.kind, line.bytes.toString()]),
    [
      ['oversize', ''],
      ['text', 'abcd'],
    ],
  );
});

it('a command with bytes is the JSON that it would be with a string', () => {
  fc.assert(
    fc.property(bytes(200), fc.record({ path: fc.string() }), fc.boolean(), (value, args, some) => {
      const command = { name: 'guest-exec', ...(some && { args }), bytes: { field: 'input-data', value } };
      const line = commandLine(command, 7);
      assert.equal(line.at(-1), 0x0a);
      assert.deepEqual(JSON.parse(line.toString()), {
        execute: 'guest-exec',
        id: 7,
        arguments: { ...(some && args), 'input-data': value.toString('base64') },
      });
    }),
  );
});

it('a command without arguments has none', () => {
  assert.equal(commandLine({ name: 'guest-ping' }, 1).toString(), '{"execute":"guest-ping","id":1}\n');
});

it('a sync begins with the sentinel', () => {
  const line = syncLine(5);
  assert.equal(line[0], 0xff);
  assert.deepEqual(JSON.parse(line.subarray(1).toString()), { execute: 'guest-sync-delimited', arguments: { id: 5 } });
});

it('replies are told from everything else', () => {
  const parse = (text: string): unknown => parseReply(Buffer.from(text));
  assert.deepEqual(parse('{"return": {}, "id": 3}'), { kind: 'return', id: 3, value: {} });
  assert.deepEqual(parse('{"error": {"class": "A", "desc": "b"}}'), {
    kind: 'error',
    id: undefined,
    errorClass: 'A',
    description: 'b',
  });
  assert.deepEqual(parse('{"error": {}}'), {
    kind: 'error',
    id: undefined,
    errorClass: 'GenericError',
    description: 'no description',
  });
  for (const text of ['', 'x', '1', 'null', '[]', '{}', '{"error": 1}', '{"event": "x"}']) {
    assert.equal(parse(text), undefined, text);
  }
});

it('whatever comes is a reply or nothing, and never an exception', () => {
  fc.assert(
    fc.property(bytes(100), (value) => {
      for (const line of push(new LineSplitter(50), value)) parseReply(line.bytes);
    }),
  );
});

it('a line that would take JSON.parse long is no reply; a long one that would not is', () => {
  assert.equal(parseReply(Buffer.from(`{"return":${'['.repeat(300_000)}${']'.repeat(300_000)}}`)), undefined);
  assert.equal(parseReply(Buffer.from(`{"return":"${'\\n'.repeat(300_000)}"}`)), undefined);
  assert.equal(parseReply(Buffer.from(`{"return":"${'x'.repeat(3_000_000)}"}`))?.kind, 'return');
});
