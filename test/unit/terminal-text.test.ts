import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createLogger } from '../../src/base/log.ts';
import { visible, visibleJson, visibleLines } from '../../src/base/visible.ts';
import { TerminalText } from '../../src/cli/terminal-text.ts';

/** Everything that a terminal, or a reader's eye, takes for something else than a character. */
const ACTIVE = /[\p{Cc}\p{Cf}\u2028\u2029]/u;
const HOSTILE = '\u001b]52;c;aGk=\u0007\u009b2J\u007f\u202egnp\u2066\u200b\u2028\u{e0041}';
const text = fc.string({
  unit: fc.oneof(
    fc.constantFrom('\u001b', '\u009b', '\u202e', '\r', '\n', '\t', '\u2028'),
    fc.string({ maxLength: 3 }),
  ),
});

describe('text of a guest on a terminal', () => {
  it('holds nothing that a terminal acts on', () => {
    fc.assert(
      fc.property(text, (hostile) => {
        assert.doesNotMatch(visible(hostile), ACTIVE);
        assert.doesNotMatch(visibleLines(hostile).replaceAll(/[\n\t]/g, ''), ACTIVE);
      }),
    );
    assert.equal(
      visible(HOSTILE),
      '\\u{1b}]52;c;aGk=\\u{7}\\u{9b}2J\\u{7f}\\u{202e}gnp\\u{2066}\\u{200b}\\u{2028}\\u{e0041}',
    );
  });

  it('does not depend on how its bytes are cut', () => {
    const cuts = fc.array(fc.nat(), { maxLength: 8 });
    fc.assert(
      fc.property(text, fc.uint8Array({ maxLength: 8 }), cuts, (said, noise, at) => {
        const bytes = Buffer.concat([Buffer.from(said), noise]);
        const whole = new TerminalText();
        const expected = whole.write(bytes) + whole.end();
        const offsets = [0, ...at.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
        const cutUp = new TerminalText();
        const parts = offsets.slice(1).map((end, index) => cutUp.write(bytes.subarray(offsets[index], end)));
        assert.equal(parts.join('') + cutUp.end(), expected);
        assert.doesNotMatch(expected.replaceAll(/[\n\t]/g, ''), ACTIVE);
      }),
    );
  });

  it('ends lines with a line feed, and shows a carriage return that would let one overwrite another', () => {
    const lines = new TerminalText();
    assert.equal(lines.write(Buffer.from('one\r\ntwo\rlie\n')) + lines.end(), 'one\ntwo\\u{d}lie\n');
  });

  it('is the same in JSON, with nothing in it that a terminal acts on', () => {
    fc.assert(
      fc.property(fc.oneof(text, fc.constant(HOSTILE)), (hostile) => {
        const json = visibleJson(JSON.stringify({ hostile }));
        assert.deepEqual(JSON.parse(json), { hostile });
        assert.doesNotMatch(json, ACTIVE);
      }),
    );
  });

  it('is harmless in the log', () => {
    let line = '';
    createLogger('info', { write: (written) => (line += written) }).info({ problem: HOSTILE }, 'said');
    assert.doesNotMatch(line.trimEnd(), ACTIVE);
    assert.equal((JSON.parse(line) as { problem: string }).problem, HOSTILE);
  });
});
