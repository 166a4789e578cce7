import { waitFor } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import { statusLuks2 } from '../guest/luks.ts';
import { unescapePoint } from '../guest/run-script.ts';
import { guestEncryption } from './guest-crypt.ts';
import type { VolumeHost } from './host.ts';
import { mappingName } from './model/encryption.ts';
import type { Evidence } from './model/state.ts';
import type { Volume } from './volume.ts';

/**
 * Whether what qshim made in the guest of an attached volume is still there: the guest may have unmounted it, and a
 * reset may have come while no daemon watched. What an earlier operation saw is no evidence for this one.
 */

const MOUNT_PREFIX = 'mount:';

/**
 * Looks, and drops the evidence of what is not there. Nothing to look at is a look that finds all as it was.
 * @param limits for the guest's answer
 * @throws ShimError FAILED_PRECONDITION: VOLUME_NOT_MOUNTED, LUKS_NOT_OPEN; DEADLINE_EXCEEDED / GUEST_NOT_ASKED, and
 *   then all that was known stays; the signal's reason
 */
export async function lookAtMade(
  host: VolumeHost,
  volume: Volume,
  limits: { readonly milliseconds: number; readonly signal: AbortSignal },
): Promise<void> {
  if (volume.spec.mount === undefined && guestEncryption(volume) === undefined) return;
  let seen: Made;
  try {
    seen = await waitFor(look(host, volume), limits);
  } catch (error) {
    limits.signal.throwIfAborted();
    throw notSaid(host, volume, error);
  }
  const refusal = refusalFor(host, volume, seen);
  if (refusal === undefined) return;
  await noteGone(host, volume, refusal);
  throw refusal;
}

interface Made {
  /** True without encryption in the guest, too. */
  readonly open: boolean;
  readonly mountedAt: readonly string[];
}

async function look(host: VolumeHost, volume: Volume): Promise<Made> {
  const { serial } = volume.spec;
  const pci = await host.addresses.of(await host.link.ready(), volume.identity.slot);
  if (pci === undefined) throw new Error('it has not numbered its PCI buses yet');
  if (guestEncryption(volume) !== undefined) {
    const status = await statusLuks2(host.agent, { pci, serial, name: mappingName(volume.id) });
    return status.state === 'open' ? { open: true, mountedAt: status.mountedAt } : { open: false, mountedAt: [] };
  }
  const use = await host.holders.of({ pci, serial });
  const points = (use.there ? use.users : []).flatMap(({ pid, what }) =>
    pid === 0 && what.startsWith(MOUNT_PREFIX) ? [unescapePoint(what.slice(MOUNT_PREFIX.length))] : [],
  );
  return { open: true, mountedAt: points };
}

function refusalFor(host: VolumeHost, volume: Volume, { open, mountedAt }: Made): ShimError | undefined {
  const { spec, id: volumeId } = volume;
  const metadata = { sandboxId: host.id, volumeId };
  const again = 'detach it, and attach it again';
  if (!open) {
    const message = `volume ${volumeId} is attached, but the guest has closed its encryption; ${again}`;
    return new ShimError('FAILED_PRECONDITION', message, { reason: 'LUKS_NOT_OPEN', metadata });
  }
  if (spec.mount === undefined || mountedAt.includes(spec.mount.mountPoint)) return undefined;
  const message = `volume ${volumeId} is attached, but not mounted at ${spec.mount.mountPoint} any more; ${again}`;
  return new ShimError('FAILED_PRECONDITION', message, { reason: 'VOLUME_NOT_MOUNTED', metadata });
}

/**
 * Takes note of what the guest has said is gone, for an error with such a reason: no operation after this one calls it
 * evidence. A mount that was looked for and not found is none to take away, either.
 */
export async function noteGone(host: VolumeHost, volume: Volume, error: unknown): Promise<void> {
  const gone = isShimError(error) ? GONE[error.reason] : undefined;
  if (gone === undefined) return;
  using _held = await volume.mutex.acquire();
  const { state } = volume;
  if (state.state !== 'attached') return;
  const evidence = state.guest.evidence.filter((each) => !gone.includes(each));
  if (guestEncryption(volume) === undefined) host.volumes.apply(volume, { kind: 'mounted', mount: false });
  host.volumes.apply(volume, { kind: 'guest-seen', guest: { ...state.guest, evidence } });
  host.commitSoon();
}

const GONE: Readonly<Record<string, readonly Evidence[]>> = {
  VOLUME_NOT_MOUNTED: ['guest-mount'],
  LUKS_NOT_OPEN: ['guest-mount', 'guest-luks'],
};

function notSaid(host: VolumeHost, volume: Volume, cause: unknown): ShimError {
  return new ShimError(
    'DEADLINE_EXCEEDED',
    `volume ${volume.id} is attached, but the guest has not said whether it is still mounted and open there: ${messageOf(cause)}`,
    {
      reason: 'GUEST_NOT_ASKED',
      metadata: {
        sandboxId: host.id,
        volumeId: volume.id,
        ...(isShimError(cause) ? { cause: cause.reason } : {}),
      },
      cause,
    },
  );
}

/**
 * After a daemon has come back, or a connection has: what it cannot have seen meanwhile is looked at, as soon as the
 * agent answers. What no agent vouches for is no evidence any more.
 */
export async function lookAtMadeAgain(host: VolumeHost, volume: Volume): Promise<void> {
  if (volume.spec.mount === undefined && guestEncryption(volume) === undefined) return;
  const { gone: signal, config } = host;
  const { boot } = host;
  const timeoutMs = config.boot_timeout_ms;
  try {
    await host.agent.waitReady({ timeoutMs, signal });
    await lookAtMade(host, volume, { milliseconds: timeoutMs, signal });
  } catch (error) {
    signal.throwIfAborted();
    // A reset has its own look.
    if (host.boot !== boot) return;
    host.log.warn(
      { volumeId: volume.id, problem: messageOf(error) },
      'mount or encryption of before is not seen any more',
    );
    if (!isShimError(error) || GONE[error.reason] === undefined) await dropUnseen(host, volume);
  }
}

async function dropUnseen(host: VolumeHost, volume: Volume): Promise<void> {
  using _held = await volume.mutex.acquire();
  const { state } = volume;
  if (state.state !== 'attached') return;
  const evidence = state.guest.evidence.filter((each) => each !== 'guest-mount' && each !== 'guest-luks');
  host.volumes.apply(volume, { kind: 'guest-seen', guest: { ...state.guest, evidence } });
  host.commitSoon();
}
