import { Deadline } from '../base/deadline.ts';
import type { GuestView } from './model/state.ts';
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
