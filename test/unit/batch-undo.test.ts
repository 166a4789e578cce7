import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { attachMany, type BatchHost } from '../../src/volume/batch.ts';
import type { Volume } from '../../src/volume/volume.ts';

/** The undo of an atomic batch, over volumes without a VM: what happens at the same time, in an order that is given. */

/** A volume, as far as a batch looks at it. */
function fakeVolume(id: string): Volume {
  return { id, snapshot: () => ({ id }) } as unknown as Volume;
}

/**
 * A host whose `own` the batch makes, whose `joined` another caller makes while the batch looks at the source, and
 * whose `replaced` somebody detaches and attaches anew once the batch has it. Any other member fails.
 */
function host(): BatchHost & { readonly detached: string[] } {
  const there = new Map<string, Volume>();
  const detached: string[] = [];
  return {
    id: 'one',
    detached,
    volumes: { find: (id: string) => there.get(id) } as unknown as BatchHost['volumes'],
    attach: async ({ volumeId }, begun) => {
      await Promise.resolve();
      if (!['own', 'joined', 'replaced'].includes(volumeId)) {
        throw new ShimError('FAILED_PRECONDITION', 'not there', { reason: 'SOURCE_NOT_FOUND' });
      }
      const volume = fakeVolume(volumeId);
      there.set(volumeId, volume);
      if (volumeId !== 'joined') begun(volume);
      if (volumeId === 'replaced') there.set(volumeId, fakeVolume(volumeId));
      return volume.snapshot();
    },
    detach: (volumeId, force) => {
      assert.ok(force);
      detached.push(volumeId);
      return Promise.resolve(fakeVolume(volumeId).snapshot());
    },
  };
}

const reasons = async (one: BatchHost, ids: readonly string[]): Promise<readonly (string | undefined)[]> => {
  const requests = ids.map((volumeId) => ({ volumeId, spec: {} as never }));
  const options = { atomic: true, callerWait: new AbortController().signal };
  return (await attachMany(one, requests, options)).map(({ problem }) => problem?.reason);
};

it('undoes what the batch has begun, and never what another caller has attached meanwhile', async () => {
  const one = host();
  const seen = await reasons(one, ['own', 'joined', 'replaced', 'bad']);
  assert.deepEqual(one.detached, ['own']);
  assert.deepEqual(seen, ['BATCH_UNDONE', undefined, undefined, 'SOURCE_NOT_FOUND']);
});
