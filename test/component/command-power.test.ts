/** Pause, resume, reboot and start: bin/qshim, a real qshimd, and a scripted QEMU. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { basename } from 'node:path';
import { describe, it } from 'node:test';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { run } from '../support/run-qshim.ts';
import { until } from '../support/until.ts';

/** Runs the command against the rig's daemon, and gives what it printed. */
async function qshim(rig: FakeVmRig, ...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await run(args, { socket: rig.daemon.socket });
  assert.equal(exitCode, 0, stderr);
  return stdout.toString();
}

/** The types of a sandbox's events from now on. */
function watchTypes(rig: FakeVmRig): { readonly types: string[] } & Disposable {
  const stream = rig.client.events.watch({ sandboxId: 'one' });
  const types: string[] = [];
  stream.on('data', ({ type }: Event__Output) => types.push(type));
  stream.on('error', () => undefined);
  return { types, [Symbol.dispose]: () => stream.cancel() };
}

/** A guest that reboots when its agent is asked to. */
function rebootsWhenAsked(vm: FakeVm): string[] {
  const modes: string[] = [];
  vm.agent.answer = (request) => {
    if (request.execute !== 'guest-shutdown') return vm.answerAgent(request);
    modes.push(String(request.arguments['mode']));
    vm.qmp.emit('RESET', { guest: true, reason: 'guest-reset' });
    return {};
  };
  return modes;
}

describe('pause and resume', () => {
  it('are done when QEMU says so; a repeat changes nothing; stop lets a paused guest shut down', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    using watched = watchTypes(rig);
    assert.match(await qshim(rig, 'sandbox', 'pause', 'one'), /^one: running, run state paused/);
    assert.equal(vm.model.status, 'paused');
    assert.equal((await rig.client.pauseSandbox('one')).runState, 'paused');
    assert.equal((await rig.client.getSandbox('one')).runState, 'paused');
    assert.match(await qshim(rig, 'sandbox', 'resume', 'one'), /^one: running, guest agent ready/);
    assert.equal((await rig.client.resumeSandbox('one')).runState, 'running');
    await until('both events', () => (watched.types.length >= 2 ? true : undefined));
    assert.deepEqual(watched.types, ['sandbox.paused', 'sandbox.resumed']);
    await rig.client.pauseSandbox('one');
    const asked: string[] = [];
    vm.agent.answer = (request) => {
      if (request.execute === 'guest-shutdown') asked.push(vm.model.status);
      return vm.answerAgent(request);
    };
    assert.equal((await rig.client.stopSandbox({ sandboxId: 'one' })).state, 'SANDBOX_STATE_STOPPED');
    assert.deepEqual(asked, ['running']);
  });

  it('are not said to be done when QEMU does not say so', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    // QEMU's `stop` leaves a VM that stands still for another reason as it is (do_vm_stop).
    vm.model.status = 'io-error';
    const paused = await refusal(rig.client.pauseSandbox('one'));
    assertRefusal(paused, { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_NOT_PAUSED' });
    assert.equal(paused.metadata['runState'], 'io-error');
    vm.qmp.on('cont', () => ({}));
    const resumed = await refusal(rig.client.resumeSandbox('one'));
    assertRefusal(resumed, { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_NOT_RESUMED' });
    assert.equal((await rig.client.getSandbox('one')).runState, 'io-error');
  });

  it('need a VM', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox();
    await rig.client.stopSandbox({ sandboxId: 'one', force: true });
    for (const call of [
      rig.client.pauseSandbox('one'),
      rig.client.resumeSandbox('one'),
      rig.client.rebootSandbox({ sandboxId: 'one' }),
    ]) {
      assertRefusal(await refusal(call), { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_NOT_RUNNING' });
    }
    const { exitCode, stderr } = await run(['sandbox', 'pause', 'one'], { socket: rig.daemon.socket });
    assert.equal(exitCode, 4);
    assert.match(stderr, /hint: `qshim sandbox start one`/);
  });
});

describe('reboot', () => {
  it('asks the guest; with force, or when it does not, resets it; a volume stays, its evidence is looked at anew', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('v');
    using watched = watchTypes(rig);
    const modes = rebootsWhenAsked(vm);
    const resets: string[] = [];
    const usual = vm.qmp.handlerOf('system_reset');
    vm.qmp.on('system_reset', (...all) => {
      resets.push('system_reset');
      return usual(...all);
    });
    await qshim(rig, 'sandbox', 'reboot', 'one');
    assert.deepEqual([modes, resets], [['reboot'], []]);
    await qshim(rig, 'sandbox', 'reboot', 'one', '--force');
    assert.deepEqual([modes, resets], [['reboot'], ['system_reset']]);
    // Now a guest that takes the request and does nothing.
    vm.agent.answer = (request) => (request.execute === 'guest-shutdown' ? {} : vm.answerAgent(request));
    await rig.client.rebootSandbox({ sandboxId: 'one', gracefulTimeoutMs: 50 });
    assert.deepEqual(resets, ['system_reset', 'system_reset']);
    const rebooted = (): number => watched.types.filter((type) => type === 'sandbox.rebooted').length;
    await until('three reboots', () => (rebooted() === 3 ? true : undefined));
    assert.equal((await rig.volume('v')).state, 'VOLUME_STATE_ATTACHED');
    assert.equal((await rig.client.getSandbox('one')).agentReady, true);
  });

  it('lets a paused VM go on', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.client.pauseSandbox('one');
    const rebooted = await rig.client.rebootSandbox({ sandboxId: 'one', force: true });
    assert.equal(rebooted.runState, 'running');
    assert.equal(vm.model.status, 'running');
  });

  it('is not said to be done when no reset was seen, or no agent has answered since', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 1500, boot_timeout_ms: 1500 });
    const vm = await rig.sandbox();
    vm.qmp.on('system_reset', () => ({}));
    const unseen = await refusal(rig.client.rebootSandbox({ sandboxId: 'one', force: true }));
    assertRefusal(unseen, { code: 'DEADLINE_EXCEEDED', reason: 'RESET_NOT_SEEN' });
    vm.qmp.on('system_reset', (_args, { server }) => {
      server.emit('RESET', { guest: false, reason: 'host-qmp-system-reset' });
      vm.agent.stop();
      return {};
    });
    const silent = await refusal(rig.client.rebootSandbox({ sandboxId: 'one', force: true }));
    assertRefusal(silent, { code: 'DEADLINE_EXCEEDED', reason: 'GUEST_AGENT_TIMEOUT' });
    assert.equal((await rig.client.getSandbox('one')).agentReady, false);
  });
});

describe('start of a stopped sandbox', () => {
  it('is a new VM of the same id, spec and age; removed volumes are remembered, generations go on', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox();
    await rig.attach('v');
    const before = await rig.client.getSandbox('one');
    assert.equal((await rig.client.startSandbox('one')).qemuPid, before.qemuPid, 'one that runs answers as it is');
    await rig.client.stopSandbox({ sandboxId: 'one', force: true });
    using watched = watchTypes(rig);
    assert.match(await qshim(rig, 'sandbox', 'start', 'one'), /^one: running, guest agent ready/);
    const after = await rig.client.getSandbox('one');
    assert.notEqual(after.qemuPid, before.qemuPid);
    assert.deepEqual(
      [after.spec, after.createdAt, after.stateDir, after.cause, after.volumesInUse],
      [before.spec, before.createdAt, before.stateDir, null, 0],
    );
    assert.equal((await rig.volume('v')).state, 'VOLUME_STATE_REMOVED');
    assert.equal((await rig.attach('v')).generation, 2);
    await until('it runs', () => (watched.types.includes('sandbox.running') ? true : undefined));
    assert.deepEqual(watched.types.slice(0, 2), ['sandbox.creating', 'sandbox.running']);
    assert.deepEqual(await rig.daemon.leftInState(), [basename(rig.daemon.directoryOf('one'))]);
    // The next daemon finds it as any other.
    await rig.restart('SIGKILL');
    assert.equal((await rig.client.getSandbox('one')).qemuPid, after.qemuPid);
  });

  it('that fails leaves it stopped, with why, for another start, also by another daemon', async () => {
    await using rig = await FakeVmRig.start({ boot_timeout_ms: 1000 });
    await rig.sandbox();
    await rig.client.stopSandbox({ sandboxId: 'one', force: true });
    rig.qemu.options.set('one', { prepare: (vm) => vm.agent.stop() });
    const failed = await refusal(rig.client.startSandbox('one'));
    assertRefusal(failed, { code: 'DEADLINE_EXCEEDED', reason: 'GUEST_AGENT_TIMEOUT' });
    const stopped = await rig.client.getSandbox('one');
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
    assert.equal(stopped.cause?.reason, 'GUEST_AGENT_TIMEOUT');
    assert.deepEqual(await readdir(rig.daemon.directoryOf('one')), ['state.json']);
    await rig.restart('SIGKILL');
    assert.equal((await rig.client.getSandbox('one')).cause?.reason, 'GUEST_AGENT_TIMEOUT');
    rig.qemu.options.delete('one');
    assert.equal((await rig.client.startSandbox('one')).state, 'SANDBOX_STATE_RUNNING');
  });

  it('whose daemon is killed meanwhile goes on, and leaves it stopped when it fails', async () => {
    await using rig = await FakeVmRig.start({ boot_timeout_ms: 3000 });
    await rig.sandbox();
    await rig.client.stopSandbox({ sandboxId: 'one', force: true });
    rig.qemu.options.set('one', { prepare: (vm) => vm.agent.stop() });
    const starting = refusal(rig.client.startSandbox('one')).catch(() => undefined);
    await until('a QEMU', async () => ((await rig.client.getSandbox('one')).qemuPid === 0 ? undefined : true));
    const refused = await refusal(rig.client.deleteSandbox('one', true));
    assertRefusal(refused, { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_CREATING' });
    await rig.restart('SIGKILL');
    await starting;
    // A repeat joins the start that goes on.
    const failed = await refusal(rig.client.startSandbox('one'));
    assertRefusal(failed, { code: 'DEADLINE_EXCEEDED', reason: 'GUEST_AGENT_TIMEOUT' });
    const stopped = await rig.client.getSandbox('one');
    assert.deepEqual([stopped.state, stopped.cause?.reason], ['SANDBOX_STATE_STOPPED', 'GUEST_AGENT_TIMEOUT']);
    rig.qemu.options.delete('one');
    assert.equal((await rig.client.startSandbox('one')).state, 'SANDBOX_STATE_RUNNING');
    assert.ok(!(await readdir(rig.daemon.directoryOf('one'))).includes('start-again'));
  });
});
