import { rm, truncate } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { NotHere, type Expectation, type Fault, type Point, type StatusName, type Target } from './cell.ts';
import { exhaustDescriptors, fill, makeReadOnly } from './host.ts';
import { LINE_BYTES_MAX, REPLY_TIMEOUT_MS } from './rig.ts';
import { isDeviceDeleted, isEvent, lineOf, type Step } from './steps.ts';
import type { Wire } from './wire.ts';

const LATE_MS = 400;
const STOPPED_MS = REPLY_TIMEOUT_MS + 600;
const HUNG_MS = 1500;
const FIRMWARE_MS = 1000;
const DAY_MS = 86_400_000;
const TRUNCATED_BYTES = 4096;

const NO_REPLY = 'nobody replies in this step';
const NO_EVENT = 'QEMU sends no event in this step';
const NO_VOLUME = 'no volume takes part in this step';
const NO_QMP = 'there is no QMP connection yet';
const NO_AGENT = 'no guest agent runs yet';

const always = (): undefined => undefined;
const lives =
  (...answers: StatusName[]): (() => Expectation) =>
  () => ({ answers, vm: 'lives' });

/** The wire that carries the step; for steps that none carries, QMP. */
function wireOf({ step, target }: Point): Wire {
  const wire = step.on === 'agent' ? target.agent : target.qmp;
  if (wire === undefined) throw new Error(`no wire at ${step.name}`);
  return wire;
}

function unlessSpawn(why: string): (step: Step) => string | undefined {
  return (step) => (step.on === 'process' ? why : undefined);
}

function needsReply(step: Step): string | undefined {
  return step.on === 'process' || step.on === 'journal' || isEvent(step) ? NO_REPLY : undefined;
}

function needsEvent(step: Step): string | undefined {
  return step.name === 'device_del' || isEvent(step) ? undefined : NO_EVENT;
}

function needsVolume(step: Step): string | undefined {
  return step.plan === 'create' ? NO_VOLUME : undefined;
}

function needsMounts({ rig }: Point): void {
  if (rig.whyNoMounts !== undefined) throw new NotHere(rig.whyNoMounts);
}

/** Runs a script in the guest past everything that is held, and past the daemon. */
function inGuest({ target }: Point, script: string): void {
  target.agent?.sendUp('guest-exec', { path: '/bin/sh', arg: ['-c', script] });
}

async function stopQemuFor(point: Point, milliseconds: number): Promise<void> {
  process.kill(point.target.pid, 'SIGSTOP');
  try {
    await point.pass();
    await sleep(milliseconds);
  } finally {
    process.kill(point.target.pid, 'SIGCONT');
  }
}

/** Faults of the processes. */
const PROCESS_FAULTS: readonly Fault[] = [
  {
    name: 'QEMU killed',
    moments: ['asked'],
    whyNot: always,
    strike: async (point) => {
      process.kill(point.target.pid, 'SIGKILL');
      await point.pass();
      return undefined;
    },
    expect: ({ plan }) => ({
      answers: plan === 'detach' ? ['OK', 'UNAVAILABLE'] : ['UNAVAILABLE', 'FAILED_PRECONDITION'],
      vm: 'dies',
    }),
  },
  {
    name: 'QEMU stopped, continued',
    moments: ['asked'],
    whyNot: always,
    strike: async (point) => {
      await stopQemuFor(point, STOPPED_MS);
      return undefined;
    },
    expect: lives('OK', 'DEADLINE_EXCEEDED', 'UNAVAILABLE', 'FAILED_PRECONDITION'),
  },
  {
    name: 'daemon killed',
    moments: ['asked', 'answered'],
    whyNot: always,
    strike: async (point) => {
      await point.rig.killDaemon();
      await point.pass();
      return { [Symbol.asyncDispose]: () => point.rig.startDaemon() };
    },
    expect: lives('UNAVAILABLE', 'CANCELLED'),
  },
  {
    name: 'client gone',
    moments: ['asked'],
    whyNot: always,
    strike: async (point) => {
      point.cancel();
      // Time for the daemon to hear of it.
      await sleep(50);
      await point.pass();
      return undefined;
    },
    expect: lives('CANCELLED'),
  },
  {
    name: 'clock jump',
    moments: ['asked'],
    whyNot: always,
    strike: async (point) => {
      await point.rig.hook.jump(DAY_MS);
      await point.pass();
      return { [Symbol.asyncDispose]: () => point.rig.hook.jump(-DAY_MS) };
    },
    expect: lives('OK'),
  },
];

/** Faults of the connection. */
const WIRE_FAULTS: readonly Fault[] = [
  {
    name: 'QMP socket cut',
    moments: ['asked', 'answered'],
    whyNot: unlessSpawn(NO_QMP),
    strike: async (point) => {
      point.target.qmp?.cut();
      await point.pass();
      return undefined;
    },
    expect: lives('OK', 'UNAVAILABLE', 'FAILED_PRECONDITION'),
  },
  {
    name: 'reply late',
    moments: ['asked'],
    whyNot: needsReply,
    strike: async (point) => {
      // QMP events and other replies pass it; the agent answers one after the other.
      const reply = wireOf(point).hold(lineOf(point.step, 'answered'), { overtaking: point.step.on === 'qmp' });
      await point.pass();
      const held = await reply;
      await sleep(LATE_MS);
      held.pass();
      return undefined;
    },
    expect: lives('OK'),
  },
  {
    name: 'reply lost',
    moments: ['answered'],
    whyNot: needsReply,
    strike: (point) => {
      point.drop();
      return Promise.resolve(undefined);
    },
    expect: lives('OK', 'DEADLINE_EXCEEDED', 'UNAVAILABLE', 'FAILED_PRECONDITION'),
  },
  {
    name: 'event before reply',
    moments: ['asked'],
    whyNot: (step) => (step.name === 'device_del' ? undefined : isEvent(step) ? NO_REPLY : NO_EVENT),
    strike: async (point) => {
      const wire = wireOf(point);
      const reply = wire.hold(lineOf(point.step, 'answered'), { overtaking: true });
      const event = wire.hold(isDeviceDeleted, { overtaking: true });
      await point.pass();
      const [heldReply, heldEvent] = await Promise.all([reply, event]);
      heldEvent.pass();
      await sleep(LATE_MS);
      heldReply.pass();
      return undefined;
    },
    expect: lives('OK'),
  },
  {
    name: 'event twice',
    moments: ['asked'],
    whyNot: needsEvent,
    prepare: ({ qmp }) =>
      filterOn(qmp, (line) => (line.event === 'DEVICE_DELETED' ? [line.bytes, line.bytes] : undefined)),
    strike: passOn,
    expect: lives('OK'),
  },
  {
    name: 'event never',
    moments: ['asked'],
    whyNot: needsEvent,
    prepare: ({ qmp }) => filterOn(qmp, (line) => (line.event === 'DEVICE_DELETED' ? [] : undefined)),
    strike: passOn,
    expect: lives('OK'),
  },
  {
    name: 'unknown event',
    moments: ['asked'],
    whyNot: unlessSpawn(NO_QMP),
    strike: async (point) => {
      const timestamp = { seconds: 1, microseconds: 2 };
      point.target.qmp?.sendDown(
        `${JSON.stringify({ timestamp, event: 'QSHIM_NEVER_HEARD_OF', data: { device: 'x' } })}\r\n`,
      );
      await point.pass();
      return undefined;
    },
    expect: lives('OK'),
  },
  {
    name: 'line over the bound',
    moments: ['asked'],
    whyNot: unlessSpawn(NO_QMP),
    strike: async (point) => {
      wireOf(point).sendDown(`${'x'.repeat(LINE_BYTES_MAX + 1)}\r\n`);
      await point.pass();
      return undefined;
    },
    expect: lives('OK', 'UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'DEADLINE_EXCEEDED'),
  },
  {
    name: 'invalid JSON',
    moments: ['asked'],
    whyNot: unlessSpawn(NO_QMP),
    strike: async (point) => {
      wireOf(point).sendDown('{"return": tru\r\n');
      await point.pass();
      return undefined;
    },
    expect: lives('OK', 'UNAVAILABLE', 'FAILED_PRECONDITION', 'DEADLINE_EXCEEDED'),
  },
];

/** Faults of the host. */
const HOST_FAULTS: readonly Fault[] = [
  {
    name: 'daemon out of descriptors',
    moments: ['asked'],
    whyNot: always,
    strike: async (point) => {
      const healed = await exhaustDescriptors(point.rig.daemonPid);
      await point.pass();
      return healed;
    },
    expect: lives('OK', 'UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'DEADLINE_EXCEEDED'),
  },
  {
    name: 'state directory full',
    moments: ['asked'],
    whyNot: always,
    strike: async (point) => {
      needsMounts(point);
      const healed = await fill(point.rig.daemon.stateDir);
      await point.pass();
      return healed;
    },
    expect: lives('OK', 'UNAVAILABLE'),
  },
  {
    name: 'state directory read-only',
    moments: ['asked'],
    whyNot: unlessSpawn('the sockets of this test are made there at this moment'),
    strike: async (point) => {
      needsMounts(point);
      const healed = await makeReadOnly(point.rig.daemon.stateDir);
      await point.pass();
      return healed;
    },
    expect: lives('OK', 'UNAVAILABLE'),
  },
  {
    name: 'backing deleted',
    moments: ['asked'],
    whyNot: needsVolume,
    spoilsFile: true,
    strike: async (point) => {
      await rm(point.volume?.path ?? '');
      await point.pass();
      return undefined;
    },
    expect: lives('OK', 'FAILED_PRECONDITION'),
  },
  {
    name: 'backing truncated',
    moments: ['asked'],
    whyNot: needsVolume,
    spoilsFile: true,
    strike: async (point) => {
      await truncate(point.volume?.path ?? '', TRUNCATED_BYTES);
      await point.pass();
      return undefined;
    },
    expect: lives('OK', 'FAILED_PRECONDITION'),
  },
  {
    name: 'backing gives I/O errors',
    moments: ['asked'],
    whyNot: (step) =>
      step.name === 'unmount' ? 'nothing can be mounted from a disk that fails from its first read' : needsVolume(step),
    spoilsFile: true,
    prepare: ({ qmp }) =>
      filterOn(qmp, (line) => (line.command === 'blockdev-add' ? withIoErrors(line.message) : undefined)),
    strike: passOn,
    expect: lives('OK', 'FAILED_PRECONDITION'),
  },
];

/** Faults of the guest. */
const GUEST_FAULTS: readonly Fault[] = [
  {
    name: 'guest agent dead',
    moments: ['asked'],
    whyNot: (step) => (step.plan === 'create' ? NO_AGENT : undefined),
    strike: async (point) => {
      // PID 1 of the guest starts another after a while.
      inGuest(point, 'kill -9 $(cat /run/qemu-ga.pid)');
      await sleep(100);
      await point.pass();
      return undefined;
    },
    expect: lives('OK', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'FAILED_PRECONDITION'),
  },
  {
    name: 'guest hung',
    moments: ['asked'],
    whyNot: unlessSpawn('no guest runs yet'),
    strike: async (point) => {
      // All vCPUs stand still; QEMU and its monitor do not.
      await point.rig.spare((qmp) => qmp.run('stop'), point.target.stateDir);
      await point.pass();
      await sleep(HUNG_MS);
      await point.rig.spare((qmp) => qmp.run('cont'), point.target.stateDir);
      return undefined;
    },
    expect: lives('OK', 'DEADLINE_EXCEEDED'),
  },
  {
    name: 'guest rebooted',
    moments: ['asked'],
    whyNot: unlessSpawn('no guest runs yet'),
    strike: async (point) => {
      // SeaBIOS does not always survive a reset in its first moments.
      if (point.step.plan === 'create') await sleep(FIRMWARE_MS);
      await point.rig.spare((qmp) => qmp.run('system_reset'), point.target.stateDir);
      await point.pass();
      return undefined;
    },
    expect: ({ plan }) => ({
      answers: ['OK', 'DEADLINE_EXCEEDED', 'FAILED_PRECONDITION', 'UNAVAILABLE'],
      vm: plan === 'create' ? 'lives' : 'reboots',
    }),
  },
  {
    name: 'guest panicked',
    moments: ['asked'],
    whyNot: (step) => (step.plan === 'create' ? NO_AGENT : undefined),
    strike: async (point) => {
      inGuest(point, 'echo c > /proc/sysrq-trigger');
      await point.pass();
      return undefined;
    },
    expect: () => ({ answers: ['OK', 'UNAVAILABLE', 'FAILED_PRECONDITION'], vm: 'dies' }),
  },
];

export const FAULTS: readonly Fault[] = [...PROCESS_FAULTS, ...WIRE_FAULTS, ...HOST_FAULTS, ...GUEST_FAULTS];

async function passOn(point: Point): Promise<undefined> {
  await point.pass();
  return undefined;
}

function filterOn(wire: Target['qmp'], filter: Parameters<Wire['filter']>[0]): Disposable {
  return wire?.filter(filter) ?? { [Symbol.dispose]: always };
}

/** Puts blkdebug between format and file node: every read, write and flush of the guest fails with EIO. */
function withIoErrors(message: Readonly<Record<string, unknown>>): readonly string[] {
  const request = message as { arguments: { file: object } };
  const rule = { event: 'none', iotype: 'read', errno: 5, once: false };
  const rules = [rule, { ...rule, iotype: 'write' }, { ...rule, iotype: 'flush' }];
  const file = { driver: 'blkdebug', image: request.arguments.file, 'inject-error': rules };
  return [`${JSON.stringify({ ...request, arguments: { ...request.arguments, file } })}\n`];
}
