import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { reasonRead } from '../../src/base/reasons.ts';
import { CliFailure } from '../../src/cli/cli-failure.ts';
import { EXIT_CODE_MEANINGS, exitCodeOf, exitCodeOfGuest } from '../../src/cli/exit-codes.ts';
import { failureOf } from '../../src/cli/failure.ts';
import { hintFor } from '../../src/cli/hints.ts';
import { failureText } from '../../src/cli/session.ts';
import { statusOf } from '../support/fake-api.ts';

const SOCKET = '/run/x.sock';

function serviceError(fields: { code: status; details: string; metadata?: Metadata }): ServiceError {
  return Object.assign(new Error(fields.details), { metadata: new Metadata(), ...fields });
}

describe('decoding', () => {
  it('reason and metadata come from the ErrorInfo in the trailers', () => {
    const { code, details, metadata } = statusOf({
      code: 'NOT_FOUND',
      message: 'no volume v',
      reason: 'VOLUME_NOT_FOUND',
      metadata: { volumeId: 'v' },
    });
    const failure = failureOf(serviceError({ code, details, metadata }), SOCKET);
    assert.equal(failure.code, 'NOT_FOUND');
    assert.equal(failure.reason, 'VOLUME_NOT_FOUND');
    assert.equal(failure.message, 'no volume v');
    assert.deepEqual({ ...failure.metadata }, { volumeId: 'v' });
    assert.equal(failure.exitCode, 3);
  });

  it('an ErrorInfo of another domain is not ours', () => {
    const { metadata } = statusOf({ code: 'ABORTED', message: 'm', reason: 'X' }, 'other.example');
    assert.equal(failureOf(serviceError({ code: status.ABORTED, details: 'm', metadata }), SOCKET).reason, 'ABORTED');
  });

  it('details that do not parse hide nothing', () => {
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', Buffer.from([0xff, 0xff, 0xff]));
    const failure = failureOf(serviceError({ code: status.NOT_FOUND, details: 'm', metadata }), SOCKET);
    assert.equal(failure.code, 'NOT_FOUND');
    assert.equal(failure.message, 'm');
  });

  it('the connection: why it failed, in words', () => {
    const unavailable = (details: string): CliFailure =>
      failureOf(serviceError({ code: status.UNAVAILABLE, details }), SOCKET);
    const refused = unavailable('No connection established. Last error: Error: connect ECONNREFUSED /run/x.sock');
    assert.equal(refused.exitCode, 6);
    assert.match(refused.message, /nobody listens/);
    assert.equal(unavailable('connect EACCES /run/x.sock').exitCode, 7);
    assert.match(unavailable('Connection dropped').message, /lost/);
  });

  it('a code that gRPC has no name for, and errors that are none of gRPC', () => {
    assert.equal(
      failureOf(Object.assign(new Error('m'), { code: 99, details: 'm', metadata: new Metadata() }), SOCKET).code,
      'UNKNOWN',
    );
    assert.equal(failureOf(new TypeError('x'), SOCKET).code, 'INTERNAL');
    assert.equal(failureOf('x', SOCKET).exitCode, 1);
  });
});

describe('exit codes', () => {
  it('by status; UNAVAILABLE means unreachable only when no daemon answered', () => {
    assert.equal(exitCodeOf('UNAVAILABLE', false), 6);
    assert.equal(exitCodeOf('UNAVAILABLE', true), 1);
    assert.deepEqual(
      ['NOT_FOUND', 'ALREADY_EXISTS', 'FAILED_PRECONDITION', 'ABORTED'].map((code) => exitCodeOf(code, true)),
      [3, 4, 4, 4],
    );
    assert.deepEqual(
      ['DEADLINE_EXCEEDED', 'PERMISSION_DENIED', 'RESOURCE_EXHAUSTED', 'INTERNAL', 'NEW'].map((code) =>
        exitCodeOf(code, true),
      ),
      [5, 7, 8, 1, 1],
    );
  });

  it('of the guest command', () => {
    assert.equal(exitCodeOfGuest({ exitCode: 42, signal: 0 }), 42);
    assert.equal(exitCodeOfGuest({ exitCode: 0, signal: 15 }), 143);
    assert.equal(exitCodeOfGuest({ exitCode: -1, signal: 0 }), 255);
  });

  it('docs/cli.md lists each with its meaning', async () => {
    const text = await readFile(new URL('../../docs/cli.md', import.meta.url), 'utf8');
    // Prettier pads the cells of a table.
    const document = text.replaceAll(/ +/g, ' ');
    for (const [code, meaning] of EXIT_CODE_MEANINGS) assert.ok(document.includes(`| ${code} | ${meaning} |`), meaning);
  });
});

describe('what people and programs read', () => {
  const failure = new CliFailure('NOT_FOUND', 'no\u001bsuch', {
    reason: reasonRead('R'),
    exitCode: 3,
    metadata: { a: 'b' },
  });

  it('one line and a hint, or one JSON object', () => {
    assert.equal(
      failureText(failure, false, { sandboxId: 'sb1', volumeId: 'v' }),
      'qshim: no\\u{1b}such (R)\nhint: `qshim volume list sb1` shows the volumes there are\n',
    );
    assert.deepEqual(JSON.parse(failureText(failure, true)), {
      error: { code: 'NOT_FOUND', reason: 'R', message: 'no\u001bsuch', metadata: { a: 'b' } },
    });
  });

  it('hints name the next step', () => {
    const hint = (code: string, reason: string, volumeId?: string): string | undefined =>
      hintFor(new CliFailure(code, 'm', { reason: reasonRead(reason), exitCode: 1 }), { sandboxId: 'sb1', volumeId });
    assert.match(hint('UNAVAILABLE', 'DAEMON_UNREACHABLE') ?? '', /qshimd/);
    assert.equal(hint('UNAVAILABLE', 'QMP_LOST'), undefined);
    assert.match(hint('FAILED_PRECONDITION', 'SOURCE_NOT_FOUND', 'v') ?? '', /host of the daemon/);
    assert.match(hint('NOT_FOUND', 'A_REASON_OF_TOMORROW', 'v') ?? '', /volume list sb1/);
    assert.match(hint('NOT_FOUND', 'SANDBOX_NOT_FOUND', 'v') ?? '', /sandbox list/);
    assert.match(hint('NOT_FOUND', 'VOLUME_NOT_FOUND', 'v') ?? '', /volume list sb1/);
    assert.match(hint('PERMISSION_DENIED', 'OUTSIDE_ALLOWED_ROOTS', 'v') ?? '', /allowed_roots/);
    assert.match(hint('DEADLINE_EXCEEDED', 'GUEST_HOLDS_VOLUME', 'v') ?? '', /volume get sb1 v/);
    assert.equal(hint('INTERNAL', 'INTERNAL'), undefined);
    assert.equal(hint('INTERNAL', 'constructor'), undefined);
  });
});
