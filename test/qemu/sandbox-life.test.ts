import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import type { ExecResponse__Output } from '../../src/grpc/generated/qshim/v1/ExecResponse.ts';
import type { ConsoleChunk__Output } from '../../src/grpc/generated/qshim/v1/ConsoleChunk.ts';
import type { SandboxEvent__Output } from '../../src/grpc/generated/qshim/v1/SandboxEvent.ts';
import { TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { outcome } from '../support/grpc-errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();

/** The stop steps that the log tells of, with whether QEMU was gone after each. */
async function stopSteps(daemon: TestDaemon): Promise<readonly string[]> {
  const lines = (await daemon.log()).split('\n').filter((line) => line.includes('"msg":"stop step'));
  return lines.map((line) => (JSON.parse(line) as { step: string }).step);
}

async function isRunning(pid: number): Promise<boolean> {
  return await access(`/proc/${pid}`).then(
    () => true,
    () => false,
  );
}

await describe('the life of a sandbox', { skip }, async () => {
  await it('runs commands by name, and ends those whose time is over', async () => {
    await using daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: {} });
    const run = (path: string, args: string[], timeoutMs: number): Promise<ExecResponse__Output> => {
      const { promise, resolve, reject } = Promise.withResolvers<ExecResponse__Output>();
      daemon.client.sandboxes.exec({ sandboxId: 'vm', path, arguments: args, timeoutMs }, (error, response) => {
        if (response === undefined) reject(error ?? new Error('no answer'));
        else resolve(response);
      });
      return promise;
    };
    const named = await run('echo', ['by name'], 60_000);
    assert.deepEqual([named.exitCode, named.timedOut, named.standardOutput.toString()], [0, false, 'by name\n']);
    const over = await run('sh', ['-c', 'echo so far; sleep 98765 & sleep 98765; wait'], 4000);
    assert.deepEqual([over.timedOut, over.signal, over.standardOutput.toString()], [true, 9, 'so far\n']);
    assert.equal(await daemon.client.guest('vm', 'pgrep -f "^sleep 98765" || echo none'), 'none\n');
  });

  await it('that has too little memory to boot: refused as soon as its guest resets, with what it said', async () => {
    await using daemon = await TestDaemon.start({ config: { boot_timeout_ms: 86_400_000 } });
    const seen = await refusal(daemon.client.createSandbox({ sandboxId: 'vm', spec: { memoryMib: 96 } }));
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'GUEST_BOOT_FAILED']);
    assert.match(seen.message, /^the guest reset itself .*; the console ends with: \[ +\d+\.\d+\] /);
    assert.deepEqual(await daemon.client.listSandboxes(), []);
  });

  await it('is created with timings, watched, run in, followed on its console, stopped by its agent, deleted', async () => {
    await using daemon = await TestDaemon.start();
    const watch = daemon.client.sandboxes.watch({ sandboxId: '' });
    const types: string[] = [];
    watch.on('data', (message: SandboxEvent__Output) => types.push(message.event?.type ?? ''));
    watch.on('error', () => undefined);
    const spec = { vcpus: 2, memoryMib: 256, kernelParameters: 'hello=guest', labels: { team: 'a' } };
    const created = await daemon.client.createSandbox({ sandboxId: 'vm', spec });
    const phases =
      created.start?.kind === 'START_KIND_CLONE'
        ? ['probe', 'template', 'journal', 'spawn', 'qmp', 'restore', 'identity', 'agent', 'observe']
        : ['probe', 'spawn', 'qmp', 'verify', 'agent'];
    assert.deepEqual(
      created.timings.map(({ phase }) => phase),
      phases,
    );
    assert.equal(created.qemuVersion.split('.').length, 3);
    const seen = await daemon.client.guest('vm', 'cat /proc/cmdline; nproc; grep MemTotal /proc/meminfo');
    assert.match(seen, /hello=guest/);
    assert.match(seen, /^2$/m);
    const result = await daemon.client.exec('vm', 'cat; echo err >&2; exit 7', Buffer.from([0, 255, 10, 13]));
    assert.equal(result.exitCode, 7);
    assert.deepEqual([...result.standardOutput], [0, 255, 10, 13]);
    assert.equal(result.standardError.toString(), 'err\n');
    const killed = await daemon.client.exec('vm', 'kill -9 $$');
    assert.equal(killed.signal, 9);

    const follow = daemon.client.sandboxes.console({ sandboxId: 'vm', follow: true });
    const { promise: shown, resolve } = Promise.withResolvers<void>();
    let text = '';
    follow.on('data', (chunk: ConsoleChunk__Output) => {
      text += chunk.data.toString();
      if (text.includes('written-later')) resolve();
    });
    follow.on('error', () => undefined);
    await daemon.client.guest('vm', 'echo written-later > /dev/ttyS0');
    await shown;
    follow.cancel();

    const stopped = await daemon.client.stopSandbox({ sandboxId: 'vm' });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
    assert.equal(stopped.cause?.reason, 'STOPPED');
    assert.deepEqual(await stopSteps(daemon), ['agent']);
    assert.equal(await isRunning(created.qemuPid), false);
    // Again, and Delete twice: answered as the first time.
    assert.equal((await daemon.client.stopSandbox({ sandboxId: 'vm' })).state, 'SANDBOX_STATE_STOPPED');
    await daemon.client.deleteSandbox('vm', false);
    await daemon.client.deleteSandbox('vm', false);
    assert.equal((await outcome(daemon.client.getSandbox('vm'))).ok, false);
    await until('the watcher hears of the end', () => types.includes('sandbox.deleted'));
    watch.cancel();
    assert.deepEqual(types, [
      'sandbox.creating',
      'sandbox.running',
      'sandbox.stopping',
      'sandbox.stopped',
      'sandbox.deleted',
    ]);
  });

  await it('is stopped by the ACPI power button when its agent is dead, and by force when it does not listen at all', async () => {
    await using daemon = await TestDaemon.start({ config: { agent_timeout_ms: 1000, kill_timeout_ms: 3000 } });
    const first = await daemon.client.createSandbox({ sandboxId: 'one', spec: { vcpus: 1 } });
    await daemon.client.exec('one', '(sleep 0.3; killall -STOP qemu-ga) >/dev/null 2>&1 &');
    await sleep(1500);
    const byButton = await daemon.client.stopSandbox({ sandboxId: 'one', gracefulTimeoutMs: 15_000 });
    assert.equal(byButton.cause?.reason, 'STOPPED');
    assert.deepEqual(await stopSteps(daemon), ['agent', 'acpi']);
    assert.equal(await isRunning(first.qemuPid), false);

    const second = await daemon.client.createSandbox({ sandboxId: 'two', spec: { readyWhen: 'READY_WHEN_STARTED' } });
    {
      await using qmp = await QmpClient.connect({ path: `${second.stateDir}/spare.sock`, log: silentLogger() });
      await qmp.run('stop');
    }
    const byForce = await daemon.client.stopSandbox({ sandboxId: 'two', gracefulTimeoutMs: 300 });
    assert.equal(byForce.state, 'SANDBOX_STATE_STOPPED');
    assert.deepEqual((await stopSteps(daemon)).slice(2), ['agent', 'acpi', 'SIGTERM']);
    assert.equal(await isRunning(second.qemuPid), false);

    const third = await daemon.client.createSandbox({ sandboxId: 'three', spec: { readyWhen: 'READY_WHEN_STARTED' } });
    process.kill(third.qemuPid, 'SIGSTOP');
    const forced = await daemon.client.stopSandbox({ sandboxId: 'three', force: true });
    assert.equal(forced.state, 'SANDBOX_STATE_STOPPED');
    assert.equal(await isRunning(third.qemuPid), false);
  });

  await it('a guest that shuts itself down is STOPPED, by its own cause', async () => {
    await using daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
    await daemon.client.exec('vm', '(sleep 0.2; poweroff) >/dev/null 2>&1 &');
    await until(
      'the sandbox is STOPPED',
      async () => (await daemon.client.getSandbox('vm')).state === 'SANDBOX_STATE_STOPPED',
    );
    assert.equal((await daemon.client.getSandbox('vm')).cause?.reason, 'GUEST_SHUTDOWN');
  });

  await it('SIGTERM while VMs run: the daemon exits 0, the VMs go on', async () => {
    const first = await TestDaemon.start();
    const created = await first.client.createSandbox({ sandboxId: 'vm', spec: { readyWhen: 'READY_WHEN_STARTED' } });
    await first.kill('SIGTERM');
    assert.equal(first.child.exitCode, 0);
    assert.equal(await isRunning(created.qemuPid), true);
    await using second = await TestDaemon.start({ directory: first.directory });
    assert.equal((await second.client.getSandbox('vm')).qemuPid, created.qemuPid);
  });
});
