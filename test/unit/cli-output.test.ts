import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { visible } from '../../src/base/visible.ts';
import { Progress } from '../../src/cli/progress.ts';
import { table } from '../../src/cli/table.ts';
import {
  bytesText,
  causeText,
  durationText,
  enumWord,
  jsonValue,
  labelsText,
  timestampText,
} from '../../src/cli/values.ts';
import { eventLine } from '../../src/cli/watch-command.ts';
import { until } from '../support/until.ts';

describe('values', () => {
  it('bytes and durations', () => {
    assert.deepEqual([0, 512, 1024, 1536, 2 ** 30].map(bytesText), ['0 B', '512 B', '1 KiB', '1.5 KiB', '1 GiB']);
    assert.deepEqual([0.04, 12.34, 231.4, 1240].map(durationText), ['0.0 ms', '12.3 ms', '231 ms', '1.24 s']);
  });

  it('timestamps keep their nanoseconds', () => {
    assert.equal(timestampText({ seconds: 0, nanos: 0 }), '1970-01-01T00:00:00.000Z');
    assert.equal(timestampText({ seconds: -1, nanos: 500_000_000 }), '1969-12-31T23:59:59.500Z');
    assert.equal(timestampText({ seconds: 1, nanos: 1 }), '1970-01-01T00:00:01.000000001Z');
    assert.equal(timestampText({ seconds: 1e15, nanos: 2 }), '1000000000000000.000000002');
  });

  it('a timestamp in RFC 3339 is the same moment', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4e9 }), fc.integer({ min: 0, max: 999 }), (seconds, millis) => {
        const text = timestampText({ seconds, nanos: millis * 1_000_000 });
        return Date.parse(text) === seconds * 1000 + millis;
      }),
    );
  });

  it('enum words, labels, causes', () => {
    assert.equal(enumWord('CACHE_MODE_', 'CACHE_MODE_NONE'), 'none');
    assert.equal(enumWord('CACHE_MODE_', 'CACHE_MODE_UNSPECIFIED'), '-');
    assert.equal(enumWord('CACHE_MODE_', 'SOMETHING_NEW'), 'something_new');
    assert.equal(labelsText({ b: '2', a: '1' }), 'a=1,b=2');
    assert.equal(causeText({ reason: 'R', message: 'm' }), 'R: m');
    assert.equal(causeText({ reason: '', message: '' }), '-');
    assert.equal(causeText(null), '-');
  });

  it('text from the guest cannot drive the terminal', () => {
    assert.equal(visible('a\u001b[31m\u202eb\nc'), 'a\\u{1b}[31m\\u{202e}b\\u{a}c');
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => !/[\p{Cc}\p{Cf}]/u.test(visible(text))));
  });

  it('JSON: bytes in base64, times in RFC 3339, the rest as it is', () => {
    const message = {
      data: Buffer.from([0, 255]),
      at: { seconds: 1, nanos: 0 },
      none: null,
      size: 2 ** 53 - 1,
      list: [{ at: { seconds: 2, nanos: 0 } }],
      labels: { seconds: '1' },
    };
    assert.deepEqual(jsonValue(message), {
      data: 'AP8=',
      at: '1970-01-01T00:00:01.000Z',
      none: null,
      size: 2 ** 53 - 1,
      list: [{ at: '1970-01-01T00:00:02.000Z' }],
      labels: { seconds: '1' },
    });
  });
});

describe('table', () => {
  it('columns are aligned, without borders or trailing blanks', () => {
    const text = table(
      ['NAME', 'X'],
      [
        ['a', '1'],
        ['longer', '2'],
      ],
    );
    assert.equal(text, 'NAME    X\na       1\nlonger  2');
  });

  it('without a width nothing is cut; with one the widest columns are', () => {
    const path = '/very/long/'.repeat(20);
    assert.ok(table(['ID', 'PATH'], [['v', path]]).includes(path));
    const cut = table(['ID', 'PATH', 'STATE'], [['v', path, 'attached']], 60);
    assert.ok(cut.split('\n').every((line) => line.length <= 60));
    assert.match(cut, /…  attached$/m);
  });

  it('no width makes lines longer than it, as long as the columns have room', () => {
    const cell = fc.string({ unit: 'grapheme-ascii', maxLength: 60 }).map((text) => text.replaceAll(/\s/g, '_'));
    const rows = fc.array(fc.tuple(cell, cell, cell), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(rows, fc.integer({ min: 28, max: 200 }), (cells, width) =>
        table(['A', 'B', 'C'], cells, width)
          .split('\n')
          .every((line) => line.length <= width),
      ),
    );
  });

  it('no rows leave the heading', () => {
    assert.equal(table(['A', 'B'], []), 'A  B');
  });
});

describe('progress', () => {
  function terminal(isTTY: boolean): { written: string[]; isTTY: boolean; columns: number; write(text: string): void } {
    const written: string[] = [];
    return { written, isTTY, columns: 30, write: (text) => void written.push(text) };
  }

  it('is one line that is rewritten and erased at the end', async () => {
    const target = terminal(true);
    {
      using _ = new Progress(target, 'attaching vol1 to sb1, which is long');
      await until('it has written twice', () => target.written.length >= 2);
    }
    const lines = target.written.slice(0, -1);
    assert.ok(lines.every((line) => line.startsWith('\r\u001b[Kattaching vol1') && !line.includes('\n')));
    assert.ok(lines.every((line) => line.length - '\r\u001b[K'.length < target.columns));
    assert.equal(target.written.at(-1), '\r\u001b[K');
  });

  it('begins after half a second', async () => {
    const target = terminal(true);
    {
      using _ = new Progress(target, 'x');
      await until('it has written', () => target.written.length > 0);
    }
    const seconds = /^\r\u{1b}\[Kx \.\.\. (\d+\.\d) s$/u.exec(target.written[0] ?? '')?.[1];
    assert.ok(Number(seconds) >= 0.5, target.written[0]);
  });

  it('short work shows nothing, and so does no terminal', async () => {
    const quick = terminal(true);
    new Progress(quick, 'x')[Symbol.dispose]();
    assert.deepEqual(quick.written, []);
    const pipe = terminal(false);
    {
      using _ = new Progress(pipe, 'x');
      await sleep(700);
    }
    assert.deepEqual(pipe.written, []);
  });
});

it('an event is one line whatever the guest put into its cause', () => {
  const line = eventLine({
    epoch: 'e1',
    sequence: 12,
    time: null,
    sandboxId: 'sb1',
    volumeId: 'v',
    generation: 2,
    type: 'volume.removed',
    cause: { reason: 'VM_GONE', message: 'QEMU said\n"no"' },
    timings: [],
  });
  assert.match(line, / 12 {2}sb1\/v#2 +volume\.removed +VM_GONE: QEMU said\\u\{a\}"no"$/);
});
