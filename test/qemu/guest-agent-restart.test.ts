import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent } from '../../src/guest/agent.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { rawVmMissing, startRawVm } from '../support/raw-vm.ts';
import { until } from '../support/until.ts';

const skip = rawVmMissing();
const BOOT_TIMEOUT_MS = 120_000;
const timeoutMs = 60_000;
const lost = shimFailure('UNAVAILABLE', 'GUEST_AGENT_LOST');

describe('an agent that goes and comes back', { skip }, () => {
  it('killed in the guest, and the guest rebooted', async () => {
    await using vm = await startRawVm();
    await using agent = new GuestAgent({ path: vm.agentPath, log: silentLogger(), requestTimeoutMs: 60_000 });
    await agent.waitReady({ timeoutMs: BOOT_TIMEOUT_MS });

    const kill = { path: '/bin/sh', args: ['-c', 'kill -9 $PPID; sleep 1000'], timeoutMs };
    await assert.rejects(agent.exec(kill), lost);
    await agent.ping();
    assert.equal((await agent.exec({ path: '/bin/true', timeoutMs })).exitCode, 0);

    const bootId = async (): Promise<string> => {
      const result = await agent.exec({ path: '/bin/cat', args: ['/proc/sys/kernel/random/boot_id'], timeoutMs });
      return result.stdout.toString();
    };
    const before = await bootId();
    await agent.shutdown('reboot');
    await until('another boot answers', async () => {
      // While the guest goes down, requests may be answered by the old agent or die with it.
      const now = await bootId().catch((error: unknown) => {
        if (error instanceof ShimError && error.code === 'UNAVAILABLE') return before;
        throw error;
      });
      return now !== before;
    });
    await agent.waitReady({ timeoutMs: 1000 });

    await agent.shutdown('powerdown');
    await assert.rejects(async () => {
      for (;;) await agent.ping();
    }, lost);
  });
});
