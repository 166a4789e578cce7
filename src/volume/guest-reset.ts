import { Deadline } from '../base/deadline.ts';
import { isShimError } from '../base/errors.ts';
import type { Evidence, GuestView } from './model/state.ts';
import { lookInGuest } from './attach.ts';
import type { VolumeHost } from './host.ts';
import type { Volume } from './volume.ts';

/**
 * After a reset of the guest: what the last boot had seen of a volume is dropped, and looked at anew. The driver first;
 * once the agent has answered, the guest's name of the disk. A mount is not made again, so that it is no evidence any
 * more.
 * @param agent settles when the agent of the new boot has answered, or will not
 */
export async function lookAgain(host: VolumeHost, volume: Volume, agent: Promise<void>): Promise<void> {
  const { boot, config } = host;
  const formatted = volume.guest?.formatted ?? false;
  const note = async (seen: GuestView): Promise<void> => {
    using _held = await volume.mutex.acquire();
    // Another reset has its own look.
    if (host.boot !== boot) return;
    host.volumes.apply(volume, { kind: 'guest-seen', guest: { ...seen, formatted } });
    host.commitSoon();
  };
  await note({ pciAddress: undefined, device: undefined, evidence: [], formatted });
  try {
    const deadline = Deadline.after(config.boot_timeout_ms);
    await note(await lookInGuest(host, volume, deadline));
    await agent.catch(() => undefined);
    if (host.agentReady) await note(await lookInGuest(host, volume, deadline));
  } catch (error) {
    // One that has left meanwhile is not looked for.
    if (volume.state.state === 'attached') throw error;
  }
}

/** How long a driver that is live may take to be seen so, after a time that nobody watched. */
const SEEN_MS = 5000;

/**
 * Looks whether the guest's driver is live on an attached volume now. When it is not seen to be, nothing that was seen
 * in the guest before is evidence any more, and it is looked at anew in the background. Resets that came while nobody
 * watched are told by no event.
 * @returns whether it is live
 * @throws ShimError FAILED_PRECONDITION / DEVICE_VANISHED; the reason of `host.gone`
 */
export async function lookAtDriver(host: VolumeHost, volume: Volume): Promise<boolean> {
  const { boot } = host;
  const driver = await driverNow(host, volume);
  using _held = await volume.mutex.acquire();
  const { state } = volume;
  // A reset that was seen has its own look.
  if (state.state !== 'attached' || host.boot !== boot) return driver !== undefined;
  const { evidence } = state.guest;
  if (driver === undefined && evidence.length > 0) {
    const guest = { ...state.guest, pciAddress: undefined, device: undefined, evidence: [] };
    host.volumes.apply(volume, { kind: 'guest-seen', guest });
    host.inBackground('look anew', lookAgain(host, volume, agentAnswers(host)));
  } else if (driver !== undefined && !evidence.includes(driver)) {
    host.volumes.apply(volume, { kind: 'guest-seen', guest: { ...state.guest, evidence: [driver, ...evidence] } });
  }
  host.commitSoon();
  return driver !== undefined;
}

async function driverNow(host: VolumeHost, volume: Volume): Promise<Evidence | undefined> {
  try {
    return await host.drivers.untilLive(volume, Deadline.after(SEEN_MS));
  } catch (error) {
    host.gone.throwIfAborted();
    const notLive = isShimError(error) && ['GUEST_DRIVER_TIMEOUT', 'GUEST_DRIVER_FAILED'].includes(error.reason);
    if (!notLive) throw error;
    return undefined;
  }
}

function agentAnswers({ agent, config, gone: signal }: VolumeHost): Promise<void> {
  const answers = agent.waitReady({ timeoutMs: config.boot_timeout_ms, signal });
  answers.catch(() => undefined);
  return answers;
}

/**
 * After a daemon has come back, or a connection has: a reset that nobody saw is found by a driver that is not live, or
 * by another name of the disk, and what was seen before it is dropped and looked at anew.
 */
export async function lookAfterGap(host: VolumeHost, volume: Volume): Promise<void> {
  const { boot, config } = host;
  if (!(await lookAtDriver(host, volume))) return;
  await agentAnswers(host).catch(() => undefined);
  if (!host.agentReady) return;
  const seen = await lookInGuest(host, volume, Deadline.after(config.boot_timeout_ms));
  if (seen.device === undefined || seen.device === volume.guest?.device) return;
  using _held = await volume.mutex.acquire();
  if (volume.state.state !== 'attached' || host.boot !== boot) return;
  host.volumes.apply(volume, { kind: 'guest-seen', guest: { ...seen, formatted: volume.guest?.formatted ?? false } });
  host.commitSoon();
}
