import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import type { Sandbox } from '../../src/sandbox/sandbox.ts';
import { stopSandbox } from '../../src/sandbox/stop.ts';

/** A sandbox that stays, whatever is done; `kill` is how its process takes signals. */
function sandbox(kill: (signal: string) => Promise<void>): Sandbox {
  // Only what a stop uses.
  const stays = {
    id: 's',
    state: 'stopping',
    log: silentLogger(),
    config: { kill_timeout_ms: 20 },
    agentReady: false,
    link: {
      get current(): never {
        throw new Error('the QMP connection is down');
      },
    },
    qemu: { pid: 7, kill },
    stopped: new Promise<void>(() => undefined),
    preempt: () => undefined,
    commitSoon: () => undefined,
    stopOnce: (_force: boolean, work: (hurry: Promise<void>) => Promise<void>) =>
      work(new Promise<void>(() => undefined)),
  };
  return stays as unknown as Sandbox;
}

const options = { force: false, gracefulTimeoutMs: 20 };

describe('a stop that QEMU survives says what was done, and nothing else', () => {
  it('SIGKILL was sent', async () => {
    const sent: string[] = [];
    const work = stopSandbox(
      sandbox((signal) => Promise.resolve(void sent.push(signal))),
      options,
    );
    await assert.rejects(work, { reason: 'QEMU_NOT_KILLED', message: /\(pid 7\) is still there after SIGKILL$/ });
    assert.deepEqual(sent, ['SIGCONT', 'SIGTERM', 'SIGKILL']);
  });

  it('the process could not even be looked at: nothing was sent', async () => {
    const work = stopSandbox(
      sandbox(() => new Promise(() => undefined)),
      options,
    );
    await assert.rejects(work, { message: /has not been sent SIGKILL: nothing came of it within 20 ms$/ });
  });

  it('the signal was refused', async () => {
    const work = stopSandbox(
      sandbox(() => Promise.reject(new Error('no file descriptors are left'))),
      options,
    );
    await assert.rejects(work, { message: /has not been sent SIGKILL: no file descriptors are left$/ });
  });
});
