import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { errorDocument } from '../../scripts/lib/error-document.ts';
import { ShimError, invalidArgument, shimError } from '../../src/base/errors.ts';
import {
  REASONS,
  STATUSES,
  isReason,
  reasonRead,
  type AnyReason,
  type DecidingReason,
  type Reason,
  type ReasonRow,
} from '../../src/base/reasons.ts';
import { reasonsMade } from '../support/reasons-made.ts';

const ROWS: readonly (readonly [reason: string, row: ReasonRow])[] = Object.entries<ReasonRow>(REASONS);
const SENTENCE = /^(?:[A-Z`]|qshim).*[^.]\.$/;
const made = await reasonsMade();

describe('the table of reasons', () => {
  it('docs/errors.md is what the table says (npm run error-docs)', async () => {
    const written = await readFile(join(import.meta.dirname, '../../docs/errors.md'), 'utf8');
    assert.deepEqual(written.split('\n'), errorDocument().split('\n'));
  });

  it('each reason has a name of its kind, and says in a sentence each what it means and what to do', () => {
    for (const [reason, { meaning, remedy }] of ROWS) {
      assert.match(reason, /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/);
      for (const said of [meaning, remedy]) {
        assert.match(said, SENTENCE, reason);
        assert.doesNotMatch(said, /[a-z]\. |[|\n]/, `${reason}: one sentence, for a cell of a table`);
      }
    }
  });

  it('each has a place, and a status unless it is a cause and no error', () => {
    for (const [reason, { statuses, where }] of ROWS) {
      assert.ok(where.length > 0, reason);
      assert.equal(
        statuses.length === 0,
        where.every((place) => place === 'cause'),
        reason,
      );
      assert.deepEqual([...new Set(statuses)].sort(), [...statuses], `${reason}: each status once, in order`);
    }
  });

  it('each status has reasons', () => {
    for (const status of Object.keys(STATUSES)) {
      assert.ok(
        ROWS.some(([, { statuses }]) => statuses.some((one) => one === status)),
        status,
      );
    }
  });
});

describe('the source and the table of reasons', () => {
  it('every reason in the table is given somewhere in src', () => {
    assert.deepEqual(
      Object.keys(REASONS).filter((reason) => !made.reasons.has(reason)),
      [],
    );
  });

  it('a reason of several statuses is given with each of them', () => {
    const several = ROWS.filter(([, { statuses }]) => statuses.length > 1);
    assert.ok(several.length > 0);
    for (const [reason, { statuses }] of several) {
      for (const status of statuses) assert.ok(made.pairs.has(`${status}/${reason}`), `${status} / ${reason}`);
    }
  });

  it('what scripts in the guest give is in the table', () => {
    assert.ok(made.ofScripts.has('GUEST_MOUNT_FAILED'));
    assert.deepEqual(
      [...made.ofScripts].filter((reason) => !isReason(reason)),
      [],
    );
  });
});

describe('types hold errors against the table', () => {
  // Each expectation fails the type check (npm run types) when the line below it compiles.
  it('a code takes its own reasons', () => {
    const errors: unknown[] = [
      new ShimError('ABORTED', 'm', { reason: 'SANDBOX_STOPPING' }),
      new ShimError('FAILED_PRECONDITION', 'm', { reason: 'SANDBOX_STOPPING' }),
      // @ts-expect-error -- a reason that comes with two statuses comes with no third
      new ShimError('NOT_FOUND', 'm', { reason: 'SANDBOX_STOPPING' }),
      // @ts-expect-error -- VOLUME_BUSY is FAILED_PRECONDITION
      new ShimError('NOT_FOUND', 'm', { reason: 'VOLUME_BUSY' }),
      // @ts-expect-error -- no such reason
      new ShimError('NOT_FOUND', 'm', { reason: 'NO_SUCH_REASON' }),
      // @ts-expect-error -- a cause is no error
      new ShimError('FAILED_PRECONDITION', 'm', { reason: 'GUEST_PANICKED' }),
      // @ts-expect-error -- the command's own reasons are not the daemon's
      new ShimError('INVALID_ARGUMENT', 'm', { reason: 'USAGE' }),
      // @ts-expect-error -- either could come with the other's status
      new ShimError(either('ABORTED', 'NOT_FOUND'), 'm', { reason: either('BATCH_UNDONE', 'VOLUME_NOT_FOUND') }),
      // @ts-expect-error -- it is NOT_FOUND
      invalidArgument('field', 1, 'problem', 'VOLUME_NOT_FOUND'),
      // @ts-expect-error -- two statuses: the reason does not decide
      shimError('SANDBOX_STOPPING', 'm'),
    ];
    assert.equal(errors.length, 10);
  });

  it('a reason that was read may be any text, one that is written may not', () => {
    const read: AnyReason = reasonRead('OF_ANOTHER_VERSION');
    // @ts-expect-error -- a plain text is no reason of ours
    const written: AnyReason = 'OF_ANOTHER_VERSION';
    // @ts-expect-error -- what was read may not be in the table
    const ours: Reason = read;
    assert.deepEqual([read, ours, isReason(read), isReason('constructor')], [written, written, false, false]);
  });

  it('a reason of one status decides it', () => {
    const deciding = Object.keys(REASONS).filter(decides);
    assert.ok(deciding.length > 100);
    for (const reason of deciding) {
      const error = shimError(reason, 'm', { metadata: { a: 'b' } });
      assert.deepEqual([error.reason, [error.code], error.metadata], [reason, REASONS[reason].statuses, { a: 'b' }]);
    }
  });
});

/** One of the two; the compiler cannot know which. */
function either<T>(...[one]: readonly [one: T, other: T]): T {
  return one;
}

function decides(reason: string): reason is DecidingReason {
  return (
    isReason(reason) && REASONS[reason].statuses.length === 1 && !REASONS[reason].where.some((at) => at === 'command')
  );
}
