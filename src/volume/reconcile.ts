import { Deadline, sleep } from '../base/deadline.ts';
import { isShimError, messageOf } from '../base/errors.ts';
import { listed } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import { asShimError } from '../qmp/errors.ts';
import { beginUndo, settle } from './attach.ts';
import { startRemoval } from './detach.ts';
import { guestEncryption } from './guest-crypt.ts';
import { lookAfterGap } from './guest-reset.ts';
import { hostLuksView } from './luks-image.ts';
import { look } from './looks.ts';
import { causeFrom, type Cause } from './model/state.ts';
import { resumeOperation } from './operations/resume.ts';
import { recoverVolumes } from './recover.ts';
import { moduleOf } from './source/registry.ts';
import { lookAtMadeAgain } from './still-there.ts';
import type { VolumeHost } from './host.ts';
import { Stopwatch } from '../base/stopwatch.ts';
import { fetchKey } from './key.ts';
import type { Volume } from './volume.ts';

/**
 * Compares the records with what QEMU really has, after a connection was made anew or a daemon came back, and brings
 * every record to the nearest true state: what is there is finished, what is not is undone. Nothing is taken from a
 * guest that was not asked for: only an attach that the journal tells of is undone.
 */
export async function reconcile(host: VolumeHost, client: QmpClient): Promise<void> {
  await host.relays.adopt(host.volumes.all().some((volume) => volume.relays.length > 0 && !volume.isRemoved()));
  await recoverVolumes(host, client);
  const open = host.volumes.all().filter((volume) => !volume.isRemoved());
  await settleRelays(host, client, open);
  if (open.length === 0) return;
  const present = await listed(client, 'device');
  await host.throttles.settleAll(client);
  for (const volume of open) {
    host.inBackground('reconcile volume', reconcileVolume(host, volume, present.has(volume.names.device)));
  }
}

/**
 * Each volume that needs a relay has one again, whatever became of it meanwhile; those that neither a volume nor QEMU
 * uses end.
 */
async function settleRelays({ relays }: VolumeHost, client: QmpClient, open: readonly Volume[]): Promise<void> {
  if (relays.sockets.length > 0) {
    const nodes = await client.run('query-named-block-nodes', { flat: true });
    await relays.endUnused(
      new Set(open.flatMap((volume) => volume.relays)),
      nodes.map(({ file }) => file),
    );
  }
  for (const volume of open) {
    for (const { relay, resolved } of volume.openSources()) {
      const server = moduleOf(resolved).server?.(resolved);
      if (relay !== undefined && server !== undefined) relays.ensure(relay, server);
    }
  }
}

async function reconcileVolume(host: VolumeHost, volume: Volume, present: boolean): Promise<void> {
  // An operation of this daemon that is under way sees to its own volume.
  if (volume.attaching !== undefined || volume.removal !== undefined) return;
  switch (volume.state.state) {
    case 'removed':
      return;
    case 'attached':
      if (!present) {
        await deviceVanished(host, volume);
        return;
      }
      host.inBackground('look after a gap', lookAfterGap(host, volume));
      host.inBackground('look at what was made', lookAtMadeAgain(host, volume));
      await resumeOperation(host, volume);
      return;
    case 'detaching':
      startRemoval(host, volume);
      return;
    case 'pending':
      await volume.attachBy(resumeAttach(host, volume, present));
  }
}

/**
 * Takes note that a volume's device is gone from QEMU. What is left of an ATTACHED one is cleared away; an attach that
 * is under way undoes itself, and a removal goes on from there.
 */
export async function deviceVanished(host: VolumeHost, volume: Volume): Promise<void> {
  using _held = await volume.mutex.acquire();
  const wasAttached = volume.state.state === 'attached';
  host.volumes.apply(volume, { kind: 'device-gone' });
  if (wasAttached) startRemoval(host, volume);
}

/** An attach that an earlier daemon began: finished when the device is in QEMU, undone when it is not. */
async function resumeAttach(host: VolumeHost, volume: Volume, present: boolean): Promise<void> {
  const undoing = volume.state.state === 'pending' && volume.state.phase === 'undoing';
  try {
    if (undoing || !present) {
      const cause: Cause = { reason: 'INTERRUPTED', message: 'the daemon ended before the device was in QEMU' };
      await undo(host, volume, cause);
      return;
    }
    await (wasFound(volume) ? settleFound(host, volume) : settleResumed(host, volume));
    host.commitSoon();
  } catch (error) {
    host.gone.throwIfAborted();
    await undo(host, volume, causeFrom(asShimError(error)));
  }
}

async function settleResumed(host: VolumeHost, volume: Volume): Promise<void> {
  using key = guestEncryption(volume) === undefined ? undefined : await fetchKey(host, volume.spec);
  const deadline = Deadline.after(host.config.attach_timeout_ms);
  if (volume.spec.encryption?.kind === 'host-luks' && volume.encryption === undefined) {
    const { resolvedPath: path, backingIdentity } = volume.identity;
    const encryption = hostLuksView(await look('readLuks1', path, host.config, path, backingIdentity), false);
    host.volumes.apply(volume, { kind: 'encrypted', encryption });
  }
  await settle(host, volume, key, deadline, new Stopwatch());
}

function wasFound({ state }: Volume): boolean {
  return state.state === 'pending' && state.phase === 'attaching' && state.found === true;
}

/**
 * One without a record may have been in use before the record was lost. No attach of it failed, and nobody asked to
 * take it away: it waits for its driver for as long as the device is there, whatever else goes wrong.
 * @throws the reason of `host.gone`; FAILED_PRECONDITION / DEVICE_VANISHED
 */
async function settleFound(host: VolumeHost, volume: Volume): Promise<void> {
  for (;;) {
    try {
      await settleResumed(host, volume);
      return;
    } catch (error) {
      host.gone.throwIfAborted();
      if (!wasFound(volume) || (isShimError(error) && error.reason === 'DEVICE_VANISHED')) throw error;
      host.log.warn(
        { volumeId: volume.id, problem: messageOf(error) },
        'volume without a record is not seen to be in use; it stays PENDING',
      );
    }
    await sleep(host.config.unplug_retry_ms, host.gone);
  }
}

async function undo(host: VolumeHost, volume: Volume, cause: Cause): Promise<void> {
  const { removal } = await beginUndo(host, volume, cause);
  await removal;
}
