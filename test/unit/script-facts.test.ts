import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseFacts, runScript } from '../../src/guest/run-script.ts';
import { agentPair, shimFailure } from '../support/agent-pair.ts';

describe('what scripts print in a guest', () => {
  it('is lines of key and value, in order', () => {
    assert.deepEqual(
      [...parseFacts('a=1\nnothing\nb==\na=2\n')],
      [
        ['a', ['1', '2']],
        ['b', ['=']],
      ],
    );
  });

  it('costs no more than its length: half a million lines of one key', () => {
    assert.equal(parseFacts('a=\n'.repeat(500_000)).get('a')?.length, 500_000);
  });

  for (const reason of ['constructor', 'toString', '__proto__', 'NO_SUCH_REASON']) {
    it(`a reason that is none (${reason}) becomes the one that stands for silence`, async () => {
      const out = Buffer.from(`error=${reason}\n`).toString('base64');
      await using it = await agentPair({
        answer: ({ execute }) =>
          execute === 'guest-exec' ? { pid: 1 } : { exited: true, exitcode: 1, 'out-data': out, 'err-data': '' },
      });
      const identity = { pci: { domain: 0, bus: 1, slot: 2 }, serial: 'one' };
      await assert.rejects(
        runScript(it.agent, 'true', { identity, args: [], timeoutMs: 5000, fallback: 'GUEST_PROBE_FAILED' }),
        shimFailure('FAILED_PRECONDITION', 'GUEST_PROBE_FAILED'),
      );
    });
  }
});
