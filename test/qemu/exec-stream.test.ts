import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import type { ExecStreamStart } from '../../src/grpc/generated/qshim/v1/ExecStreamStart.ts';
import { TestDaemon } from '../support/daemon.ts';
import { ExecStream } from '../support/exec-stream.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { qemuInventory, type QemuInventory } from '../support/leaks.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();
const MIB = 1024 * 1024;
/** What a command with streams has in the guest while it runs: a directory, shells with a script's text, socat. */
const LEFT = 'ls /run/qshim/commands; pgrep -f "Runs a command of a caller[\']s" || pgrep socat || echo none';

await describe('a command with streams', { skip }, async () => {
  let daemon: TestDaemon;
  let emptied: QemuInventory;

  async function inventory(): Promise<QemuInventory> {
    const { stateDir, qemuPid } = await daemon.client.getSandbox('vm');
    return await qemuInventory(stateDir, qemuPid);
  }

  const open = (start: Omit<ExecStreamStart, 'sandboxId'>): ExecStream =>
    new ExecStream(daemon.client.sandboxes, { sandboxId: 'vm', ...start });
  const shell = (script: string, start: Omit<ExecStreamStart, 'sandboxId' | 'path'> = {}): ExecStream =>
    open({ path: 'sh', arguments: ['-c', script], ...start });

  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: {} });
    emptied = await inventory();
  });

  after(async () => {
    try {
      // Nothing is left in QEMU, and nothing in the guest.
      await until('the ports are gone', async () => {
        const { peripherals } = await inventory();
        return peripherals.join() === emptied.peripherals.join();
      });
      assert.equal(await daemon.client.guest('vm', LEFT), 'none\n');
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
  });

  await it('bytes pass through both ways, whole, in order, to the end of the input', async () => {
    const bytes = randomBytes(3 * MIB + 70_000);
    const cat = open({ path: '/bin/cat' });
    for (let at = 0; at < bytes.length; at += 60_000) {
      await cat.send({ standardInput: bytes.subarray(at, at + 60_000) });
    }
    await cat.send({ standardInputEnd: {} });
    assert.equal(await cat.exitCode(), 0);
    assert.ok(cat.stdout.equals(bytes), `${cat.stdout.length} of ${bytes.length} bytes`);
    assert.deepEqual([cat.stderr.length, (cat.pid ?? 0) > 1], [0, true]);
  });

  await it('outputs are apart, the exit code is its own, and the end of the requests ends the input', async () => {
    const both = shell('cat; echo out; echo err >&2; exit 7');
    await both.type('in ');
    both.call.end();
    assert.deepEqual([await both.exitCode(), both.stdout.toString(), both.stderr.toString()], [7, 'in out\n', 'err\n']);
  });

  await it('has the arguments, the environment and the directory that were asked for, as they are', async () => {
    const odd = ['a b', "c'd", '$HOME', 'line\nbreak', ''];
    const seen = shell('printf "[%s]" "$@"; echo; pwd; env | sort', {
      arguments: ['-c', 'printf "[%s]" "$@"; pwd; echo "$A"', 'sh', ...odd],
      environment: ['A=1 2 "3"', 'PATH=/bin:/usr/bin'],
      workingDirectory: '/proc/sys',
    });
    assert.equal(await seen.exitCode(), 0);
    assert.equal(seen.stdout.toString(), `${odd.map((word) => `[${word}]`).join('')}/proc/sys\n1 2 "3"\n`);
    const bare = open({ path: '/usr/bin/env', environment: ['ONLY=this'] });
    assert.deepEqual([await bare.exitCode(), bare.stdout.toString()], [0, 'ONLY=this\n']);
  });

  await it('signals reach it, and how one ends it is told as shells do', async () => {
    const trapped = shell('trap "echo caught; exit 3" USR1; echo ready; while :; do sleep 0.1; done');
    await trapped.says('ready');
    await trapped.send({ signal: 10 });
    assert.deepEqual([await trapped.exitCode(), trapped.stdout.toString()], [3, 'ready\ncaught\n']);
    const interrupted = open({ path: 'sleep', arguments: ['98761'] });
    await interrupted.started();
    await interrupted.send({ signal: 2 });
    assert.equal(await interrupted.exitCode(), 130);
  });

  await it('the end of its call kills it in the guest with what it has started, and the log says so', async () => {
    const left = shell('sleep 98762 & (sleep 98762 &) ; echo ready; sleep 98762');
    await left.says('ready');
    left.call.cancel();
    await assert.rejects(left.exitCode(), { code: 1 });
    await until('it is dead', async () => (await daemon.client.guest('vm', 'pgrep -f "^sleep 98762" || :')) === '');
    await until('the log says it', async () => (await daemon.log()).includes('command killed in the guest'));
  });

  await it('one that floods waits for its caller, and harms nobody', async () => {
    const flood = open({ path: 'yes' });
    await flood.says('y\n');
    flood.call.pause();
    assert.equal(await daemon.client.guest('vm', 'echo others go on'), 'others go on\n');
    flood.call.resume();
    flood.call.cancel();
    await assert.rejects(flood.exitCode(), { code: 1 });
    await until('it is dead', async () => (await daemon.client.guest('vm', 'pgrep "^yes" || :')) === '');
  });

  await it('a terminal: its size, its changes, its keys, its end', async () => {
    const terminal = { rows: 31, columns: 97 };
    // The shell hears of the new size once cat has ended.
    const typed = shell('trap "echo changed" WINCH; tty; stty size; cat; stty size; exit 5', { terminal });
    await typed.says('31 97\r\n');
    const [device = ''] = typed.stdout.toString().split('\r\n');
    assert.match(device, /^\/dev\/pts\/\d+$/);
    await typed.type('hello\r');
    // The terminal's echo, then cat's.
    await typed.says('hello\r\nhello\r\n');
    await typed.send({ terminalSize: { rows: 40, columns: 120 } });
    await until(
      'the size is new',
      async () => (await daemon.client.guest('vm', `stty -F ${device} size`)) === '40 120\n',
    );
    await typed.type('\u0004');
    assert.equal(await typed.exitCode(), 5);
    assert.equal(typed.stdout.toString(), `${device}\r\n31 97\r\nhello\r\nhello\r\nchanged\r\n40 120\r\n`);
    // Its pid is told before the terminal is its own, when the key would reach nobody.
    const interrupted = shell('echo ready; exec sleep 98763', { terminal });
    await interrupted.says('ready\r\n');
    await interrupted.type('\u0003');
    assert.equal(await interrupted.exitCode(), 130);
    assert.equal(interrupted.stdout.toString(), 'ready\r\n^C');
  });

  await it('nothing of the last output of a terminal is lost', async () => {
    const last = shell('i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i + 1)); done', {
      terminal: { rows: 24, columns: 80 },
    });
    assert.equal(await last.exitCode(), 0);
    const lines = Array.from({ length: 3000 }, (_, index) => `line ${index}\r\n`).join('');
    assert.ok(last.stdout.equals(Buffer.from(lines)), last.stdout.subarray(-200).toString());
  });

  await it('what cannot be run, or asked, is refused', async () => {
    const why = async (stream: ExecStream): Promise<readonly string[]> => {
      const { code, reason, message } = await refusal(stream.exitCode());
      return [code, reason, message];
    };
    const refused = ['FAILED_PRECONDITION', 'GUEST_EXEC_REFUSED'];
    assert.deepEqual(await why(open({ path: '/no/such' })), [
      ...refused,
      'the guest did not run /no/such: there is no such file',
    ]);
    assert.deepEqual((await why(open({ path: 'no-such' }))).slice(0, 2), refused);
    assert.deepEqual(await why(open({ path: 'cat', workingDirectory: '/no' })), [
      ...refused,
      'the guest did not run cat: /no is no directory',
    ]);
    const invalid = ['INVALID_ARGUMENT', 'INVALID_FIELD'];
    for (const start of [
      { path: 'bin/cat' },
      { path: 'cat', workingDirectory: 'tmp' },
      { path: 'cat', environment: ['A'] },
      { path: 'cat', terminal: { rows: 0, columns: 80 } },
    ]) {
      assert.deepEqual((await why(open(start))).slice(0, 2), invalid, JSON.stringify(start));
    }
    for (const message of [{ terminalSize: { rows: 1, columns: 1 } }, { signal: 65 }, { start: {} }, {}]) {
      const running = open({ path: 'cat' });
      await running.started();
      await running.send(message);
      assert.deepEqual((await why(running)).slice(0, 2), invalid, JSON.stringify(message));
    }
    const first = daemon.client.sandboxes.execStream();
    const failure = new Promise((_, reject) => first.on('error', reject).on('data', () => undefined));
    first.write({ signal: 9 });
    assert.equal((await refusal(failure)).code, 'INVALID_ARGUMENT');
  });
});
