import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { LineSplitter } from '../../src/qmp/framing.ts';

interface SplitResult {
  readonly lines: readonly string[];
  readonly overflow: boolean;
}

function push(splitter: LineSplitter, chunk: Buffer): SplitResult {
  const lines: string[] = [];
  // The chunk's memory is not the splitter's: what a socket reads next overwrites it.
  const memory = Buffer.from(chunk);
  const overflow = !splitter.push(memory, (line) => lines.push(line.toString('utf8')));
  memory.fill(0x21);
  return { lines, overflow };
}

/** Feeds the bytes in pieces, cut at the given offsets. */
function split(bytes: Buffer, cuts: readonly number[], lineBytesMax: number): SplitResult {
  const splitter = new LineSplitter(lineBytesMax);
  const offsets = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  const lines: string[] = [];
  let overflow = false;
  for (let i = 1; i < offsets.length; i += 1) {
    const result = push(splitter, bytes.subarray(offsets[i - 1], offsets[i]));
    lines.push(...result.lines);
    overflow = result.overflow;
  }
  return { lines, overflow };
}

const text = fc.string({ unit: fc.constantFrom('a', 'é', '漢', '\n', '\r', '\r\n', '"'), maxLength: 200 });
const cuts = fc.array(fc.nat(), { maxLength: 30 });

describe('qmp framing', () => {
  it('any chunking gives the same lines, at any limit', () => {
    fc.assert(
      fc.property(text, cuts, fc.integer({ min: 1, max: 40 }), (content, at, lineBytesMax) => {
        const bytes = Buffer.from(content);
        assert.deepEqual(split(bytes, at, lineBytesMax), split(bytes, [], lineBytesMax));
      }),
    );
  });

  it('lines are what stands before each newline, without one carriage return', () => {
    fc.assert(
      fc.property(text, cuts, (content, at) => {
        const expected = content.split('\n').slice(0, -1);
        const { lines, overflow } = split(Buffer.from(content), at, 10_000);
        assert.equal(overflow, false);
        assert.deepEqual(
          lines,
          expected.map((line) => line.replace(/\r$/, '')),
        );
      }),
    );
  });

  it('a line of exactly the limit passes, one more byte does not', () => {
    const splitter = new LineSplitter(4);
    assert.deepEqual(push(splitter, Buffer.from('abcd\n')), { lines: ['abcd'], overflow: false });
    assert.deepEqual(push(splitter, Buffer.from('ok\nabcde')), { lines: ['ok'], overflow: true });
    assert.deepEqual(push(splitter, Buffer.from('\nlater\n')), { lines: [], overflow: true });
  });

  it('an endless line is refused before its end comes', () => {
    const splitter = new LineSplitter(1000);
    const chunk = Buffer.alloc(100, 'x');
    for (let i = 0; i < 10; i += 1) assert.equal(push(splitter, chunk).overflow, false);
    assert.equal(push(splitter, chunk).overflow, true);
  });
});
