import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ShimError, oneSentence } from '../../src/base/errors.ts';
import { toServiceError } from '../../src/grpc/status.ts';

const TRAILER_BYTES_MAX = 16_384;

describe('an error that quotes another program', () => {
  const rows: readonly (readonly [said: string, shown: string])[] = [
    ['KVM: failed to init vcpu.', 'KVM: failed to init vcpu'],
    ['KVM internal error. Suberror: 1\nextra data[0]: 2. \n', 'KVM internal error; Suberror: 1; extra data[0]: 2'],
    ['Usage: mkfs\r\n\r\n\t-b size\r\n', 'Usage: mkfs; -b size'],
    ['/mnt/a.b. c', '/mnt/a.b. c'],
    ['what ...', 'what'],
    ['\n.\n', ''],
    ['\u00a0'.repeat(4000) + 'x', 'x'],
  ];
  for (const [said, shown] of rows) {
    it(`is one sentence: ${JSON.stringify(said.slice(0, 40))}`, () => {
      assert.equal(oneSentence(said), shown);
      const { message } = new ShimError('FAILED_PRECONDITION', `QEMU says: ${said}`, { reason: 'QEMU_EXITED' });
      // As test/support/errors.ts holds every error of the daemon against the API rules.
      assert.match(message, /^\S[^\n\r]*[^\s.]$/);
      assert.doesNotMatch(message, /[a-z]{2}\. [A-Z]/);
    });
  }
});

describe('what a hostile guest says, in an error', () => {
  it('is cut, well-formed and without control characters', () => {
    const error = new ShimError('UNAVAILABLE', `\ud800 \u001b[31mred\u0007\tand \u202e\u2028${'x'.repeat(100_000)}`, {
      reason: 'GUEST_AGENT_GARBAGE',
      metadata: { what: `\udfff${'y'.repeat(100_000)}` },
    });
    assert.equal(error.message.slice(0, 18), '\ufffd \ufffd[31mred\ufffd\tand \ufffd\ufffd');
    assert.equal(error.message.length, 4096);
    assert.equal(error.metadata['what']?.length, 1024);
    assert.ok(error.metadata['what'].isWellFormed());
  });

  it('never costs more trailers than a client takes, and can always be encoded', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 6000 }),
      fc.string({
        unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)),
        maxLength: 6000,
      }),
      fc.constantFrom('\u20ac'.repeat(5000), `${'x'.repeat(4095)}\u{1f600}`, '\u{1f600}'.repeat(3000)),
    );
    fc.assert(
      fc.property(text, text, (message, value) => {
        const error = new ShimError('ABORTED', message, {
          reason: 'BATCH_UNDONE',
          metadata: { a: value, b: value, c: value },
        });
        const sent = toServiceError(error);
        const [details] = sent.metadata.get('grpc-status-details-bin');
        assert.ok(details instanceof Buffer);
        const bytes = encodeURI(sent.details).length + Math.ceil(details.length / 3) * 4;
        assert.ok(bytes < TRAILER_BYTES_MAX, `${bytes} bytes`);
      }),
    );
  });
});
