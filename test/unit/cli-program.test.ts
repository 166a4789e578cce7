import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import { execa } from 'execa';
import { complete, completionScript, SHELLS } from '../../src/cli/completion.ts';
import { buildProgram, runCli } from '../../src/cli/program.ts';
import { Session, type Surroundings } from '../../src/cli/session.ts';
import { readStandardInput, STDIN_BYTES_MAX } from '../../src/cli/standard-input.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { SOURCES } from '../../src/volume/source/registry.ts';

interface Captured {
  readonly surroundings: Surroundings;
  stdout(): string;
  stderr(): string;
}

function capture(findings: readonly Finding[] = []): Captured {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const text = (stream: PassThrough): string => (stream.read() as Buffer | null)?.toString() ?? '';
  return {
    stdout: () => text(stdout),
    stderr: () => text(stderr),
    surroundings: {
      stdin,
      stdout,
      stderr,
      env: { QSHIM_SOCKET: '/nonexistent/env.sock' },
      cwd: '/cwd',
      version: '1.2.3',
      signal: new AbortController().signal,
      doctor: () => Promise.resolve(findings),
    },
  };
}

function everyCommand(command: CommandUnknownOpts): CommandUnknownOpts[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

describe('help', () => {
  it('every command and every option explains itself, and every command has an example', () => {
    const { program } = buildProgram(capture().surroundings);
    const commands = everyCommand(program);
    assert.ok(commands.length > 15);
    for (const command of commands) {
      assert.notEqual(command.description(), '', command.name());
      for (const option of command.options) assert.notEqual(option.description, '', option.flags);
      for (const argument of command.registeredArguments) assert.notEqual(argument.description, '', argument.name());
    }
  });

  it('leaf commands show examples, options where their defaults come from', async () => {
    const { program } = buildProgram(capture().surroundings);
    const withoutDefault = ['label', ...SOURCES.map(({ command }) => command.option)].map((name) => `--${name}`);
    for (const command of everyCommand(program)) {
      if (command.commands.length > 0) continue;
      const words: string[] = [];
      for (let at = command; at.parent !== null; at = at.parent) words.unshift(at.name());
      const captured = capture();
      assert.equal(await runCli([...words, '--help'], captured.surroundings), 0);
      assert.match(captured.stdout(), /\nExamples?:\n {2}\S/, words.join(' '));
      for (const option of command.options) {
        if (withoutDefault.includes(option.long ?? '')) continue;
        assert.match(option.description, /\(default: /, `${words.join(' ')} ${option.flags}`);
      }
    }
  });

  it('the root lists the exit codes', async () => {
    const captured = capture();
    assert.equal(await runCli(['--help'], captured.surroundings), 0);
    assert.match(captured.stdout(), /^ {2}5 +the deadline passed/m);
  });

  it('`help` and the words of a command, at every depth and from every group, are its --help', async () => {
    const shown = async (...words: string[]): Promise<string> => {
      const captured = capture();
      assert.equal(await runCli(words, captured.surroundings), 0, words.join(' '));
      return captured.stdout();
    };
    let deepest = 0;
    for (const command of everyCommand(buildProgram(capture().surroundings).program)) {
      const words: string[] = [];
      for (let at = command; at.parent !== null; at = at.parent) words.unshift(at.name());
      deepest = Math.max(deepest, words.length);
      const help = await shown(...words, '--help');
      for (let group = 0; group < Math.max(1, words.length); group += 1) {
        const asked = [...words.slice(0, group), 'help', ...words.slice(group)];
        assert.equal(await shown(...asked), help, asked.join(' '));
      }
    }
    assert.ok(deepest >= 3);
    assert.equal(await shown('help', 'vol', 'attach'), await shown('volume', 'attach', '--help'));
  });

  it('`help` of what is no command is wrong usage', async () => {
    for (const [words, said] of [
      [['help', 'volum'], "qshim has no command 'volum'"],
      [['help', 'volume', 'atach'], "qshim volume has no command 'atach'"],
      [['volume', 'help', 'attach', 'x'], "qshim volume attach has no command 'x'"],
    ] as const) {
      const captured = capture();
      assert.equal(await runCli(words, captured.surroundings), 2);
      assert.equal(captured.stdout(), '');
      assert.ok(captured.stderr().startsWith(`qshim: ${said}`), captured.stderr());
    }
  });

  it('the version', async () => {
    const captured = capture();
    assert.equal(await runCli(['--version'], captured.surroundings), 0);
    assert.equal(captured.stdout(), '1.2.3\n');
  });
});

describe('global options', () => {
  it('the socket: flag, then environment, then the default; relative to the working directory', () => {
    const { surroundings } = capture();
    const path = (socket: string | undefined, fromEnv: string | undefined): string =>
      new Session({ ...surroundings, env: { QSHIM_SOCKET: fromEnv } }, () => ({ socket })).socketPath;
    assert.equal(path('a.sock', '/e.sock'), '/cwd/a.sock');
    assert.equal(path(undefined, '/e.sock'), '/e.sock');
    assert.equal(path(undefined, ''), '/run/qshim/qshim.sock');
    assert.equal(path(undefined, undefined), '/run/qshim/qshim.sock');
  });

  it('they may stand before and behind the command, but not behind "--"', async () => {
    for (const args of [
      ['--json', 'volume', 'list'],
      ['volume', 'list', '--json'],
    ]) {
      const captured = capture();
      assert.equal(await runCli(args, captured.surroundings), 6);
      assert.equal((JSON.parse(captured.stderr()) as { error: { reason: string } }).error.reason, 'DAEMON_UNREACHABLE');
    }
    const captured = capture();
    assert.equal(await runCli(['sandbox', 'exec', 'sb1', '--', '/bin/x', '--json'], captured.surroundings), 6);
    assert.match(captured.stderr(), /^qshim: no daemon answers at \/nonexistent\/env\.sock/);
  });
});

it('a socket path that no socket can have: both lengths are said, and nothing is looked for', async () => {
  const socket = `/tmp/${'x'.repeat(103)}`;
  const captured = capture();
  assert.equal(await runCli(['--socket', socket, 'sandbox', 'list'], captured.surroundings), 2);
  const said = captured.stderr();
  assert.match(
    said,
    /^qshim: the path of the socket has 108 bytes, a unix socket's may have 107: .*SOCKET_PATH_TOO_LONG/,
  );
  assert.match(said, /--socket or QSHIM_SOCKET/);
});

describe('doctor', () => {
  it('what a program said in several lines is one line, without its escapes', async () => {
    const detail = 'it does not run: Command failed with exit code 1.\n\nqemu: first\nqemu: last.\n';
    for (const command of [['doctor'], ['doctor', '--json']]) {
      const captured = capture([{ check: 'qemu', status: 'failure', detail }]);
      await runCli(command, captured.surroundings);
      assert.match(captured.stdout(), /exit code 1; qemu: first; qemu: last["\n]/);
    }
  });

  it('warnings leave the exit code 0, a failure makes it 1', async () => {
    const warning: Finding = { check: 'kvm', status: 'warning', detail: 'd', remedy: 'do this' };
    const some = capture([warning]);
    assert.equal(await runCli(['doctor'], some.surroundings), 0);
    const text = some.stdout();
    assert.match(text, /^warning +kvm +d\n +-> do this\n/);
    assert.match(text, /^warning +daemon +no daemon answers/m);
    const bad = capture([warning, { check: 'qemu', status: 'failure', detail: 'gone' }]);
    assert.equal(await runCli(['doctor', '--json'], bad.surroundings), 1);
    const { findings } = JSON.parse(bad.stdout()) as { findings: Finding[] };
    assert.deepEqual(
      findings.map(({ check, status }) => [check, status]),
      [
        ['kvm', 'warning'],
        ['qemu', 'failure'],
        ['daemon', 'warning'],
      ],
    );
  });
});

describe('completion', () => {
  const { program } = buildProgram(capture().surroundings);
  const offered = (...words: string[]): readonly string[] => complete(program, words).candidates;

  it('commands, options of the command and its ancestors, values', () => {
    assert.deepEqual(offered('vol'), ['volume']);
    assert.deepEqual(offered('volume', ''), [
      ...['attach', 'detach', 'attach-many', 'detach-many', 'plan'],
      ...['resize', 'limit', 'renew', 'move', 'pivot', 'keys', 'stale', 'get', 'list', 'help'],
    ]);
    assert.deepEqual(offered('vol', 'attach', 'sb1', 'v', '--c'), ['--cache']);
    assert.deepEqual(offered('--json', 'volume', 'list', '--so'), ['--socket']);
    assert.deepEqual(offered('volume', 'attach', '--cache', 'write'), ['writeback', 'writethrough']);
    assert.deepEqual(offered('help', 'volume', 'keys', 'a'), ['add']);
    assert.deepEqual(offered('completion', ''), ['bash', 'zsh', 'fish']);
  });

  it('nothing where the shell should offer files, and behind "--"', () => {
    assert.deepEqual(offered('volume', 'attach', '--raw', ''), []);
    assert.deepEqual(offered('sandbox', 'exec', 'sb1', '--', '-'), []);
  });

  it('ids where ids go, values of options not counted', () => {
    assert.deepEqual(complete(program, ['sandbox', 'stop', '']).ids, { kind: 'sandbox' });
    assert.deepEqual(complete(program, ['volume', '--socket', '/s', 'get', 'sb1', '']).ids, {
      kind: 'volume',
      sandboxId: 'sb1',
    });
    assert.equal(complete(program, ['sandbox', 'create', '']).ids, undefined);
  });

  it('every option of every command is offered', () => {
    for (const command of everyCommand(program)) {
      if (command.parent?.parent !== program) continue;
      const flags = complete(program, [command.parent.name(), command.name(), '--']).candidates;
      for (const { long } of command.options) assert.ok(flags.includes(long ?? ''), `${command.name()} ${long ?? ''}`);
    }
  });

  it('the bash script parses, and completes with what __complete says', async () => {
    await execa('bash', ['-n'], { input: completionScript('bash') });
    const script = `${completionScript('bash')}
      fake() { printf '%s\\n' "$@"; }
      COMP_WORDS=(fake volume attach ''); COMP_CWORD=3; _qshim
      printf '<%s>' "\${COMPREPLY[@]}"`;
    const { stdout } = await execa('bash', ['-c', script]);
    assert.equal(stdout, '<__complete><volume><attach><>');
  });

  for (const shell of SHELLS) {
    it(`the ${shell} script is printed and asks the command that was typed`, async (context) => {
      const captured = capture();
      assert.equal(await runCli(['completion', shell], captured.surroundings), 0);
      const script = captured.stdout();
      assert.equal(script, completionScript(shell));
      assert.match(script, /__complete/);
      const found = await execa('sh', ['-c', `command -v ${shell}`], { reject: false });
      if (found.exitCode !== 0) {
        context.skip(`no ${shell} on this machine to parse the script with`);
        return;
      }
      await execa(shell, ['-n'], { input: script });
    });
  }
});

describe('standard input', () => {
  it('is read up to its end, whatever its bytes', async () => {
    const stdin = new PassThrough();
    stdin.write(Buffer.from([0, 1]));
    stdin.end(Buffer.from([255]));
    assert.deepEqual(await readStandardInput(stdin, new AbortController().signal), Buffer.from([0, 1, 255]));
  });

  it('has a bound', async () => {
    const stdin = new PassThrough();
    stdin.end(Buffer.alloc(STDIN_BYTES_MAX + 1));
    await assert.rejects(readStandardInput(stdin, new AbortController().signal), { exitCode: 2 });
  });

  it('an interruption ends the waiting', async () => {
    const controller = new AbortController();
    const reading = readStandardInput(new PassThrough(), controller.signal);
    controller.abort();
    await assert.rejects(reading, { exitCode: 130 });
  });
});
