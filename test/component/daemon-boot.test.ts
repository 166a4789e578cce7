import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { sleep } from '../../src/base/deadline.ts';
import { identify } from '../../src/qemu/process.ts';
import { sandboxesDirectory } from '../../src/qemu/files.ts';
import { refusal, type Refusal } from '../support/errors.ts';
import { NO_REPLY, QmpFailure } from '../support/fake-qmp.ts';
import type { FakeVmOptions } from '../support/fake-qemu.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { makeHostCgroup } from '../support/host-cgroup.ts';
import { until } from '../support/until.ts';

import { Scratch } from '../support/shell-qemu.ts';

/** The real daemon and QEMUs that are not what it needs: refused, and nothing of them is left. */

/** The refusal of a sandbox over such a QEMU; afterwards there is no sandbox, no directory and no process. */
async function refusedSandbox(rig: FakeVmRig, options: FakeVmOptions): Promise<Refusal> {
  let pid = 0;
  const { prepare } = options;
  const seen = await refusal(
    rig.sandbox('one', {
      ...options,
      prepare: (vm) => {
        pid = vm.pid;
        prepare?.(vm);
      },
    }),
  );
  assert.deepEqual(await rig.client.listSandboxes(), []);
  assert.deepEqual(await rig.daemon.leftInState(), []);
  if (pid !== 0) assert.equal(await identify(pid), undefined, 'the process is gone');
  return seen;
}

describe('sandboxes over a QEMU that will not do', { timeout: 120_000 }, () => {
  it('too old', async () => {
    await using rig = await FakeVmRig.start();
    const seen = await refusedSandbox(rig, { version: [7, 1, 9] });
    assert.deepEqual([seen.code, seen.reason], ['UNIMPLEMENTED', 'QEMU_TOO_OLD']);
    assert.match(seen.message, /7\.1\.9.*7\.2/);
  });

  it('the oldest that will do, and newer ones', async () => {
    await using rig = await FakeVmRig.start();
    for (const version of [
      [7, 2, 0],
      [11, 1, 0],
    ] as const) {
      const vm = await rig.sandbox(`v${version[0]}`, { version });
      const sandbox = await rig.client.getSandbox(vm.sandboxId);
      assert.equal(sandbox.qemuVersion, version.join('.'));
      assert.equal(sandbox.qemuPid, vm.pid);
    }
  });

  it('that ends at an experimental command is not sent it, by this daemon and the next', async () => {
    await using cache = await Scratch.make();
    await using rig = await FakeVmRig.start({ cache_dir: cache.directory });
    rig.qemu.onTrial = (qemu) => {
      qemu.exit(134);
      return NO_REPLY;
    };
    const vm = await rig.sandbox();
    assert.deepEqual((await rig.attach('a')).evidence, ['block-reads', 'guest-agent']);
    await rig.restart('SIGKILL');
    await until('it is adopted', async () => (await rig.client.getSandbox('one')).agentReady || undefined);
    assert.deepEqual((await rig.attach('b')).evidence, ['block-reads', 'guest-agent']);
    await rig.sandbox('two');
    assert.equal(rig.qemu.trials, 1);
    assert.deepEqual(vm.qmp.receivedOf('x-query-virtio-status'), []);
    assert.match(await rig.daemon.log(), /"command":"x-query-virtio-status","outcome":"fatal"/);
  });

  it('that refuses the command when it is tried, and one that cannot be tried, is not sent it either', async () => {
    for (const trial of ['refuses', 'is another'] as const) {
      await using cache = await Scratch.make();
      await using rig = await FakeVmRig.start({ cache_dir: cache.directory });
      rig.qemu.onTrial = () => new QmpFailure('not here');
      // What is tried says that it is 7.2.22.
      const vm = await rig.sandbox('one', trial === 'refuses' ? {} : { version: [7, 2, 23] });
      assert.deepEqual((await rig.attach('a')).evidence, ['block-reads', 'guest-agent'], trial);
      assert.deepEqual(vm.qmp.receivedOf('x-query-virtio-status'), []);
    }
  });

  it('without ACPI hotplug', async () => {
    await using rig = await FakeVmRig.start();
    const seen = await refusedSandbox(rig, { acpiHotplug: false });
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'ACPI_HOTPLUG_OFF']);
  });

  it('on another machine, where nothing can be asked', async () => {
    await using rig = await FakeVmRig.start();
    const seen = await refusedSandbox(rig, { prepare: (vm) => void vm.qmp.on('qom-list', () => []) });
    assert.equal(seen.reason, 'ACPI_HOTPLUG_OFF');
  });

  it('that ends at once says why', async () => {
    await using rig = await FakeVmRig.start();
    const exitsAtOnce = { code: 1, said: 'qemu: could not do it\n' };
    const seen = await refusedSandbox(rig, { exitsAtOnce });
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'QEMU_EXITED']);
    assert.match(seen.message, /code 1.*could not do it/);
  });

  it('that ends while it is asked what it can do', async () => {
    await using rig = await FakeVmRig.start();
    const seen = await refusedSandbox(rig, {
      prepare: (vm) => {
        vm.qmp.on('query-status', () => {
          vm.exit(4, 'assertion failed\n');
          return NO_REPLY;
        });
      },
    });
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'QEMU_EXITED']);
    assert.match(seen.message, /code 4.*assertion failed/);
  });

  it('that does not answer', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 200 });
    const seen = await refusedSandbox(rig, {
      prepare: (vm) => void vm.qmp.on('query-status', () => NO_REPLY),
    });
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'QMP_REPLY_TIMEOUT']);
  });

  it('whose guest has no agent', async () => {
    await using rig = await FakeVmRig.start({ boot_timeout_ms: 300 });
    const seen = await refusedSandbox(rig, { prepare: (vm) => vm.agent.stop() });
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'GUEST_AGENT_TIMEOUT']);
  });

  for (const [what, event, data] of [
    ['resets itself', 'RESET', { guest: true, reason: 'guest-reset' }],
    ['shuts itself down', 'SHUTDOWN', { guest: true, reason: 'guest-shutdown' }],
    ['panics', 'GUEST_PANICKED', { action: 'poweroff' }],
  ] as const) {
    it(`whose guest ${what} before its agent answers: at once, with the end of the console`, async () => {
      await using rig = await FakeVmRig.start({ boot_timeout_ms: 86_400_000 });
      const seen = await refusedSandbox(rig, {
        prepare: (vm) => {
          vm.agent.stop();
          const log = join(rig.daemon.directoryOf('one'), 'console.log');
          const words = '\u001b[1mKernel panic\u001b[0m - not syncing.\r\n\r\nNo working init found.\r\n';
          writeFileSync(log, `${'x'.repeat(4000)}\n${words}`);
          // Not the guest's doing: the boot goes on. The other comes once the guest is waited for.
          void vm.qmp.waitForCommand('qom-get').then(async () => {
            vm.qmp.emit('RESET', { guest: false, reason: 'host-qmp-system-reset' });
            await sleep(200);
            vm.qmp.emit(event, data);
          });
        },
      });
      assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'GUEST_BOOT_FAILED']);
      assert.match(seen.message, /^the guest(?:'s kernel)? \w+ .*before the guest agent answered; the console ends/);
      assert.match(seen.message, /ends with: Kernel panic - not syncing; No working init found$/);
    });
  }

  it('that ends before the agent answers says why, with the end of the console', async () => {
    await using rig = await FakeVmRig.start({ boot_timeout_ms: 86_400_000 });
    const seen = await refusedSandbox(rig, {
      prepare: (vm) => {
        vm.agent.stop();
        writeFileSync(join(rig.daemon.directoryOf('one'), 'console.log'), 'booting\n');
        void vm.qmp.waitForCommand('qom-get').then(() => vm.exit(3, 'qemu: no more memory\n'));
      },
    });
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'QEMU_EXITED']);
    assert.match(seen.message, /code 3: .*no more memory; the console ends with: booting$/);
  });

  it('whose state directory was removed under the daemon', async () => {
    await using rig = await FakeVmRig.start();
    const { stateDir } = rig.daemon;
    await rm(stateDir, { recursive: true });
    const seen = await refusal(rig.sandbox('one'));
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'STATE_DIR_GONE']);
    assert.ok(seen.message.includes(`${stateDir} (option state_dir)`), seen.message);
    assert.deepEqual(await rig.client.listSandboxes(), []);
    await rig.restart('SIGTERM');
    await rig.sandbox('one');
  });

  it('after a refusal the same id may be tried again', async () => {
    await using rig = await FakeVmRig.start();
    await refusedSandbox(rig, { version: [6, 0, 0] });
    await rig.sandbox('one');
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
  });
});

describe('a daemon that ends while a guest boots', { timeout: 120_000 }, () => {
  it('killed: the next one waits on for the same guest', async () => {
    await using rig = await FakeVmRig.start();
    rig.sandbox('one', { prepare: (vm) => vm.agent.stop() }).catch(() => undefined);
    const vm = await rig.qemu.vm('one');
    await vm.qmp.waitForCommand('qom-get');
    await rig.restart('SIGKILL');
    const [sandbox] = await rig.client.listSandboxes();
    assert.deepEqual([sandbox?.state, sandbox?.qemuPid], ['SANDBOX_STATE_CREATING', vm.pid]);
    vm.agent.start();
    await until('the sandbox is running', async () =>
      (await rig.client.getSandbox('one')).state === 'SANDBOX_STATE_RUNNING' ? true : undefined,
    );
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('killed, and the guest is lost before the next daemon has adopted the others: that one goes on', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 3000 });
    const two = await rig.sandbox('two');
    rig.sandbox('one', { prepare: (vm) => vm.agent.stop() }).catch(() => undefined);
    const one = await rig.qemu.vm('one');
    await one.qmp.waitForCommand('qom-get');
    let other: Socket | undefined;
    await rig.restartAfter('SIGKILL', async () => {
      one.qmp.on('qom-get', () => false);
      // Without its journal it is looked at before the daemon listens, and its QMP serves somebody else.
      await rm(join(rig.daemon.directoryOf('two'), 'state.json'));
      other = connect(two.qmp.path);
      await once(other, 'data');
    });
    other?.destroy();
    await until('the boot that failed is gone', async () =>
      (await rig.client.listSandboxes()).every(({ sandboxId }) => sandboxId !== 'one') ? true : undefined,
    );
    assert.equal((await rig.client.getSandbox('two')).qemuPid, two.pid);
  });

  it('killed, and QEMU ended meanwhile or was never started: the boot begins anew, and no VM is told of before', async () => {
    await using rig = await FakeVmRig.start();
    rig.sandbox('one', { prepare: (vm) => vm.agent.stop() }).catch(() => undefined);
    const first = await rig.qemu.vm('one');
    await first.qmp.waitForCommand('qom-get');
    rig.qemu.options.set('one', {});
    await rig.restartAfter('SIGKILL', async () => {
      first.exit(0);
      await first.ended;
    });
    // As the relay does, and as a caller who has heard no answer.
    const again = await rig.client.createSandbox({ sandboxId: 'one', spec: { accelerator: 'ACCELERATOR_TCG' } });
    assert.equal(again.state, 'SANDBOX_STATE_RUNNING');
    assert.notEqual(again.qemuPid, first.pid);
    assert.ok(again.qemuPid > 0);
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('killed, and the boot that begins anew fails: a repeat hears it, and nothing is left', async () => {
    await using rig = await FakeVmRig.start();
    rig.sandbox('one', { prepare: (vm) => vm.agent.stop() }).catch(() => undefined);
    const first = await rig.qemu.vm('one');
    await first.qmp.waitForCommand('qom-get');
    rig.qemu.options.set('one', { acpiHotplug: false });
    await rig.restartAfter('SIGKILL', async () => {
      first.exit(0);
      await first.ended;
    });
    await until('it is gone', async () => ((await rig.client.listSandboxes()).length === 0 ? true : undefined));
    assert.deepEqual(await rig.daemon.leftInState(), []);
  });

  it('killed in the first write of a journal: what was a pool member still is one, and goes', async () => {
    await using rig = await FakeVmRig.start();
    let group: string | undefined;
    await rig.restartAfter('SIGKILL', async () => {
      const directory = join(sandboxesDirectory(rig.daemon.stateDir), 'pool+0123abcd');
      await mkdir(directory);
      await writeFile(join(directory, 'state.json.new'), '{');
      group = await makeHostCgroup(directory);
    });
    // Its control group too, where this host has them.
    assert.ok(group === undefined || !existsSync(group));
    assert.deepEqual(await rig.client.listSandboxes(), []);
    assert.deepEqual(await rig.daemon.leftInState(), []);
  });

  it('asked to stop: nobody was told of a sandbox yet, so none is left', async () => {
    await using rig = await FakeVmRig.start();
    rig.sandbox('one', { prepare: (vm) => vm.agent.stop() }).catch(() => undefined);
    const vm = await rig.qemu.vm('one');
    await vm.qmp.waitForCommand('qom-get');
    await rig.restart('SIGTERM');
    assert.deepEqual(await rig.client.listSandboxes(), []);
    assert.equal(await identify(vm.pid), undefined);
  });
});

describe('the end of a VM', { timeout: 120_000 }, () => {
  it('a repeated Create of a sandbox that has stopped does not say that there is one', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox('one');
    await rig.client.stopSandbox({ sandboxId: 'one', force: true });
    const seen = await refusal(rig.sandbox('one'));
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'SANDBOX_NOT_RUNNING']);
    assert.equal((await rig.client.getSandbox('one')).state, 'SANDBOX_STATE_STOPPED');
  });

  it('the guest is asked first, and what it did is told', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const stopped = await rig.client.stopSandbox({ sandboxId: 'one' });
    assert.deepEqual([stopped.state, stopped.cause?.reason], ['SANDBOX_STATE_STOPPED', 'STOPPED']);
    assert.ok(vm.agent.seen.includes('guest-shutdown'));
    assert.equal(vm.qmp.receivedOf('system_powerdown').length, 0);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_REMOVED');
    assert.equal(await identify(vm.pid), undefined);
  });

  it('a guest that takes no notice is ended in the end: agent, power button, signals', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.agent.answer = () => ({});
    const stopped = await rig.client.stopSandbox({ sandboxId: 'one', gracefulTimeoutMs: 100 });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
    assert.equal(vm.qmp.receivedOf('system_powerdown').length, 1);
    assert.match(stopped.cause?.message ?? '', /SIGTERM/);
  });

  it('by the guest itself', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.qmp.emit('SHUTDOWN', { guest: true, reason: 'guest-shutdown' });
    vm.exit(0);
    const stopped = await until('the sandbox is stopped', async () => {
      const sandbox = await rig.client.getSandbox('one');
      return sandbox.state === 'SANDBOX_STATE_STOPPED' ? sandbox : undefined;
    });
    assert.equal(stopped.cause?.reason, 'GUEST_SHUTDOWN');
    assert.equal((await refusal(rig.attach('a'))).reason, 'SANDBOX_NOT_RUNNING');
  });
});
