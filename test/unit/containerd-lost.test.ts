import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { removeLost } from '../../src/containerd/lost.ts';
import type { PodContainer } from '../../src/containerd/pod.ts';

/** A lost container, and what is asked for it; the test says what comes of each. */
function rig(answers: Partial<Record<'kill' | 'wait' | 'delete', () => Promise<void>>>) {
  const asked: string[] = [];
  const container = { id: 'c' };
  const pod = { destroyed: false, log: silentLogger(), record: { namespace: 'n', containers: [container] } };
  const answer = (what: 'kill' | 'wait' | 'delete') => (): Promise<void> => {
    asked.push(what);
    return answers[what]?.() ?? Promise.resolve();
  };
  const tasks = { kill: answer('kill'), wait: answer('wait'), delete: answer('delete') };
  return { asked, pod, tasks, lost: { pod, container } as unknown as PodContainer };
}

describe('a container that containerd has lost', () => {
  it('is killed; when containerd comes for it at its end, it is not removed once more, nor another of its name', async () => {
    const made = rig({
      wait: () => {
        made.pod.record.containers = [{ id: 'c' }];
        return Promise.resolve();
      },
    });
    await removeLost(made.tasks, made.lost, new AbortController().signal);
    assert.deepEqual(made.asked, ['kill', 'wait']);
  });

  it('is killed again when that has failed', async () => {
    let fails = true;
    const made = rig({
      kill: () => {
        if (!fails) return Promise.resolve();
        fails = false;
        return Promise.reject(new ShimError('UNAVAILABLE', 'not now', { reason: 'GUEST_AGENT_LOST' }));
      },
      wait: () => {
        made.pod.destroyed = true;
        return Promise.resolve();
      },
    });
    await removeLost(made.tasks, made.lost, new AbortController().signal);
    assert.deepEqual(made.asked, ['kill', 'kill', 'wait']);
  });

  it('is left to the next daemon when this one ends', async () => {
    const leaving = new AbortController();
    const made = rig({
      kill: () => {
        leaving.abort(new Error('the daemon ends'));
        return new Promise(() => undefined);
      },
    });
    await assert.rejects(removeLost(made.tasks, made.lost, leaving.signal), /the daemon ends/);
  });
});
