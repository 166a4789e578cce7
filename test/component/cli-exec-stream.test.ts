import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import type { ExecStreamRequest__Output } from '../../src/grpc/generated/qshim/v1/ExecStreamRequest.ts';
import { FakeApi, statusOf } from '../support/fake-api.ts';
import { QSHIM, run } from '../support/run-qshim.ts';
import { until } from '../support/until.ts';

const everyByte = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

/** Keeps what the command sends. */
function heard(api: FakeApi): ExecStreamRequest__Output[] {
  const messages: ExecStreamRequest__Output[] = [];
  const play = api.onExecStream;
  api.onExecStream = (call) => {
    call.on('data', (message: ExecStreamRequest__Output) => messages.push(message));
    play(call);
  };
  return messages;
}

describe('exec -i', () => {
  it('passes bytes on both ways, apart, and the exit code', async () => {
    await using api = await FakeApi.start();
    api.onExecStream = (call) => {
      call.write({ started: { pid: 7 } });
      call.on('data', ({ standardInput }: ExecStreamRequest__Output) => {
        if (standardInput) call.write({ standardOutput: standardInput });
      });
      call.on('end', () => {
        call.write({ standardError: Buffer.from('err') });
        call.write({ exited: { exitCode: 42 } });
        call.end();
      });
    };
    const messages = heard(api);
    const input = Buffer.alloc(5 * 1024 * 1024, everyByte);
    const command = ['--workdir', '/mnt', '--env', 'A=1', '--', '/bin/cat', '-x'];
    const ran = await run(['sandbox', 'exec', '-i', 'sb1', ...command], { socket: api.socketPath, input });
    assert.deepEqual([ran.exitCode, ran.stderr], [42, 'err']);
    assert.ok(ran.stdout.equals(input));
    assert.partialDeepStrictEqual(messages[0]?.start, {
      ...{ sandboxId: 'sb1', path: '/bin/cat', arguments: ['-x'], environment: ['A=1'], workingDirectory: '/mnt' },
      terminal: null,
    });
  });

  it('ends with the command, whoever still holds its input open', async () => {
    await using api = await FakeApi.start();
    api.onExecStream = (call) => {
      call.write({ exited: { exitCode: 3 } });
      call.end();
    };
    const child = execa(QSHIM, ['sandbox', 'exec', '-i', 'sb1', 'true'], {
      ...{ stdin: 'pipe', reject: false, env: { QSHIM_SOCKET: api.socketPath } },
    });
    assert.equal((await child).exitCode, 3);
  });

  it('SIGTERM ends the call', async () => {
    await using api = await FakeApi.start();
    let cancelled = false;
    let called = false;
    api.onExecStream = (call) => {
      called = true;
      call.on('cancelled', () => (cancelled = true));
      call.write({ started: { pid: 7 } });
    };
    const child = execa(QSHIM, ['sandbox', 'exec', '-i', 'sb1', 'cat'], {
      ...{ stdin: 'pipe', reject: false, env: { QSHIM_SOCKET: api.socketPath } },
    });
    await until('it has called', () => called);
    child.kill('SIGTERM');
    assert.equal((await child).exitCode, 143);
    await until('the call is cancelled', () => cancelled);
  });

  it('a refusal is told as ever', async () => {
    await using api = await FakeApi.start();
    const refusal = { code: 'NOT_FOUND', message: 'there is no sandbox sb1', reason: 'SANDBOX_NOT_FOUND' } as const;
    api.onExecStream = (call) => void call.emit('error', statusOf(refusal));
    const { exitCode, stderr } = await run(['sandbox', 'exec', '-i', 'sb1', 'cat'], { socket: api.socketPath });
    assert.equal(exitCode, 3);
    assert.match(stderr, /^qshim: there is no sandbox sb1 \(SANDBOX_NOT_FOUND\)\nhint: /);
  });

  it('options that do not go together are wrong usage', async () => {
    await using api = await FakeApi.start();
    for (const options of [
      ['-it'],
      ['-i', '--stdin'],
      ['-i', '--timeout', '5'],
      ['--workdir', '/'],
      ['-i', '--json'],
    ]) {
      const ran = await run(['sandbox', 'exec', ...options, 'sb1', '/bin/cat'], { socket: api.socketPath });
      assert.equal(ran.exitCode, 2, options.join(' '));
    }
  });
});

describe('exec -it in a terminal', () => {
  it('passes keys on as they are, follows the size, and leaves the terminal as it was', async () => {
    await using api = await FakeApi.start();
    let typed = '';
    const sizes: unknown[] = [];
    api.onExecStream = (call) => {
      call.write({ started: { pid: 7 } });
      call.write({ standardOutput: Buffer.from('prompt> ') });
      call.on('data', ({ start, standardInput, terminalSize }: ExecStreamRequest__Output) => {
        if (start) sizes.push({ ...start.terminal });
        if (terminalSize) sizes.push({ ...terminalSize });
        typed += standardInput?.toString('latin1') ?? '';
        if (!typed.includes('q')) return;
        call.write({ exited: { exitCode: 9 } });
        call.end();
      });
    };
    // script(1) of util-linux gives it a terminal, whose keys are its own standard input.
    const inside = `stty rows 33 cols 99; ${QSHIM} sandbox exec -it sb1 sh; echo "code $?"; stty -a`;
    const child = execa('script', ['-qec', inside, '/dev/null'], {
      ...{ stdin: 'pipe', reject: false, env: { QSHIM_SOCKET: api.socketPath, SHELL: '/bin/sh' } },
    });
    let shown = '';
    child.stdout.on('data', (chunk: Buffer) => (shown += chunk.toString()));
    await until('it is prompted', () => shown.includes('prompt> '));
    child.stdin.write('a\u0003\r');
    await until('keys have come', () => typed === 'a\u0003\r');
    child.stdin.end('q');
    await child;
    assert.deepEqual(sizes[0], { rows: 33, columns: 99 });
    assert.match(shown, /code 9\r\n/);
    assert.match(shown, / icanon /);
  });
});
