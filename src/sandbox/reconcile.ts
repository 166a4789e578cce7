import { Deadline } from '../base/deadline.ts';
import type { QmpClient } from '../qmp/client.ts';
import { asShimError, causeFrom, releaseBestEffort, settle } from './attach.ts';
import { startRemoval } from './detach.ts';
import { guestEncryption } from './guest-crypt.ts';
import { hostLuksView, readLuks1 } from './luks-image.ts';
import { recoverVolumes } from './recover.ts';
import { removeFromQemu } from './removal.ts';
import type { Sandbox } from './sandbox.ts';
import { Stopwatch } from './stopwatch.ts';
import { fetchKey } from './volume-key.ts';
import type { Volume } from './volume.ts';

/**
 * Compares the records with what QEMU really has, after a connection was made anew or a daemon came back, and brings every
 * record to the nearest true state: what is there is finished, what is not is undone. Nothing is taken from a guest that
 * was not asked for.
 */
export async function reconcile(sandbox: Sandbox, client: QmpClient): Promise<void> {
  await recoverVolumes(sandbox, client);
  const open = sandbox.volumes.all().filter((volume) => !volume.isRemoved());
  if (open.length === 0) return;
  const children = await client.run('qom-list', { path: '/machine/peripheral' });
  const present = new Set(children.map((child) => child.name));
  for (const volume of open) {
    sandbox.inBackground('reconcile volume', reconcileVolume(sandbox, volume, present.has(volume.names.device)));
  }
}

async function reconcileVolume(sandbox: Sandbox, volume: Volume, present: boolean): Promise<void> {
  // An operation of this daemon that is under way sees to its own volume.
  if (volume.attaching !== undefined || volume.removal !== undefined) return;
  switch (volume.state.state) {
    case 'removed':
      return;
    case 'attached':
      if (!present) await deviceVanished(sandbox, volume);
      return;
    case 'detaching':
      startRemoval(sandbox, volume);
      return;
    case 'pending':
      volume.attaching = resumeAttach(sandbox, volume, present).finally(() => {
        volume.attaching = undefined;
      });
      await volume.attaching;
  }
}

/**
 * Takes note that a volume's device is gone from QEMU. What is left of an ATTACHED one is cleared away; an attach that is
 * under way undoes itself, and a removal goes on from there.
 */
export async function deviceVanished(sandbox: Sandbox, volume: Volume): Promise<void> {
  using _held = await volume.mutex.acquire();
  const wasAttached = volume.state.state === 'attached';
  sandbox.volumes.apply(volume, { kind: 'device-gone' });
  if (wasAttached) startRemoval(sandbox, volume);
}

/** An attach that an earlier daemon began: finished when the device is in QEMU, undone when it is not. */
async function resumeAttach(sandbox: Sandbox, volume: Volume, present: boolean): Promise<void> {
  const undoing = volume.state.state === 'pending' && volume.state.phase === 'undoing';
  try {
    if (undoing || !present) {
      const cause = { reason: 'INTERRUPTED', message: 'the daemon ended before the device was in QEMU' } as const;
      await undo(sandbox, volume, cause);
      return;
    }
    using key = guestEncryption(volume) === undefined ? undefined : await fetchKey(sandbox, volume.spec);
    const deadline = Deadline.after(sandbox.config.attach_timeout_ms);
    if (volume.spec.encryption?.kind === 'host-luks') {
      volume.encryption ??= hostLuksView(await readLuks1(volume.identity.resolvedPath), false);
    }
    await settle(sandbox, volume, key, deadline, new Stopwatch());
    sandbox.commitSoon();
  } catch (error) {
    sandbox.gone.throwIfAborted();
    await undo(sandbox, volume, causeFrom(asShimError(error)));
  }
}

async function undo(sandbox: Sandbox, volume: Volume, cause: ReturnType<typeof causeFrom>): Promise<void> {
  {
    using _held = await volume.mutex.acquire();
    sandbox.volumes.apply(volume, { kind: 'attach-failed', cause });
  }
  await releaseBestEffort(sandbox, volume);
  await removeFromQemu(sandbox, volume);
}
