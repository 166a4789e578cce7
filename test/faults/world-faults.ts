import { rm, truncate } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { identify } from '../../src/qemu/process.ts';
import { NotHere, type Fault, type Point, type StatusName } from './cell.ts';
import { always, deathTold, filterOn, lives, passOn, unlessSpawn } from './fault-parts.ts';
import { exhaustDescriptors, fill, makeReadOnly } from './host.ts';
import { asksGuest, type Step } from './steps.ts';
import { until } from '../support/until.ts';

const HUNG_MS = 1500;
const FIRMWARE_MS = 1000;
const TRUNCATED_BYTES = 4096;
const AGENT_GONE_MAX_MS = 10_000;
const PANIC_MAX_MS = 20_000;

const NO_VOLUME = 'no volume takes part in this step';
const NO_AGENT = 'no guest agent runs yet';

function needsVolume(step: Step): string | undefined {
  return step.plan === 'create' ? NO_VOLUME : undefined;
}

function needsMounts({ rig }: Point): void {
  if (rig.whyNoMounts !== undefined) throw new NotHere(rig.whyNoMounts);
}

/** The intent must be on disk before QEMU is changed. */
const journalFails = ({ plan, name }: Step): readonly StatusName[] | undefined =>
  plan === 'create' || name === 'journal' ? ['UNAVAILABLE'] : undefined;

/** Runs a script in the guest past everything that is held, and past the daemon. */
function inGuest({ target }: Point, script: string): void {
  target.agent?.sendUp('guest-exec', { path: '/bin/sh', arg: ['-c', script] });
}

/** Faults of the host. */
export const HOST_FAULTS: readonly Fault[] = [
  {
    name: 'daemon out of descriptors',
    moments: ['asked'],
    whyNot: always,
    strike: async (point) => {
      const healed = await exhaustDescriptors(point.rig.daemonPid);
      await point.pass();
      return healed;
    },
    // A guest that boots slowly makes the daemon connect anew to its agent, which it cannot.
    expect: lives((step) =>
      step.plan === 'create' && step.on === 'agent' ? ['UNAVAILABLE', 'DEADLINE_EXCEEDED'] : journalFails(step),
    ),
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
    expect: lives(journalFails),
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
    expect: lives(journalFails),
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
    // Later the file is open, and QEMU has it.
    expect: lives(({ plan, name }) => (plan === 'attach' && name === 'journal' ? ['FAILED_PRECONDITION'] : undefined)),
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
    // What the guest has read of the file system may be enough to mount it.
    expect: lives(({ name }) => (name === 'mount' ? ['OK', 'FAILED_PRECONDITION'] : undefined)),
  },
  {
    name: 'backing gives I/O errors',
    moments: ['asked'],
    whyNot: (step) =>
      step.name === 'unmount' ? 'nothing can be mounted from a disk that fails from its first read' : needsVolume(step),
    spoilsFile: true,
    prepare: ({ qmp }) =>
      filterOn(qmp, (line) =>
        line.direction === 'up' && line.command === 'blockdev-add' ? withIoErrors(line.message) : undefined,
      ),
    strike: passOn,
    expect: lives(({ name }) => (name === 'mount' ? ['FAILED_PRECONDITION'] : undefined)),
  },
];

/** Faults of the guest. */
export const GUEST_FAULTS: readonly Fault[] = [
  {
    name: 'guest agent dead',
    moments: ['asked'],
    whyNot: (step) => (step.plan === 'create' ? NO_AGENT : undefined),
    strike: async (point) => {
      // PID 1 of the guest starts another after a while.
      inGuest(point, 'killall -9 qemu-ga');
      await agentGone(point);
      await point.pass();
      return undefined;
    },
    // The request waits in the port for the next agent, which may come in time.
    expect: lives((step) => {
      if (asksGuest(step)) return ['OK', 'DEADLINE_EXCEEDED'];
      return step.mounted ? ['OK', 'UNAVAILABLE', 'DEADLINE_EXCEEDED'] : undefined;
    }),
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
    expect: lives((step) => (step.mounted || asksGuest(step) ? ['OK', 'DEADLINE_EXCEEDED'] : undefined)),
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
    expect: ({ plan, on }) =>
      plan === 'create'
        ? // A guest that resets before its agent has answered is not waited for.
          on === 'agent'
          ? { answers: ['FAILED_PRECONDITION'], vm: 'dies' }
          : { answers: ['OK'], vm: 'lives' }
        : // A boot may take longer than the caller waits.
          { answers: ['OK', 'DEADLINE_EXCEEDED', 'UNAVAILABLE', 'FAILED_PRECONDITION'], vm: 'reboots' },
  },
  {
    name: 'guest panicked',
    moments: ['asked'],
    whyNot: (step) => (step.plan === 'create' ? NO_AGENT : undefined),
    strike: async (point) => {
      inGuest(point, 'echo c > /proc/sysrq-trigger');
      await qemuGone(point);
      await point.pass();
      return undefined;
    },
    expect: (step) => ({ answers: deathTold(step), vm: 'dies' }),
  },
];

/** Waits until nobody in the guest has the agent's port open. */
async function agentGone({ rig, target }: Point): Promise<void> {
  await rig.spare(async (qmp) => {
    const isOpen = async (): Promise<boolean> =>
      (await qmp.run('query-chardev')).some((port) => port.label === 'agent' && port['frontend-open']);
    await until('the guest agent is killed', async () => !(await isOpen()), AGENT_GONE_MAX_MS);
  }, target.stateDir);
}

/** Waits until a guest that panicked has taken its QEMU with it. */
async function qemuGone({ target }: Point): Promise<void> {
  await until('the guest panics', async () => (await identify(target.pid)) === undefined, PANIC_MAX_MS);
}

/** Puts blkdebug between format and file node: every read, write and flush of the guest fails with EIO. */
function withIoErrors(message: Readonly<Record<string, unknown>>): readonly string[] {
  const request = message as { arguments: { file: object } };
  const rule = { event: 'none', iotype: 'read', errno: 5, once: false };
  const rules = [rule, { ...rule, iotype: 'write' }, { ...rule, iotype: 'flush' }];
  const file = { driver: 'blkdebug', image: request.arguments.file, 'inject-error': rules };
  return [`${JSON.stringify({ ...request, arguments: { ...request.arguments, file } })}\n`];
}
