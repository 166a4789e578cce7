import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent, type GuestAgentOptions } from '../../src/guest/agent.ts';
import { FakeAgent, type FakeAgentOptions } from './fake-agent.ts';

/** A client and the fake agent that it talks to, in a directory of their own. */
export interface AgentPair extends AsyncDisposable {
  readonly path: string;
  readonly fake: FakeAgent;
  readonly agent: GuestAgent;
}

export async function agentPair(
  fakeOptions: FakeAgentOptions = {},
  options: Partial<GuestAgentOptions> = {},
): Promise<AgentPair> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-agent-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const path = join(directory, 'agent.sock');
  const fake = stack.use(await FakeAgent.listen(path, fakeOptions));
  const agent = stack.use(new GuestAgent({ path, log: silentLogger(), ...options }));
  const owned = stack.move();
  return { path, fake, agent, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** For `assert.rejects`: a ShimError with this code and reason. */
export function shimFailure(code: string, reason: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShimError, String(error));
    assert.deepEqual([error.code, error.reason], [code, reason], error.message);
    return true;
  };
}
