import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault, Point, StatusName, Target } from './cell.ts';
import { addsToQemu, always, deathTold, filterOn, leadsToQemu, lives, passOn, unlessSpawn } from './fault-parts.ts';
import { LINE_BYTES_MAX, REPLY_TIMEOUT_MS } from './rig.ts';
import { asksGuest, isDeviceDeleted, isEvent, lineOf, type Step } from './steps.ts';
import type { Wire } from './wire.ts';
import { GUEST_FAULTS, HOST_FAULTS } from './world-faults.ts';

const LATE_MS = 400;
const STOPPED_MS = REPLY_TIMEOUT_MS + 600;
const DAY_MS = 86_400_000;

const NO_REPLY = 'nobody replies in this step';
const NO_EVENT = 'QEMU sends no event in this step';
const NOT_YET = 'tried on the scripted QEMU, by component/daemon-boot';
const NO_QMP = 'there is no QMP connection yet';

/** The wire that carries the step; for steps that none carries, QMP. */
function wireOf({ step, target }: Point): Wire {
  const wire = step.on === 'agent' ? target.agent : target.qmp;
  if (wire === undefined) throw new Error(`no wire at ${step.name}`);
  return wire;
}

function needsReply(step: Step): string | undefined {
  return step.on === 'process' || step.on === 'journal' || isEvent(step) ? NO_REPLY : undefined;
}

function needsEvent(step: Step): string | undefined {
  return step.name === 'device_del' || isEvent(step) ? undefined : NO_EVENT;
}

/** What a connection that breaks comes to. Looks are taken again over the next one, changes of QEMU are undone. */
function brokenLink(step: Step): readonly StatusName[] | undefined {
  if (leadsToQemu(step)) return ['OK', 'UNAVAILABLE'];
  return addsToQemu(step) || step.name === 'qmp' ? ['UNAVAILABLE'] : undefined;
}

/** The step's first command is answered with an error, and neither QEMU nor guest hears of it. */
function refuseOnce({ qmp, agent }: Target, step: Step): Disposable {
  let refused = false;
  return filterOn(step.on === 'agent' ? agent : qmp, (line, wire) => {
    if (refused || !lineOf(step, 'asked')(line)) return undefined;
    refused = true;
    const { id } = line.message;
    const error = { class: 'GenericError', desc: 'refused by the test' };
    wire.sendDown(`${JSON.stringify({ error, ...(id === undefined ? {} : { id }) })}\r\n`);
    return [];
  });
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
    expect: (step) => ({
      answers: step.plan === 'create' ? ['FAILED_PRECONDITION'] : deathTold(step),
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
    expect: lives((step) => {
      if (leadsToQemu(step) || asksGuest(step)) return ['OK', 'DEADLINE_EXCEEDED'];
      return addsToQemu(step) || step.mounted ? ['DEADLINE_EXCEEDED'] : undefined;
    }),
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
    expect: lives(() => ['UNAVAILABLE']),
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
    expect: lives(() => ['CANCELLED']),
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
    expect: lives(),
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
    expect: lives(brokenLink),
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
    expect: lives(),
  },
  {
    name: 'reply lost',
    moments: ['answered'],
    whyNot: needsReply,
    strike: (point) => {
      point.drop();
      return Promise.resolve(undefined);
    },
    expect: lives((step) => {
      if (step.mounted) return ['UNAVAILABLE', 'DEADLINE_EXCEEDED'];
      // A question is asked again.
      if (asksGuest(step)) return ['OK', 'DEADLINE_EXCEEDED'];
      if (step.name === 'qmp') return ['FAILED_PRECONDITION'];
      return addsToQemu(step) ? ['DEADLINE_EXCEEDED'] : undefined;
    }),
  },
  {
    name: 'command refused',
    moments: ['asked'],
    whyNot: (step) => (step.plan === 'create' ? NOT_YET : needsReply(step)),
    arm: refuseOnce,
    strike: passOn,
    expect: lives((step) => {
      if (step.name === 'device_add') return ['INTERNAL'];
      // The next aio mode is tried, the guest is asked again, the look is taken again.
      if (step.mounted) return ['UNIMPLEMENTED'];
      // An agent that runs no programs cannot say who uses the disk. Instead of a status that is refused, reads count.
      return step.name === 'ask-guest' ? ['DEADLINE_EXCEEDED'] : undefined;
    }),
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
    expect: lives(),
  },
  {
    name: 'event twice',
    moments: ['asked'],
    whyNot: needsEvent,
    prepare: ({ qmp }) =>
      filterOn(qmp, (line) => (line.event === 'DEVICE_DELETED' ? [line.bytes, line.bytes] : undefined)),
    strike: passOn,
    expect: lives(),
  },
  {
    name: 'event never',
    moments: ['asked'],
    whyNot: needsEvent,
    prepare: ({ qmp }) => filterOn(qmp, (line) => (line.event === 'DEVICE_DELETED' ? [] : undefined)),
    strike: passOn,
    expect: lives(),
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
    expect: lives(),
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
    expect: lives((step) => (step.mounted ? ['RESOURCE_EXHAUSTED', 'UNAVAILABLE'] : brokenLink(step))),
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
    expect: lives((step) => (step.mounted ? ['UNAVAILABLE'] : brokenLink(step))),
  },
];

/** The rows of the matrix. */
export const FAULTS: readonly Fault[] = [...PROCESS_FAULTS, ...WIRE_FAULTS, ...HOST_FAULTS, ...GUEST_FAULTS];
