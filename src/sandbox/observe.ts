import { isShimError, messageOf } from '../base/errors.ts';
import { AGENT_PORT_ID } from '../qemu/argv.ts';
import { probe } from '../qemu/trial.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { QmpListener } from '../qmp/listener.ts';
import { lookAgain } from '../volume/guest-reset.ts';
import { deviceVanished, reconcile } from '../volume/reconcile.ts';
import type { Sandbox } from './sandbox.ts';

const WATCHED = [
  'DEVICE_DELETED',
  'SHUTDOWN',
  'RESET',
  'STOP',
  'RESUME',
  'GUEST_PANICKED',
  'VSERPORT_CHANGE',
  'BLOCK_IO_ERROR',
] as const;
type Watched = (typeof WATCHED)[number];

/**
 * Begins to observe a VM over a new QMP connection: first the listener, then the look at how things stand, so that
 * nothing falls between the two. Events of the time without a connection are not replayed; the look stands in for them.
 */
export async function observe(sandbox: Sandbox, client: QmpClient): Promise<void> {
  const events = client.listen(WATCHED);
  sandbox.inBackground('events', consume(sandbox, client, events));
  // By it the watch of drivers begins to look, in VMs that are in use.
  sandbox.connected(await probe(client, sandbox, ['x-query-virtio-status']));
  const { status } = await client.run('query-status');
  sandbox.sawRunState(status);
  // It may have paused for want of space while nobody watched.
  if (status === 'io-error') sandbox.ioErrors.resumeWhenThereIsRoom();
  await reconcile(sandbox, client);
  // Of those that are ATTACHED already.
  if (sandbox.volumes.slotsInUse > 0) sandbox.stats.mayLackHistograms();
  sandbox.inBackground('fences', sandbox.fence.clearStrays());
}

/** STOP does not say why; the run state does: "paused", "io-error", "guest-panicked". */
async function readRunState(sandbox: Sandbox): Promise<void> {
  const { status } = await sandbox.link.current.run('query-status');
  sandbox.sawRunState(status);
}

async function consume(sandbox: Sandbox, client: QmpClient, events: QmpListener<Watched>): Promise<void> {
  using _owned = events;
  try {
    for (;;) handle(sandbox, await events.next());
  } catch (error) {
    // The connection has ended; the link makes a new one, with a new listener, while the VM lives.
    sandbox.log.debug({ problem: messageOf(error) }, 'event listener ended');
    // Some were dropped: a new connection looks at how things stand.
    if (isShimError(error, 'RESOURCE_EXHAUSTED')) await client[Symbol.asyncDispose]();
  }
}

function handle(sandbox: Sandbox, event: Awaited<ReturnType<QmpListener<Watched>['next']>>): void {
  switch (event.event) {
    case 'DEVICE_DELETED':
      if (event.data.device !== undefined) onDeviceDeleted(sandbox, event.data.device);
      return;
    case 'SHUTDOWN':
      sandbox.sawShutdown(event.data.reason);
      return;
    case 'RESET':
      onReset(sandbox);
      return;
    case 'STOP':
      sandbox.inBackground('run state', readRunState(sandbox));
      return;
    case 'RESUME':
      sandbox.sawRunState('running');
      sandbox.ioErrors.resumed();
      return;
    case 'GUEST_PANICKED':
      sandbox.log.warn('guest panicked');
      sandbox.announce('sandbox.panicked', { reason: 'GUEST_PANICKED', message: "the guest's kernel panicked" });
      return;
    case 'VSERPORT_CHANGE':
      if (event.data.id === AGENT_PORT_ID) sandbox.agent.nudge();
      return;
    case 'BLOCK_IO_ERROR':
      sandbox.ioErrors.failed(event);
      return;
  }
}

/**
 * A device that has left QEMU, asked or not. QEMU says it once, so it is never passed over: what an attach or a refused
 * detach says afterwards must know of it.
 */
function onDeviceDeleted(sandbox: Sandbox, device: string): void {
  const volume = sandbox.volumes.all().find((one) => one.names.device === device);
  if (volume === undefined || volume.isRemoved()) return;
  sandbox.inBackground('device deleted', deviceVanished(sandbox, volume));
}

/** Everything that waits for this boot of the guest hears at once; the rest is done as often as resets may cost. */
function onReset(sandbox: Sandbox): void {
  if (sandbox.state !== 'running') return;
  sandbox.sawReset();
  sandbox.resets.ask();
}

/** Nothing of what the last boot of the guest had is there any more; what is left of it is looked at anew. */
export function afterReset(sandbox: Sandbox): void {
  if (sandbox.state !== 'running') return;
  const agent = awaitAgent(sandbox);
  for (const volume of sandbox.volumes.all()) {
    // A PENDING one sees to it itself, by the number of the boot.
    const { state } = volume.state;
    if (state === 'attached' || state === 'detaching') {
      sandbox.inBackground('look after reset', lookAgain(sandbox, volume, agent));
    }
    sandbox.volumes.apply(volume, { kind: 'guest-reset' });
  }
  sandbox.containers.allGone(false);
  sandbox.commitSoon();
  sandbox.announce('sandbox.rebooted', { reason: 'GUEST_RESET', message: 'the guest was reset or rebooted' });
  sandbox.inBackground('agent after reset', agent);
}

/** Waits for the guest agent for as long as a boot may take, and takes note of it. */
export async function awaitAgent(sandbox: Sandbox): Promise<void> {
  await sandbox.agent.waitReady({ timeoutMs: sandbox.config.boot_timeout_ms, signal: sandbox.gone });
  sandbox.agentAnswered();
}
