import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { configWith } from '../../src/config.ts';
import type { Ports } from '../../src/guest/containers/port.ts';
import { GuestCommands, type GuestCommand } from '../../src/sandbox/exec.ts';
import { agentPair, type AgentPair } from '../support/agent-pair.ts';
import type { Behaviour } from '../support/fake-agent.ts';

const COMMAND: GuestCommand = {
  path: 'sleep',
  args: ['1000'],
  environment: [],
  input: Buffer.alloc(0),
  timeoutMs: 2000,
  signal: new AbortController().signal,
};
const [SLEEP_PID, END_PID] = [77, 78];

/** A guest in which the command does not end by itself. @param end what the script that is to end it prints */
function guest(end: string, endsThen: boolean, asked: string[] = []): Behaviour {
  let killed = false;
  return ({ execute, arguments: args }) => {
    if (execute === 'guest-exec') {
      asked.push(String(args['path']));
      if (args['path'] === COMMAND.path) return { pid: SLEEP_PID };
      killed = true;
      assert.deepEqual((args['arg'] as unknown[]).slice(2), ['sh', String(SLEEP_PID)]);
      return { pid: END_PID };
    }
    const output = (text: string): string => Buffer.from(text).toString('base64');
    if (args['pid'] === END_PID) return { exited: true, exitcode: end === '' ? 1 : 0, 'out-data': output(end) };
    return killed && endsThen ? { exited: true, signal: 9, 'out-data': output('so far') } : { exited: false };
  };
}

function commandsOf({ agent }: AgentPair): GuestCommands {
  return new GuestCommands({
    ...{ id: 'one', state: 'running', config: configWith({}), agent, agentReady: true, log: silentLogger() },
    ports: {} as Ports,
    gone: new AbortController().signal,
    inBackground: () => undefined,
  });
}

async function timedOut(behaviour: Behaviour): Promise<ShimError> {
  await using pair = await agentPair({ answer: behaviour });
  await pair.agent.waitReady({ timeoutMs: 60_000 });
  const failure = await commandsOf(pair)
    .run(COMMAND)
    .then(
      () => undefined,
      (error: unknown) => error,
    );
  assert.ok(failure instanceof ShimError);
  assert.deepEqual([failure.code, failure.reason], ['DEADLINE_EXCEEDED', 'GUEST_EXEC_TIMEOUT']);
  assert.equal(failure.metadata['pid'], String(SLEEP_PID));
  return failure;
}

describe('a command in the guest whose time is over', () => {
  it('is ended there, and what it has written is given', async () => {
    const asked: string[] = [];
    await using pair = await agentPair({ answer: guest('ended=1\n', true, asked) });
    await pair.agent.waitReady({ timeoutMs: 60_000 });
    const result = await commandsOf(pair).run(COMMAND);
    assert.deepEqual([result.timedOut, result.signal, result.stdout.toString()], [true, 9, 'so far']);
    assert.deepEqual(asked, ['sleep', '/bin/sh']);
  });

  it('is not said to have ended when it was not seen to', async () => {
    const failure = await timedOut(guest('', false));
    assert.equal(failure.metadata['killed'], 'false');
    assert.match(failure.message, /did not end within 2000 ms, and it was not seen to end$/);
  });

  it('was killed, but its output is still open: both are said', async () => {
    const failure = await timedOut(guest('ended=1\n', false));
    assert.equal(failure.metadata['killed'], 'true');
    assert.match(failure.message, /it was killed, but something that it has started holds its output open$/);
  });
});

it('a program is a path or a name, and nothing in between', async () => {
  await using pair = await agentPair({ answer: () => ({ pid: 1, exited: true, exitcode: 0 }) });
  const commands = commandsOf(pair);
  for (const path of ['sleep', '/bin/sleep']) assert.equal((await commands.run({ ...COMMAND, path })).exitCode, 0);
  for (const path of ['', './sleep', 'bin/sleep']) {
    await assert.rejects(commands.run({ ...COMMAND, path }), { code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELD' });
  }
});
