import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseSize } from '../../src/base/sizes.ts';
import { sizeInBytes, sizeInMebibytes, sizeOrAll, wantedSize } from '../../src/cli/sizes.ts';

const GIB = 2 ** 30;
const USAGE = { code: 'commander.invalidArgument' };

describe('sizes as people write them', () => {
  it('powers of 1024, in either case, with and without iB', () => {
    const sizes: Readonly<Record<string, number>> = {
      ...{ '0': 0, '4096': 4096, '4096B': 4096, '1K': 1024, '1k': 1024, '1KiB': 1024, '1kib': 1024 },
      ...{ '512M': 512 * 2 ** 20, '2G': 2 * GIB, '2GiB': 2 * GIB, '3T': 3 * 2 ** 40, '1P': 2 ** 50 },
      ...{ '1.5G': 1.5 * GIB, '0.5K': 512, '1.25MiB': 1.25 * 2 ** 20, '9007199254740991': Number.MAX_SAFE_INTEGER },
    };
    for (const [text, bytes] of Object.entries(sizes)) assert.equal(parseSize(text)?.bytes, bytes, text);
  });

  it('nothing else: what means two things, fractions of a byte, signs, what a number cannot hold', () => {
    for (const text of [
      ...['', 'G', '1KB', '1MB', '1GB', '1e3', '0x10', '-1', '+1', ' 1', '1 G', '1,5G', '.5G', '1.G', '٣'],
      ...['1.5', '1.5B', '0.3K', '9007199254740992', '8P', '99999999T', '1E', '1GG', '1iB', 'max'],
    ]) {
      assert.equal(parseSize(text), undefined, text);
    }
  });

  it('every number of bytes that a double counts survives, 4 GiB or not', () => {
    fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseSize(String(bytes))?.bytes === bytes));
  });
});

describe('sizes as options', () => {
  it('bytes', () => {
    assert.equal(sizeInBytes()('4K'), 4096);
    assert.equal(sizeInBytes()('8589934592'), 8 * GIB);
    assert.throws(() => sizeInBytes()('0'), USAGE);
    assert.throws(() => sizeInBytes()('max'), USAGE);
  });

  it('bytes, or all that fit', () => {
    assert.equal(sizeOrAll('5368709120'), 5 * GIB);
    assert.equal(sizeOrAll('5G'), 5 * GIB);
    assert.equal(sizeOrAll('max'), 0);
    assert.throws(() => sizeOrAll('0'), USAGE);
    assert.throws(() => sizeOrAll('+1G'), USAGE);
  });

  it('memory: a plain number is MiB', () => {
    assert.equal(sizeInMebibytes('768'), 768);
    assert.equal(sizeInMebibytes('2G'), 2048);
    assert.equal(sizeInMebibytes('1.5GiB'), 1536);
    for (const wrong of ['0', '1K', '1.5M', '0.5', 'max', '+1G']) {
      assert.throws(() => sizeInMebibytes(wrong), USAGE, wrong);
    }
  });

  it('what a disk is to grow to', () => {
    assert.deepEqual(wantedSize('8589934592'), { kind: 'bytes', bytes: 8 * GIB });
    assert.deepEqual(wantedSize('+1G'), { kind: 'more', bytes: GIB });
    assert.deepEqual(wantedSize('max'), { kind: 'all' });
    for (const wrong of ['0', '+0', '++1', '-1G', '+max', 'min']) assert.throws(() => wantedSize(wrong), USAGE, wrong);
  });
});
