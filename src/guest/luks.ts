import { invalidArgument, ShimError } from '../base/errors.ts';
import type { GuestAgent } from './agent.ts';
import {
  mountArguments,
  pointArgument,
  proofArguments,
  type EmptinessProof,
  type PrepareMountRequest,
} from './disks.ts';
import { guestScript } from './programs.ts';
import {
  busyProcesses,
  mountPointsLeft,
  refusal,
  runScript,
  type BusyProcess,
  type DiskIdentity,
  type Facts,
} from './run-script.ts';

/**
 * Confidential storage: LUKS2 inside the guest, on a disk that the host hands over raw. aes-xts-plain64, on request
 * dm-integrity (hmac-sha256, no journal, no wipe). Each function is one guest-exec, finds the disk by PCI address and
 * serial, and waits for an earlier one on the same disk.
 */

const OPEN_LUKS2 = guestScript('open-luks2');
const CLOSE_LUKS2 = guestScript('close-luks2');
const STATUS_LUKS2 = guestScript('status-luks2');
const RESIZE_LUKS2 = guestScript('resize-luks2');

/** dm-crypt's names are shorter than 128 bytes, and `_dif` is added for integrity. */
const NAME_LENGTH_MAX = 120;
export const LUKS_KEY_BYTES_MAX = 8192;
/** cryptsetup reads the key once to encrypt the disk and once to open it. */
const KEY_COPIES = 2;
const SECTOR_BYTES = 512;
const STATUS_TIMEOUT_MS = 30_000;

/** A disk and the name of its mapping: the device is /dev/mapper/NAME. */
export interface LuksDisk extends DiskIdentity {
  /** Letters, digits, `.`, `_`, `-`; one volume keeps one name, since an ephemeral key is found by it. */
  readonly name: string;
}

/**
 * `ephemeral`: random, made in the guest, known to nobody else. It and the header live in the guest's memory until
 * closeLuks2 forgets them or the guest ends; then the disk's contents are gone.
 * `provided`: these bytes, all of them, 1 to 8192. They stay the caller's to zero.
 */
export type LuksKey = { readonly kind: 'ephemeral' } | { readonly kind: 'provided'; readonly material: Buffer };

export interface OpenLuks2Request extends LuksDisk {
  /** `create`: only on a disk that is provably empty. A disk that could not be opened is never created. */
  readonly mode: 'create' | 'open' | 'open_or_create_if_empty';
  /** The disk must be protected by dm-integrity, or must not be. */
  readonly integrity: boolean;
  /** Bytes, for a disk that is made. */
  readonly sectorSize: 512 | 4096;
  /** The LUKS UUID that the disk must have when it is encrypted already; empty: any. */
  readonly uuid: string;
  readonly key: LuksKey;
  readonly readOnly: boolean;
  /** What to mount from the mapping in the same step, formatted before if it is new (format: `if_empty`). */
  readonly mount?: Pick<PrepareMountRequest, 'fsType' | 'mountPoint' | 'options' | 'format'>;
  readonly proof?: EmptinessProof;
  readonly timeoutMs: number;
}

/** A mapping as the guest's kernel describes it. */
export interface Luks2Mapping {
  readonly device: string;
  /** As cryptsetup writes it: `aes-xts-plain64`. */
  readonly cipher: string;
  /** Bytes. */
  readonly sectorSize: number;
  readonly integrity: boolean;
  readonly readOnly: boolean;
  readonly sizeBytes: number;
  /** In use, of the header. */
  readonly keySlots: number;
  /** The header's. */
  readonly uuid: string;
}

export interface OpenedLuks2 extends Luks2Mapping {
  /** The disk itself, as /dev/vdb. */
  readonly disk: string;
  /** The disk was empty and has been encrypted by this call. */
  readonly created: boolean;
  readonly mount?: { readonly formatted: boolean; readonly uuid?: string };
}

/**
 * Opens an encrypted disk, or makes one of an empty disk, and mounts it if that is asked for. A mapping of that name on
 * that disk (an earlier call that was not heard to the end) is used if the key opens it. When anything fails after the
 * mapping was made, the mapping is taken away again.
 * @throws ShimError FAILED_PRECONDITION: GUEST_DISK_NOT_FOUND, GUEST_DISK_MISMATCH, GUEST_DISK_NOT_EMPTY,
 * GUEST_EMPTINESS_UNKNOWN,
 * LUKS_NO_HEADER, LUKS_DEVICE_SWAPPED, LUKS_WRONG_KEY (or a key slot whose bytes are damaged: nobody can tell),
 * LUKS_HEADER_DAMAGED, LUKS_VERSION_UNSUPPORTED, LUKS_DEVICE_TRUNCATED, LUKS_INTEGRITY_ERROR, LUKS_INTEGRITY_MISMATCH,
 * LUKS_DISK_IN_USE, LUKS_NAME_IN_USE, LUKS_FORMAT_FAILED, LUKS_OPEN_FAILED, and with `mount` what prepareMount throws;
 * UNIMPLEMENTED: GUEST_DM_CRYPT_MISSING, GUEST_TOOL_MISSING; RESOURCE_EXHAUSTED/LUKS_OUT_OF_MEMORY; INVALID_ARGUMENT;
 * and what GuestAgent.exec throws. After GUEST_EXEC_TIMEOUT the work goes on in the guest, and a second call waits for
 * it.
 */
export async function openLuks2(agent: GuestAgent, request: OpenLuks2Request): Promise<OpenedLuks2> {
  const { name, mode, integrity, key, readOnly, mount, timeoutMs } = request;
  checkName(name);
  if (readOnly && mode === 'create') throw invalidArgument('readOnly', readOnly, 'nothing can be created read-only');
  const mountArgs = mount === undefined ? ['', '', '', '', '', 'never'] : mountArguments({ ...mount, readOnly });
  const flags = [integrity ? '1' : '0', ...keyArguments(key), readOnly ? '1' : '0'];
  const facts = await withKey(key, (input) =>
    runScript(agent, OPEN_LUKS2, {
      identity: request,
      ...(mount && { mountPoint: mount.mountPoint }),
      args: [name, mode, ...flags, ...mountArgs, String(request.sectorSize), request.uuid, ...proofArguments(request)],
      ...input,
      timeoutMs,
      fallback: 'LUKS_OPEN_FAILED',
    }),
  );
  const mapping = toMapping(facts);
  const [disk] = facts.get('device') ?? [];
  const [created] = facts.get('created') ?? [];
  const [formatted] = facts.get('formatted') ?? [];
  if (mapping === undefined || disk === undefined || created === undefined || (mount && formatted === undefined)) {
    throw refusal('LUKS_OPEN_FAILED', { identity: request }, 'no result');
  }
  const uuid = facts.get('uuid')?.[0];
  const mounted = { formatted: formatted === '1', ...(uuid !== undefined && uuid !== '' && { uuid }) };
  return { ...mapping, disk, created: created === '1', ...(mount && { mount: mounted }) };
}

export interface CloseLuks2Request extends LuksDisk {
  /** Unmounts lazily, and takes key and disk away from a mapping that stays in use. Kills nobody. */
  readonly force: boolean;
  /** Once it is closed, overwrites an ephemeral key and its header: a crypto-erase. */
  readonly forget: boolean;
  readonly timeoutMs: number;
}

/**
 * `closed: true` is said when no mapping of that name and nothing else on the disk was there afterwards.
 * `released`: the mapping still has its name and its users, but neither its key nor the disk any more (by force).
 * `open`: it is there. `mountedAt`: what is still mounted from it or from the disk, for the agent; some mounts may be
 * gone.
 */
export type ClosedLuks2 =
  | { readonly closed: true }
  | {
      readonly closed: false;
      readonly released: boolean;
      readonly open: boolean;
      readonly busy: readonly BusyProcess[];
      readonly mountedAt: readonly string[];
    };

/**
 * Unmounts what lies on the mapping and closes it. One that is not open is closed.
 * @throws ShimError FAILED_PRECONDITION: GUEST_DISK_NOT_FOUND, GUEST_DISK_MISMATCH, LUKS_NAME_IN_USE,
 *   LUKS_CLOSE_FAILED;
 * UNIMPLEMENTED/GUEST_TOOL_MISSING; and what GuestAgent.exec throws
 */
export async function closeLuks2(agent: GuestAgent, request: CloseLuks2Request): Promise<ClosedLuks2> {
  const { name, force, forget, timeoutMs } = request;
  checkName(name);
  const facts = await runScript(agent, CLOSE_LUKS2, {
    identity: request,
    args: [name, force ? '1' : '0', forget ? '1' : '0'],
    timeoutMs,
    fallback: 'LUKS_CLOSE_FAILED',
  });
  const [closed] = facts.get('closed') ?? [];
  if (closed === undefined) throw refusal('LUKS_CLOSE_FAILED', { identity: request }, 'no result');
  if (closed === '1') return { closed: true };
  const said = (key: string): boolean => facts.get(key)?.[0] === '1';
  const left = { busy: busyProcesses(facts), mountedAt: mountPointsLeft(facts) };
  return { closed: false, released: said('released'), open: said('open'), ...left };
}

/** `ephemeralKey`: the guest still has the key and header of this name. */
export type StatusLuks2 =
  | { readonly state: 'closed'; readonly ephemeralKey: boolean }
  | {
      readonly state: 'open';
      readonly ephemeralKey: boolean;
      readonly mapping: Luks2Mapping;
      /** Where it is mounted, in the agent's mount namespace. */
      readonly mountedAt: readonly string[];
    };

/**
 * What the guest's kernel says of a mapping.
 * @throws as closeLuks2, with LUKS_STATUS_FAILED
 */
export async function statusLuks2(agent: GuestAgent, disk: LuksDisk): Promise<StatusLuks2> {
  checkName(disk.name);
  const script = { identity: disk, args: [disk.name], timeoutMs: STATUS_TIMEOUT_MS };
  const facts = await runScript(agent, STATUS_LUKS2, { ...script, fallback: 'LUKS_STATUS_FAILED' });
  const ephemeralKey = facts.get('kept')?.[0] === '1';
  const mapping = toMapping(facts);
  if (mapping !== undefined) return { state: 'open', ephemeralKey, mapping, mountedAt: mountPointsLeft(facts) };
  // Printed last; what remains of dm-integrity alone is not closed either.
  const lower = facts.get('lower')?.[0];
  if (lower !== '') throw refusal('LUKS_STATUS_FAILED', { identity: disk }, lower ?? 'no result');
  return { state: 'closed', ephemeralKey };
}

export interface ResizeLuks2Request extends LuksDisk {
  /** What the disk has, once it has grown: waited for. */
  readonly diskBytes: number;
  /** Where a file system has to be mounted from it; undefined: none has to be. */
  readonly mountPoint: string | undefined;
  /** The kernel does not give its copy back, so the key is needed again. */
  readonly key: LuksKey;
  readonly timeoutMs: number;
}

/**
 * After the disk has grown: lets the mapping, and the file system that is mounted from it, fill the disk.
 * @returns the mapping's size, and the file system that was grown (undefined: none is mounted)
 * @throws ShimError FAILED_PRECONDITION: LUKS_NOT_OPEN, VOLUME_NOT_MOUNTED, LUKS_WRONG_KEY, LUKS_DEVICE_TRUNCATED,
 * LUKS_RESIZE_FAILED, LUKS_NAME_IN_USE, GUEST_DISK_NOT_FOUND, GUEST_DISK_MISMATCH; UNIMPLEMENTED:
 * LUKS_RESIZE_UNSUPPORTED (with integrity), GUEST_TOOL_MISSING; INVALID_ARGUMENT; and what GuestAgent.exec throws
 */
export async function resizeLuks2(
  agent: GuestAgent,
  request: ResizeLuks2Request,
): Promise<{ readonly sizeBytes: number; readonly grown?: string }> {
  const { name, key, diskBytes, mountPoint, timeoutMs } = request;
  checkName(name);
  const facts = await withKey(key, (input) =>
    runScript(agent, RESIZE_LUKS2, {
      identity: request,
      ...(mountPoint !== undefined && { mountPoint }),
      args: [name, ...keyArguments(key), String(diskBytes / SECTOR_BYTES), pointArgument(mountPoint)],
      ...input,
      timeoutMs,
      fallback: 'LUKS_RESIZE_FAILED',
    }),
  );
  const sectors = Number(facts.get('sectors')?.[0]);
  if (!Number.isInteger(sectors)) throw refusal('LUKS_RESIZE_FAILED', { identity: request }, 'no result');
  const grown = facts.get('grown')?.[0];
  return { sizeBytes: sectors * SECTOR_BYTES, ...(grown !== undefined && grown !== '' && { grown }) };
}

function checkName(name: string): void {
  const plain = /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && name.length <= NAME_LENGTH_MAX;
  if (!plain || name.endsWith('_dif')) {
    throw invalidArgument('name', name, 'is not the name of a mapping', 'INVALID_MAPPING_NAME');
  }
}

/** What the scripts are told of the key: its kind and its length, never more. */
function keyArguments(key: LuksKey): readonly string[] {
  return [key.kind, String(key.kind === 'provided' ? key.material.length : 0)];
}

/** Runs `work` with the key's bytes for standard input, once for each cryptsetup that reads them; zeroed afterwards. */
async function withKey<T>(key: LuksKey, work: (input: { readonly input?: Buffer }) => Promise<T>): Promise<T> {
  if (key.kind === 'ephemeral') return await work({});
  const { length } = key.material;
  if (length === 0 || length > LUKS_KEY_BYTES_MAX) {
    throw invalidArgument('key', `${length} bytes`, `a key has 1 to ${LUKS_KEY_BYTES_MAX} bytes`, 'INVALID_KEY_LENGTH');
  }
  // Not from the pool, whose pages hold other things too.
  const input = Buffer.alloc(length * KEY_COPIES);
  try {
    for (let copy = 0; copy < KEY_COPIES; copy += 1) key.material.copy(input, copy * length);
    return await work({ input });
  } finally {
    input.fill(0);
  }
}

/**
 * From the line of `dmsetup table` (kernel: admin-guide/device-mapper/dm-crypt): start, sectors, `crypt`, cipher, key
 * or its reference, IV offset, device, offset, count and names of options.
 */
function toMapping(facts: Facts): Luks2Mapping | undefined {
  const [device] = facts.get('mapped') ?? [];
  const [table] = facts.get('table') ?? [];
  if (device === undefined || table === undefined) return undefined;
  const [, sectors, target, cipher = '', , , , , , ...options] = table.trim().split(/\s+/);
  if (target !== 'crypt') return undefined;
  const sectorSize = options.find((option) => option.startsWith('sector_size:'))?.slice('sector_size:'.length);
  return {
    device,
    cipher: cipherName(cipher),
    sectorSize: sectorSize === undefined ? SECTOR_BYTES : wholeNumber(sectorSize),
    integrity: options.some((option) => option.startsWith('integrity:')),
    readOnly: facts.get('readonly')?.[0] === '1',
    sizeBytes: wholeNumber(sectors) * SECTOR_BYTES,
    keySlots: wholeNumber(facts.get('slots')?.[0]),
    uuid: facts.get('luks_uuid')?.[0] ?? '',
  };
}

/** @throws ShimError UNAVAILABLE / GUEST_AGENT_GARBAGE for anything else: it would end up in the journal */
function wholeNumber(text: string | undefined): number {
  if (text !== undefined && /^\d{1,12}$/.test(text)) return Number(text);
  throw new ShimError('UNAVAILABLE', `the guest says ${JSON.stringify(text)} where a whole number belongs`, {
    reason: 'GUEST_AGENT_GARBAGE',
  });
}

/** `capi:authenc(hmac(sha256),xts(aes))-plain64` is the kernel's way to say aes-xts-plain64 with hmac-sha256. */
function cipherName(cipher: string): string {
  const [, mode = '', name = '', iv = ''] = /^capi:authenc\([^,]+,(\w+)\((\w+)\)\)-(.+)$/.exec(cipher) ?? [];
  return mode === '' ? cipher : `${name}-${mode}-${iv}`;
}
