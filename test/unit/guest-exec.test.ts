import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { sleep } from '../../src/base/deadline.ts';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgentError } from '../../src/guest/agent.ts';
import { AgentLink } from '../../src/guest/link.ts';
import { commandLine } from '../../src/guest/wire.ts';
import { agentPair as pair, shimFailure as failure } from '../support/agent-pair.ts';
import { silence } from '../support/fake-agent.ts';
import { until } from '../support/until.ts';

const log = silentLogger();
const LOST = failure('UNAVAILABLE', 'GUEST_AGENT_LOST');

describe('the link', () => {
  it('bytes that are to be wiped are zero once they are written, or cannot be', async () => {
    await using it = await pair();
    const link = await AgentLink.connect({ path: it.path, log, budget: undefined });
    const answer = Promise.withResolvers<void>();
    link.listen({ line: () => answer.resolve(), gone: () => undefined });
    const [written, unwritten] = [commandLine({ name: 'guest-ping' }, 1), Buffer.from('secret')];
    link.send(written, true);
    await answer.promise;
    assert.deepEqual(it.fake.seen, ['guest-ping']);
    assert.ok(written.every((byte) => byte === 0));
    link.drop();
    await link.closed();
    link.send(unwritten, true);
    await sleep(10);
    assert.ok(unwritten.every((byte) => byte === 0));
  });

  it('only the answer to the last of several syncs says that nothing older can come', async () => {
    await using it = await pair();
    const link = await AgentLink.connect({ path: it.path, log, budget: undefined });
    const heard: string[] = [];
    const last = Promise.withResolvers<void>();
    link.listen({
      line: (line) => {
        const which = link.answered(line);
        heard.push(which);
        if (which === 'last') last.resolve();
      },
      gone: () => undefined,
    });
    for (let index = 0; index < 3; index += 1) link.sendSync();
    await last.promise;
    // Before each answer comes the agent's complaint about the sentinel.
    assert.deepEqual(heard, ['none', 'earlier', 'none', 'earlier', 'none', 'last']);
    link.drop();
  });
});

describe('commands', () => {
  it('disks and mounts', async () => {
    const address = (bus: number, slot: number): object => ({
      'bus-type': 'virtio',
      'pci-controller': { domain: 0, bus, slot, function: 0 },
      bus: 0,
      target: 0,
      unit: 0,
    });
    await using it = await pair({
      answer: (request) =>
        request.execute === 'guest-get-disks'
          ? [
              { name: '/dev/vda', partition: false, dependencies: [], address: { ...address(1, 5), serial: 'abc' } },
              { name: '/dev/sda', partition: false, address: address(-1, -1) },
              { name: '/dev/vda1', partition: true, dependencies: ['/dev/vda'] },
            ]
          : [{ name: 'vda', mountpoint: '/mnt', type: 'xfs', disk: [{ ...address(1, 5), dev: '/dev/vda' }] }],
    });
    const pci = { domain: 0, bus: 1, slot: 5, function: 0 };
    assert.deepEqual(await it.agent.disks(), [
      { name: '/dev/vda', partition: false, pci, serial: 'abc' },
      { name: '/dev/sda', partition: false },
      { name: '/dev/vda1', partition: true },
    ]);
    assert.deepEqual(await it.agent.mounts(), [
      { mountPoint: '/mnt', fsType: 'xfs', device: 'vda', disks: [{ pci, name: '/dev/vda' }] },
    ]);
  });

  it('exec carries input and output exactly and polls until the end', async () => {
    const input = randomBytes(100_001);
    let polls = 0;
    let asked: unknown;
    await using it = await pair({
      answer: (request) => {
        if (request.execute === 'guest-exec') {
          asked = request.arguments;
          return { pid: 42 };
        }
        polls += 1;
        if (polls < 3) return { exited: false };
        return { exited: true, exitcode: 3, 'out-data': input.toString('base64'), 'err-data': 'ZXJy' };
      },
    });
    const result = await it.agent.exec({ path: '/bin/cat', args: ['-', 'ü"\n'], env: ['A=1'], input, timeoutMs: 5000 });
    assert.deepEqual(asked, {
      path: '/bin/cat',
      arg: ['-', 'ü"\n'],
      env: ['A=1'],
      'capture-output': true,
      'input-data': input.toString('base64'),
    });
    assert.deepEqual(
      { ...result, stdout: result.stdout.equals(input), stderr: result.stderr.toString() },
      { exitCode: 3, stdout: true, stderr: 'err', truncated: false, pid: 42 },
    );
  });

  it('exec cuts output and says so', async () => {
    await using it = await pair({
      answer: (request) =>
        request.execute === 'guest-exec' ? { pid: 1 } : { exited: true, signal: 9, 'out-data': 'YWJjZGVm' },
    });
    const result = await it.agent.exec({ path: '/x', timeoutMs: 5000, outputBytesMax: 4 });
    assert.deepEqual(
      { ...result, stdout: result.stdout.toString(), stderr: result.stderr.toString() },
      { signal: 9, stdout: 'abcd', stderr: '', truncated: true, pid: 1 },
    );
  });

  it("exec passes on that the agent's own limit cut the output", async () => {
    await using it = await pair({
      answer: (request) =>
        request.execute === 'guest-exec' ? { pid: 1 } : { exited: true, exitcode: 0, 'err-truncated': true },
    });
    assert.equal((await it.agent.exec({ path: '/x', timeoutMs: 5000 })).truncated, true);
  });

  it('a caller that gives up does not take its command away from the guest', async () => {
    const gate = Promise.withResolvers<unknown>();
    await using it = await pair({ answer: (request) => (request.execute === 'guest-exec' ? gate.promise : {}) });
    const abort = new AbortController();
    const exec = it.agent.exec({ path: '/x', timeoutMs: 5000, signal: abort.signal });
    await until('the agent is asked', () => it.fake.seen.includes('guest-exec'));
    const reason = new Error('enough');
    abort.abort(reason);
    await assert.rejects(exec, reason);
    const ping = it.agent.ping();
    gate.resolve({ pid: 1 });
    await ping;
    assert.equal(it.fake.connections, 1);
  });

  it('exec that does not end names the process that it leaves', async () => {
    await using it = await pair({
      answer: (request) => (request.execute === 'guest-exec' ? { pid: 77 } : { exited: false }),
    });
    await assert.rejects(it.agent.exec({ path: '/bin/sleep', timeoutMs: 80 }), (error) => {
      failure('DEADLINE_EXCEEDED', 'GUEST_EXEC_TIMEOUT')(error);
      assert.ok(error instanceof ShimError);
      assert.equal(error.metadata['pid'], '77');
      return true;
    });
  });

  it('exec whose agent was restarted is lost, with the pid', async () => {
    await using it = await pair({
      answer: (request) => (request.execute === 'guest-exec' ? { pid: 77 } : new Error("Invalid parameter 'pid'")),
    });
    await assert.rejects(it.agent.exec({ path: '/bin/sleep', timeoutMs: 5000 }), (error) => {
      LOST(error);
      assert.ok(error instanceof ShimError);
      assert.equal(error.metadata['pid'], '77');
      return true;
    });
  });

  it('shutdown needs no reply, but a refusal is heard', async () => {
    await using it = await pair({ answer: () => silence });
    await it.agent.shutdown('powerdown');
    it.fake.answer = () => new Error('child process has failed to shutdown');
    await assert.rejects(it.agent.shutdown('reboot'), GuestAgentError);
    it.fake.answer = () => {
      it.fake.stop();
      return silence;
    };
    await it.agent.shutdown('halt');
  });
});
