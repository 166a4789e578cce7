import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { QmpCommandName } from '../../src/qmp/protocol.ts';
import { refusal } from '../support/errors.ts';
import { NO_REPLY, type Handler } from '../support/fake-qmp.ts';
import { FakeScripts } from '../support/fake-scripts.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** The real daemon and a QMP connection that breaks: it is made again, and the records are brought to the truth. */

/** The next command of this name cuts the connection, carried out or not. */
function cutAt(vm: FakeVm, name: QmpCommandName, carriedOut: boolean): void {
  const usual = vm.qmp.handlerOf(name);
  vm.qmp.on(name, (args, context) => {
    vm.qmp.on(name, usual);
    if (carriedOut) usual(args, { ...context, reply: () => undefined });
    vm.qmp.drop();
    return NO_REPLY;
  });
}

async function reconnected(vm: FakeVm, connections: number): Promise<void> {
  await until(`connection ${connections} is made`, () => (vm.qmp.connections >= connections ? true : undefined));
}

describe('QMP connection lost during an attach', { timeout: 120_000 }, () => {
  for (const name of ['blockdev-add', 'device_add'] as const) {
    for (const carriedOut of [true, false]) {
      it(`at ${name}, which QEMU had ${carriedOut ? '' : 'not '}carried out: undone, nothing left`, async () => {
        await using rig = await FakeVmRig.start();
        const vm = await rig.sandbox();
        cutAt(vm, name, carriedOut);
        const seen = await refusal(rig.attach('a'));
        assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'QMP_LOST']);
        assert.equal((await rig.until('a', 'VOLUME_STATE_REMOVED')).cause?.reason, 'QMP_LOST');
        assert.deepEqual(vm.held, []);
        assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
      });
    }
  }

  it('while the driver is awaited: the wait goes on over the next connection', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.model.driver = 'manual';
    const attach = rig.attach('a');
    for (const connections of [2, 3]) {
      cutAt(vm, 'x-query-virtio-status', false);
      await reconnected(vm, connections);
    }
    vm.model.driverLive('vol-1-a');
    assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
  });

  it('a look whose reply is lost is taken again', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 500 });
    const vm = await rig.sandbox();
    vm.loseReply('x-query-virtio-status');
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
  });

  it('an attach that comes while there is none waits for the next one, and begins nothing before', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const held = vm.hold('query-status');
    vm.qmp.drop();
    await held.came;
    const attach = rig.attach('a');
    const impatient = await refusal(rig.client.attach({ sandboxId: 'one', volumeId: 'b', spec: {} }));
    assert.equal(impatient.code, 'INVALID_ARGUMENT', 'what is wrong is told at once');
    assert.deepEqual(await rig.client.listVolumes('one'), []);
    held.release();
    assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
  });

  it('an attach that comes while there is none, and none comes in time, leaves nothing', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 500 });
    const vm = await rig.sandbox();
    const status = vm.qmp.handlerOf('query-status');
    const tried = Promise.withResolvers<undefined>();
    // No new connection is ever of use: none answers.
    vm.qmp.on('query-status', () => {
      tried.resolve(undefined);
      return NO_REPLY;
    });
    vm.qmp.drop();
    await tried.promise;
    const seen = await refusal(rig.attach('a'));
    assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'QMP_LOST']);
    assert.deepEqual(await rig.client.listVolumes('one'), []);
    vm.qmp.on('query-status', status);
    const attached = await until('the attach finds a connection', () => rig.attach('a').catch(() => undefined));
    assert.equal(attached.generation, 1);
  });

  it('a connection that stays away does not hold an attach beyond its time', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.model.driver = 'manual';
    const status = vm.qmp.handlerOf('query-status');
    const attach = refusal(rig.attach('a', 500));
    await vm.qmp.waitForCommand('x-query-virtio-status');
    // Every new connection breaks before it is of use.
    vm.qmp.on('query-status', (_args, { server }) => {
      server.drop();
      return NO_REPLY;
    });
    vm.qmp.drop();
    assert.equal((await attach).reason, 'GUEST_DRIVER_TIMEOUT');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_PENDING', 'nobody could look yet');
    vm.qmp.on('query-status', status);
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });
});

describe('QMP connection lost during a detach', { timeout: 120_000 }, () => {
  for (const name of ['device_del', 'blockdev-del'] as const) {
    for (const carriedOut of [true, false]) {
      it(`at ${name}, which QEMU had ${carriedOut ? '' : 'not '}carried out: REMOVED all the same`, async () => {
        await using rig = await FakeVmRig.start();
        const vm = await rig.sandbox();
        await rig.attach('a');
        cutAt(vm, name, carriedOut);
        assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
        assert.deepEqual(vm.held, []);
      });
    }
  }

  it('while the guest thinks: what happened meanwhile is seen afterwards', async () => {
    await using rig = await FakeVmRig.start({ unplug_retry_ms: 500 });
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.model.unplug = 'manual';
    const detach = rig.detach('a');
    await vm.qmp.waitForCommand('device_del');
    vm.qmp.drop();
    // Nobody is connected: the events are lost, as QEMU loses them.
    vm.model.completeUnplug('vol-1-a');
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });
});

describe('QMP connection lost at rest', { timeout: 120_000 }, () => {
  it('attached volumes stay attached, and one that left meanwhile is seen to have left', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('stays');
    await rig.attach('leaves');
    vm.qmp.drop();
    vm.model.completeUnplug('vol-2-leaves');
    assert.equal((await rig.until('leaves', 'VOLUME_STATE_REMOVED')).cause?.reason, 'DEVICE_VANISHED');
    assert.equal((await rig.volume('stays')).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(vm.held, ['vol-1-file', 'vol-1-fmt', 'vol-1-stays']);
    assert.equal(vm.qmp.receivedOf('device_del').length, 0, 'nothing was taken from the guest');
  });

  const GARBAGE: readonly (readonly [string, string])[] = [
    ['what is no JSON', '{"return": nonsense}\r\n'],
    ['JSON that is no object', '[1, 2]\r\n'],
    [
      'a second greeting',
      '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}\r\n',
    ],
    ['a line without an end', 'x'.repeat(70_000)],
    ['a line that is too long', `{"event": "STOP", "data": {"x": "${'x'.repeat(70_000)}"}}\r\n`],
  ];
  for (const [name, bytes] of GARBAGE) {
    it(`${name}: nothing more is believed, the connection is made anew, and work goes on`, async () => {
      await using rig = await FakeVmRig.start({ qmp_line_bytes_max: 65_536 });
      const vm = await rig.sandbox();
      await rig.attach('a');
      vm.qmp.sendRaw(bytes);
      await reconnected(vm, 2);
      const removed = await until('detach works', () => rig.detach('a').catch(() => undefined));
      assert.equal(removed.state, 'VOLUME_STATE_REMOVED');
      assert.equal(vm.qmp.connections, 2);
    });
  }

  it('replies that nobody waits for, unknown events and unknown messages change nothing', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.qmp.sendRaw('{"return": {}, "id": 999999}\r\n{"hello": 1}\r\n{"return": {}}\r\n');
    vm.qmp.emit('SOMETHING_NEW', { a: 1 });
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
    assert.equal(vm.qmp.connections, 1);
  });

  it('a new connection on which QEMU does not answer is given up, not kept: QEMU serves one client at a time', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 1000 });
    const vm = await rig.sandbox();
    const usual = vm.qmp.handlerOf('query-status');
    const silent: Handler = () => {
      vm.qmp.on('query-status', usual);
      return NO_REPLY;
    };
    vm.qmp.on('query-status', silent);
    vm.qmp.drop();
    await reconnected(vm, 3);
    const attached = await until('attach works', () => rig.attach('a').catch(() => undefined));
    assert.equal(attached.state, 'VOLUME_STATE_ATTACHED');
  });
});

describe('a QEMU that keeps its connection and answers nothing', { timeout: 120_000 }, () => {
  const beating = { qmp_heartbeat_ms: 100, qmp_reply_timeout_ms: 400 };

  it('is unresponsive in Get and in the events, its agent is not ready, and no volume is begun; until it answers', async () => {
    await using rig = await FakeVmRig.start(beating);
    const vm = await rig.sandbox();
    assert.equal((await rig.client.getSandbox('one')).qemuUnresponsive, false);
    const held = vm.hold('query-status');
    await held.came;
    const asked = vm.qmp.receivedOf('query-status').length;
    const silent = await until('it is found out', async () => {
      const sandbox = await rig.client.getSandbox('one');
      return sandbox.qemuUnresponsive ? sandbox : undefined;
    });
    assert.deepEqual(
      [silent.state, silent.agentReady, silent.runState],
      ['SANDBOX_STATE_RUNNING', false, ''],
      'the process runs; of the rest nothing is known',
    );
    const seen = await refusal(rig.attach('a'));
    assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'QEMU_UNRESPONSIVE']);
    assert.deepEqual(await rig.client.listVolumes('one'), []);
    assert.equal(vm.qmp.receivedOf('query-status').length, asked, 'it is asked once, however long it is silent');
    held.release();
    const back = await until('it answers', async () => {
      const sandbox = await rig.client.getSandbox('one');
      return sandbox.qemuUnresponsive ? undefined : sandbox;
    });
    assert.deepEqual([back.agentReady, back.runState], [true, 'running']);
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
    const events = await readFile(join(rig.daemon.stateDir, 'events.jsonl'), 'utf8');
    const told = events
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { type?: string; cause?: { reason?: string } })
      .filter(({ type }) => type?.endsWith('responsive'));
    assert.deepEqual(
      told.map(({ type, cause }) => [type, cause?.reason]),
      [
        ['sandbox.unresponsive', 'QEMU_UNRESPONSIVE'],
        ['sandbox.responsive', 'QEMU_RESPONSIVE'],
      ],
    );
  });

  it('a detach by force ends in time, and says why', async () => {
    await using rig = await FakeVmRig.start({ ...beating, qmp_reply_timeout_ms: 60_000 });
    const vm = await rig.sandbox();
    await rig.attach('a');
    const held = vm.hold('device_del');
    const seen = await refusal(rig.detach('a', { force: true, timeoutMs: 1000 }));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'QEMU_UNRESPONSIVE'], seen.message);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    held.release();
    await rig.until('a', 'VOLUME_STATE_REMOVED');
  });
});

describe('events of the VM', { timeout: 120_000 }, () => {
  it('a reset: bus numbers and agent are asked anew, volumes stay', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const asked = vm.qmp.receivedOf('query-pci').length;
    vm.agent.stop();
    vm.qmp.emit('RESET', { guest: true, reason: 'guest-reset' });
    await until('the agent counts as away', async () =>
      (await rig.client.getSandbox('one')).agentReady ? undefined : true,
    );
    vm.agent.start();
    await until('the agent is back', async () => ((await rig.client.getSandbox('one')).agentReady ? true : undefined));
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    await rig.attach('b');
    assert.equal(vm.qmp.receivedOf('query-pci').length, asked + 1, 'once a boot');
  });

  it('a reset: what the last boot had seen is no evidence; the volume is looked at anew', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const scripts = new FakeScripts(vm);
    const path = await rig.daemon.rawFile('a', 1024 * 1024);
    const spec = { rawFile: { path }, mount: { fsType: 'ext4', mountPoint: '/data' } };
    const attach = () => rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
    const before = await attach();
    assert.deepEqual(before.evidence, ['virtio-status', 'guest-agent', 'guest-mount']);
    vm.agent.stop();
    vm.model.reboot('vol-1-a');
    vm.qmp.emit('RESET', { guest: true, reason: 'guest-reset' });
    const booting = await until('the evidence is dropped', async () => {
      const volume = await rig.volume('a');
      return volume.evidence.length === 0 ? volume : undefined;
    });
    assert.deepEqual(
      [booting.state, booting.guestDevice, booting.guestPciAddress],
      ['VOLUME_STATE_ATTACHED', '', ''],
      'nothing is said of the disk in a guest that has not come up',
    );
    vm.model.driverLive('vol-1-a');
    vm.agent.start();
    await until('it is seen again', async () => {
      const { evidence, guestDevice } = await rig.volume('a');
      return guestDevice === '/dev/vda' && evidence.join() === 'virtio-status,guest-agent' ? true : undefined;
    });
    const again = await refusal(attach());
    assert.equal(again.reason, 'VOLUME_NOT_MOUNTED', 'what is not mounted is no success for who asked for a mount');
    assert.ok(!scripts.ran.includes('mount', 1), 'it is not mounted again by itself');
  });

  it('a reset while a volume is being attached: what counts is the boot that there is', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    let resets = 0;
    vm.agent.answer = async (request) => {
      const answer = vm.answerAgent(request);
      if (request.execute === 'guest-get-disks' && resets === 0) {
        resets += 1;
        vm.model.reboot('vol-1-a');
        vm.qmp.emit('RESET', { guest: true, reason: 'guest-reset' });
        // The daemon has the event by the time it answers this, and only then the agent's word.
        await rig.volume('a');
      }
      return answer;
    };
    const attach = rig.attach('a');
    await until('the driver is awaited once more', async () =>
      resets === 1 && (await rig.volume('a')).state === 'VOLUME_STATE_PENDING' ? true : undefined,
    );
    const looks = vm.qmp.receivedOf('x-query-virtio-status').length;
    await vm.qmp.waitForCommand('x-query-virtio-status', looks + 2);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_PENDING');
    vm.model.driverLive('vol-1-a');
    assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
  });

  it('paused and running again', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    for (const [event, runState] of [
      ['STOP', 'paused'],
      ['RESUME', 'running'],
    ] as const) {
      vm.model.status = runState;
      vm.qmp.emit(event, {});
      await until(`the run state is ${runState}`, async () =>
        (await rig.client.getSandbox('one')).runState === runState ? true : undefined,
      );
    }
  });
});
