import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { killProcess } from '../../src/containerd/kill.ts';
import type { LiveProcess } from '../../src/containerd/live-process.ts';
import { until } from '../support/until.ts';

const SIGTERM = 15;
const SIGKILL = 9;
const limits = { graceMs: 50, leaving: new AbortController().signal };

function silence(): ShimError {
  return new ShimError('DEADLINE_EXCEEDED', 'the agent did not answer', { reason: 'GUEST_AGENT_TIMEOUT' });
}

/** A process in a guest that answers signals as the test says, and what came of it. */
function rig(kill: () => Promise<void>, how: { readonly responds: boolean; readonly exec?: boolean }) {
  const seen = { kills: 0, ended: 0, asked: 0 };
  const guest = {
    kill: () => {
      seen.kills += 1;
      return kill();
    },
  };
  const pod = {
    log: silentLogger(),
    snapshot: { state: 'running' },
    containers: {
      responds: () => {
        seen.asked += 1;
        return Promise.resolve(how.responds);
      },
    },
    endSilent: () => {
      seen.ended += 1;
      return Promise.resolve();
    },
  };
  const exec = how.exec === true ? { id: 'e' } : undefined;
  const live = { pod, exec, container: { id: 'c' }, record: {}, guest, inGuest: () => guest };
  return { seen, live: live as unknown as LiveProcess };
}

describe('a signal for a process whose guest does not answer', () => {
  it('SIGKILL for a container: the VM is ended', async () => {
    const { seen, live } = rig(() => Promise.reject(silence()), { responds: false });
    await killProcess(live, { signal: SIGKILL, all: true }, limits);
    assert.equal(seen.ended, 1);
  });

  it('SIGKILL for a container, and no word on the signal for ever: the VM is ended', async () => {
    const { seen, live } = rig(() => new Promise(() => undefined), { responds: false });
    await killProcess(live, { signal: SIGKILL, all: true }, limits);
    assert.equal(seen.ended, 1);
  });

  it('SIGKILL in a guest that is only slow: its answer is waited for, and the VM goes on', async () => {
    const slow = Promise.withResolvers<void>();
    const { seen, live } = rig(() => slow.promise, { responds: true });
    const killing = killProcess(live, { signal: SIGKILL, all: true }, limits);
    await until('it is asked for a sign of life', () => Promise.resolve(seen.asked === 1));
    slow.resolve();
    await killing;
    assert.equal(seen.ended, 0);
  });

  it('SIGTERM for a container: taken, and delivered when the guest answers', async () => {
    let answers = false;
    const { seen, live } = rig(() => (answers ? Promise.resolve() : Promise.reject(silence())), { responds: false });
    await killProcess(live, { signal: SIGTERM, all: false }, limits);
    assert.equal(seen.ended, 0);
    answers = true;
    const before = seen.kills;
    await until('it is sent again', () => Promise.resolve(seen.kills > before));
  });

  it('SIGKILL for an exec: fails, and the VM goes on', async () => {
    const { seen, live } = rig(() => Promise.reject(silence()), { responds: false, exec: true });
    await assert.rejects(killProcess(live, { signal: SIGKILL, all: false }, limits), { reason: 'GUEST_AGENT_TIMEOUT' });
    assert.equal(seen.ended, 0);
  });

  for (const signal of [SIGTERM, SIGKILL]) {
    it(`signal ${signal} that the guest refuses: fails with its words, and the VM goes on`, async () => {
      const refusal = new ShimError('FAILED_PRECONDITION', 'could not be sent', { reason: 'CONTAINER_FAILED' });
      const { seen, live } = rig(() => Promise.reject(refusal), { responds: true });
      await assert.rejects(killProcess(live, { signal, all: false }, limits), { reason: 'CONTAINER_FAILED' });
      assert.equal(seen.ended, 0);
    });
  }
});
