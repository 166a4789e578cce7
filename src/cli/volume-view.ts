/** Volumes as people see them. */
import { moduleByMessageName } from '../volume/source/registry.ts';
import type { Volume__Output as Volume } from '../grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec__Output as VolumeSpec } from '../grpc/generated/qshim/v1/VolumeSpec.ts';
import { visible } from '../base/visible.ts';
import { leaseText } from './leases.ts';
import { table } from './table.ts';
import { timingsSheet } from './timings-view.ts';
import {
  bytesText,
  causeText,
  countOrNothing,
  enumWord,
  NOTHING,
  orNothing,
  timestampOrNothing,
  timingsText,
} from './values.ts';

const state = (volume: Volume): string => enumWord('VOLUME_STATE_', volume.state);

export function volumeTable(volumes: readonly Volume[], widthMax: number | undefined): string {
  const head = ['SANDBOX', 'VOLUME', 'STATE', 'DEVICE', 'SIZE', 'SERIAL', 'MOUNT', 'SOURCE', 'CAUSE'];
  const rows = volumes.map((volume) => [
    visible(volume.sandboxId),
    visible(volume.volumeId),
    state(volume),
    orNothing(volume.guestDevice),
    sizeText(volume),
    orNothing(volume.serial),
    unlessRemoved(volume, orNothing(volume.spec?.mount?.mountPoint)),
    sourceText(volume.spec),
    causeText(volume.cause),
  ]);
  return table(head, rows, widthMax);
}

export function volumeSheet(volume: Volume, widthMax: number | undefined): string {
  const { spec } = volume;
  const rows = [
    ['volume', visible(volume.volumeId)],
    ['sandbox', visible(volume.sandboxId)],
    ['state', state(volume)],
    ['cause', causeText(volume.cause)],
    ['evidence', orNothing(volume.evidence.join(', '))],
    ['generation', String(volume.generation)],
    ['source', resolvedText(volume)],
    ['access', spec?.readOnly === true ? 'read only' : 'read and write'],
    ['size', sizeText(volume)],
    ['serial', orNothing(volume.serial)],
    ['guest device', orNothing(volume.guestDevice)],
    ['encryption', encryptionText(volume)],
    ['key', keyText(spec)],
    ['guest PCI address', orNothing(volume.guestPciAddress)],
    ['PCI path', unlessRemoved(volume, orNothing(volume.pciPath))],
    ['mount', unlessRemoved(volume, mountText(spec, volume.formatted))],
    ['cache', enumWord('CACHE_MODE_', spec?.cache ?? '')],
    ['aio', enumWord('AIO_MODE_', volume.aio)],
    ['discard', enumWord('DISCARD_MODE_', spec?.discard ?? '')],
    ['detect zeroes', enumWord('DETECT_ZEROES_', spec?.detectZeroes ?? '')],
    ['write errors', enumWord('IO_ERROR_POLICY_', spec?.writeErrors ?? '')],
    ['read errors', enumWord('IO_ERROR_POLICY_', spec?.readErrors ?? '')],
    ['limits', limitsText(volume)],
    ['health', healthText(volume)],
    ['lease', unlessRemoved(volume, leaseText(volume.lease))],
    ['queues', countOrNothing(spec?.queues ?? 0)],
    ['interrupts', enumWord('INTERRUPT_MODE_', volume.interrupts)],
    ['iothreads', orNothing(volume.iothreads.join(', '))],
    ['block sizes', `logical ${blockSize(spec?.logicalBlockSize)}, physical ${blockSize(spec?.physicalBlockSize)}`],
    ['pending', timestampOrNothing(volume.pendingAt)],
    ['attached', timestampOrNothing(volume.attachedAt)],
    ['detaching', timestampOrNothing(volume.detachingAt)],
    ['removed', timestampOrNothing(volume.removedAt)],
  ];
  return table([], rows, widthMax) + timingsSheet(volume.timings);
}

/** What a removed volume had is not there any more. */
function unlessRemoved({ state: is }: Volume, text: string): string {
  return is === 'VOLUME_STATE_REMOVED' ? NOTHING : text;
}

function healthText({ health }: Volume): string {
  if (health === null || health.errors === 0) return 'no errors seen';
  const last = `last: ${visible(health.lastOperation)}, ${visible(health.lastMessage)}, action ${visible(health.lastAction)}`;
  return `${health.failing ? 'failing' : 'recovered'}, ${health.errors} errors seen, ${last}`;
}

const LIMITED = ['iops', 'iopsRead', 'iopsWrite', 'bps', 'bpsRead', 'bpsWrite'] as const;

/** As QEMU was seen to have them. */
function limitsText({ limits }: Volume): string {
  if (limits === null) return 'none';
  const rate = (kind: (typeof LIMITED)[number], value: number): string =>
    kind.startsWith('bps') ? `${bytesText(value)}/s` : `${value}/s`;
  const parts = LIMITED.filter((kind) => limits[kind] > 0).map((kind) => {
    const [max, seconds] = [limits[`${kind}Max`], limits[`${kind}MaxLengthS`]];
    const burst = max === 0 ? '' : ` (${rate(kind, max)} for ${seconds} s)`;
    return `${kind.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} ${rate(kind, limits[kind])}${burst}`;
  });
  if (parts.length === 0) return 'none';
  if (limits.iopsSize > 0) parts.push(`${bytesText(limits.iopsSize)} count as one operation`);
  if (limits.budget !== '') parts.push(`by budget ${visible(limits.budget)}, share ${limits.share}`);
  if (limits.group !== '') parts.push(`shared in group ${visible(limits.group)}`);
  return parts.join(', ');
}

/** One line after the limits were set. */
export function limitsSummary(volume: Volume): string {
  return `${visible(volume.volumeId)} of ${visible(volume.sandboxId)}: limits ${limitsText(volume)}`;
}

/** One line after attach and detach. After what has no phases of its own, those of the attach are no news. */
export function volumeSummary(volume: Volume, options = { timings: true }): string {
  const parts = [state(volume)];
  if (volume.state === 'VOLUME_STATE_ATTACHED') {
    if (volume.guestDevice !== '') parts.push(`as ${visible(volume.guestDevice)}`);
    parts.push(sizeText(volume), `seen by ${orNothing(volume.evidence.join(' and '))}`);
    const mountPoint = volume.spec?.mount?.mountPoint;
    if (mountPoint !== undefined && volume.evidence.includes('guest-mount'))
      parts.push(`mounted on ${visible(mountPoint)}`);
  }
  if (volume.lease !== null) parts.push(`lease ${leaseText(volume.lease)}`);
  if (causeText(volume.cause) !== NOTHING) parts.push(causeText(volume.cause));
  if (options.timings && volume.timings.length > 0) parts.push(timingsText(volume.timings));
  return `${visible(volume.volumeId)} of ${visible(volume.sandboxId)}: ${parts.join(', ')}`;
}

/** What protects whom is in the kind's name; what was seen of it comes behind. */
function encryptionText({ spec, encryption }: Volume): string {
  const wanted = spec?.encryption;
  if (!wanted) return 'none';
  const kind = wanted.hostLuks ? 'host-luks (at rest)' : 'guest-luks2 (confidential)';
  if (encryption === null) return kind;
  const slots = encryption.keySlots === 1 ? '1 key slot in use' : `${encryption.keySlots} key slots in use`;
  const parts = [
    visible(encryption.format),
    visible(encryption.cipher),
    `sectors of ${encryption.sectorSize}`,
    encryption.integrity ? 'with integrity' : 'without integrity',
    slots,
    ...(encryption.uuid === '' ? [] : [`UUID ${visible(encryption.uuid)}`]),
    ...(encryption.mappedDevice === '' ? [] : [`as ${visible(encryption.mappedDevice)}`]),
    ...(encryption.created ? ['made by this attach'] : []),
  ];
  return `${kind}: ${parts.join(', ')}`;
}

function keyText(spec: VolumeSpec | null): string {
  const wanted = spec?.encryption;
  if (wanted?.guestLuks2?.ephemeralKey) return 'ephemeral, in the guest only';
  const reference = wanted?.hostLuks?.key ?? wanted?.guestLuks2?.providedKey;
  switch (reference?.source) {
    case 'file':
      return `file:${visible(reference.file ?? '')}`;
    case 'systemdCredential':
      return `credential:${visible(reference.systemdCredential ?? '')}`;
    case 'environment':
      return `env:${visible(reference.environment ?? '')}`;
    case 'command':
      return `command:${visible(reference.command ?? '')}`;
    case 'tang':
      return `tang:${visible(reference.tang ?? '')}`;
    default:
      return NOTHING;
  }
}

function sizeText(volume: Volume): string {
  return volume.sizeBytes === 0 ? NOTHING : bytesText(volume.sizeBytes);
}

function blockSize(bytes: number | undefined): string {
  return bytes === undefined || bytes === 0 ? NOTHING : String(bytes);
}

function sourceText(spec: VolumeSpec | null): string {
  const module = spec?.source === undefined ? undefined : moduleByMessageName(spec.source);
  const message = spec?.source === undefined ? undefined : spec[spec.source];
  return module === undefined || !message ? NOTHING : visible(module.command.show(message));
}

/** Where the name leads to another one, through symbolic links, that one as well. */
function resolvedText({ spec, resolvedSource }: Volume): string {
  const named = sourceText(spec);
  const resolved = visible(resolvedSource);
  return resolved === '' || named.endsWith(` ${resolved}`) ? named : `${named} -> ${resolved}`;
}

function mountText(spec: VolumeSpec | null, formatted: boolean): string {
  const mount = spec?.mount;
  if (mount === null || mount === undefined) return NOTHING;
  const options = mount.options.length === 0 ? '' : ` (${visible(mount.options.join(','))})`;
  const part = mount.partition === 0 ? '' : `partition ${mount.partition}, `;
  const checked = mount.fsck === 'FSCK_NEVER' ? '' : `, fsck ${enumWord('FSCK_', mount.fsck)}`;
  const made = formatted ? ', made by this attach' : '';
  return `${part}${visible(mount.fsType)} on ${visible(mount.mountPoint)}${options}${checked}${made}`;
}
