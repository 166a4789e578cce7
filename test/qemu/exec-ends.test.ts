import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import type { ExecStreamStart } from '../../src/grpc/generated/qshim/v1/ExecStreamStart.ts';
import { TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { ExecStream } from '../support/exec-stream.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { qemuInventory } from '../support/leaks.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();
/** With fewer ports than so many commands take. */
const CONFIG = { exec_max: 16, guest_ports_max: 31 };
const FEW = { ...CONFIG, exec_max: 2 };

/** How a command with streams ends when neither it nor its caller has ended it, and when there can be no more. */
await describe('a command with streams that ends by something else', { skip }, async () => {
  let daemon: TestDaemon;

  const open = (start: Omit<ExecStreamStart, 'sandboxId'>): ExecStream =>
    new ExecStream(daemon.client.sandboxes, { sandboxId: 'vm', ...start });

  async function why(stream: ExecStream): Promise<readonly string[]> {
    const { code, reason } = await refusal(stream.exitCode());
    return [code, reason];
  }

  /** Devices of ports, by QEMU's list; and processes in the guest of that command line. */
  async function left(command: string): Promise<readonly string[]> {
    const { stateDir, qemuPid } = await daemon.client.getSandbox('vm');
    const { peripherals } = await qemuInventory(stateDir, qemuPid);
    const running = await daemon.client.guest('vm', `pgrep -f "^${command}" || :`);
    return [...peripherals.filter((name) => name.startsWith('port-')), ...running.split('\n').filter(Boolean)];
  }

  async function nothingIsLeft(command: string): Promise<void> {
    await until('nothing is left of it', async () => (await left(command)).length === 0);
  }

  before(async () => {
    daemon = await TestDaemon.start({ config: CONFIG });
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: {} });
  });

  after(() => daemon[Symbol.asyncDispose]());

  await it('no port is left: refused, what runs goes on, and there are ports again', async () => {
    const running: ExecStream[] = [];
    let seen: readonly string[] | undefined;
    while (seen === undefined) {
      const next = open({ path: 'sleep', arguments: ['98771'] });
      const [started, refused] = [next.started().then(() => undefined), why(next)];
      for (const each of [started, refused]) each.catch(() => undefined);
      seen = await Promise.race([started, refused]);
      if (seen === undefined) running.push(next);
    }
    assert.deepEqual(seen, ['RESOURCE_EXHAUSTED', 'NO_PORT']);
    assert.ok(running.length > 3, `${running.length} commands`);
    for (const each of running) {
      await each.send({ signal: 15 });
      assert.equal(await each.exitCode(), 143);
    }
    await nothingIsLeft('sleep 98771');
    const again = open({ path: 'echo', arguments: ['again'] });
    assert.deepEqual([await again.exitCode(), again.stdout.toString()], [0, 'again\n']);
  });

  for (const [signal, what] of [
    ['SIGTERM', 'the daemon stops: its caller is told, and nothing is left of it'],
    ['SIGKILL', 'the daemon is killed: the next one ends it'],
  ] as const) {
    await it(what, async () => {
      const command = open({ path: 'sleep', arguments: ['98773'] });
      await command.started();
      const told =
        signal === 'SIGTERM'
          ? why(command).then((seen) => assert.deepEqual(seen, ['UNAVAILABLE', 'DAEMON_STOPPING']))
          : assert.rejects(command.exitCode(), { code: status.UNAVAILABLE });
      const exited = once(daemon.child, 'exit');
      daemon.child.kill(signal);
      await told;
      await exited;
      const { directory } = daemon;
      await daemon.kill(signal);
      daemon = await TestDaemon.start({ directory, config: FEW });
      await until('the agent is ready', async () => (await daemon.client.getSandbox('vm')).agentReady);
      await nothingIsLeft('sleep 98773');
    });
  }

  await it('as many run as may (exec_max): refused, also a command without streams', async () => {
    const running = Array.from({ length: FEW.exec_max }, () => open({ path: 'sleep', arguments: ['98772'] }));
    for (const each of running) await each.started();
    const refused = ['RESOURCE_EXHAUSTED', 'TOO_MANY_COMMANDS'];
    assert.deepEqual(await why(open({ path: 'true' })), refused);
    const { code, reason } = await refusal(daemon.client.exec('vm', 'true'));
    assert.deepEqual([code, reason], refused);
    for (const each of running) {
      each.call.cancel();
      await assert.rejects(each.exitCode(), { code: 1 });
    }
    await until('there is room', async () =>
      daemon.client.exec('vm', 'true').then(
        () => true,
        () => false,
      ),
    );
    await nothingIsLeft('sleep 98772');
  });

  await it('the guest is reset: its caller is told', async () => {
    const lost = open({ path: 'sleep', arguments: ['98775'] });
    await lost.started();
    const told = why(lost);
    await daemon.client.exec('vm', '(sleep 0.2; echo b > /proc/sysrq-trigger) >/dev/null 2>&1 &');
    assert.deepEqual(await told, ['UNAVAILABLE', 'GUEST_RESET']);
    await until('the agent is back', async () => (await daemon.client.getSandbox('vm')).agentReady);
    await nothingIsLeft('sleep 98775');
  });
});
