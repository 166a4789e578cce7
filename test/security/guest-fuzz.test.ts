import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { isShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent } from '../../src/guest/agent.ts';
import { UeventStream } from '../../src/guest/uevents.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { feed, SequenceServer, sequences } from '../support/fuzz-channels.ts';

/** Seeds begin here, so that a run can be repeated; fast-check names the one that fails. */
const SEED = Number(process.env['QSHIM_TEST_SEED'] ?? '15');
const SEQUENCES = Number(process.env['QSHIM_TEST_SEQUENCES'] ?? '1000000');
const BATCH = 10_000;
const OVER_SOCKETS = 500;
const ANSWER_MS = 20;
const MIB = 1024 * 1024;
/** What is reachable, with the buffers of it; compiled code and the like come and go. */
const GROWTH_MAX_MIB = 8;

/** Bytes that the process keeps once all that is garbage is gone. */
const gc = (setFlagsFromString('--expose-gc'), runInNewContext('gc')) as () => void;
function keptBytes(): number {
  gc();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

describe('what a hostile guest sends', { timeout: 1_800_000 }, () => {
  it(`${SEQUENCES} sequences to every parser of a channel: no crash, no growth`, async (context) => {
    context.diagnostic(`seeds from ${SEED}`);
    const batches = Math.ceil(SEQUENCES / BATCH);
    let before = 0;
    for (let batch = 0; batch < batches; batch += 1) {
      fc.assert(fc.property(sequences, feed), { numRuns: BATCH, seed: SEED + batch });
      // What waits for its turn is no growth.
      await turn();
      if (batch === Math.floor(batches / 10)) before = keptBytes();
    }
    const grown = (keptBytes() - before) / MIB;
    context.diagnostic(`grown by ${grown.toFixed(0)} MiB`);
    assert.ok(grown < GROWTH_MAX_MIB, `the process has grown by ${grown.toFixed(0)} MiB`);
  });

  it('over sockets: no request succeeds, nobody is taken for an agent or a QEMU, nothing is thrown', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-fuzz-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const path = join(directory, 's');
    const server = cleanup.use(await SequenceServer.listen(path));
    const log = silentLogger();
    const property = fc.asyncProperty(sequences, async (sequence) => {
      server.sequence = sequence;
      await using agent = new GuestAgent({ path, log, requestTimeoutMs: ANSWER_MS });
      await assert.rejects(agent.ping(), (error) => isShimError(error));
      assert.equal(agent.state, 'down');
      await assert.rejects(QmpClient.connect({ path, log, handshakeTimeoutMs: ANSWER_MS }), (error) =>
        isShimError(error, 'UNAVAILABLE'),
      );
      await using uevents = await UeventStream.connect(path, log, { event: () => undefined, lost: () => undefined });
      const limits = { milliseconds: ANSWER_MS, signal: new AbortController().signal };
      assert.equal(await uevents.marked('never', limits), false);
    });
    await fc.assert(property, { numRuns: OVER_SOCKETS, seed: SEED });
  });
});
