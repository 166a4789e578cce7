import { z } from 'zod';
import { ShimError } from '../base/errors.ts';

/** The shapes of QGA's replies (qga/qapi-schema.json). A guest may answer anything: nothing is used unchecked. */

/** Where a disk's controller sits, as QGA's GuestPCIAddress. */
export interface PciAddress {
  readonly domain: number;
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
}

/** A disk or partition that the guest's kernel knows. */
export interface GuestDisk {
  /** The device node, `/dev/vda`. */
  readonly name: string;
  readonly partition: boolean;
  /** Absent when the disk is no PCI device, or the agent cannot tell. */
  readonly pci?: PciAddress;
  /** The agent asks udev for it: absent in a guest without udev. */
  readonly serial?: string;
}

/** A mounted filesystem that lies on disks. */
export interface GuestMount {
  readonly mountPoint: string;
  readonly fsType: string;
  /** The kernel's name of the device, without `/dev/`. */
  readonly device: string;
  readonly disks: readonly { readonly pci?: PciAddress; readonly name?: string }[];
}

const pciController = z.object({ domain: z.int(), bus: z.int(), slot: z.int(), function: z.int() });

const diskAddress = z.object({
  'pci-controller': pciController,
  serial: z.string().max(256).optional(),
  dev: z.string().max(4096).optional(),
});

export const INFO = z.object({
  version: z.string().max(256),
  supported_commands: z.array(z.object({ name: z.string().max(256), enabled: z.boolean() })).max(1000),
});

export const DISKS = z
  .array(z.object({ name: z.string().max(4096), partition: z.boolean(), address: diskAddress.optional() }))
  .max(4096);

export const MOUNTS = z
  .array(
    z.object({
      name: z.string().max(4096),
      mountpoint: z.string().max(4096),
      type: z.string().max(256),
      disk: z.array(diskAddress).max(4096),
    }),
  )
  .max(4096);

export const FILE_HANDLE = z.int();

export const FILE_READ = z.object({ 'buf-b64': z.string().max(8192) });

export const EXEC = z.object({ pid: z.int().positive() });

export const EXEC_STATUS = z.object({
  exited: z.boolean(),
  exitcode: z.int().optional(),
  signal: z.int().optional(),
  // Base64. Not checked by a regular expression: this can be 21 MB.
  'out-data': z.string().optional(),
  'err-data': z.string().optional(),
  'out-truncated': z.boolean().optional(),
  'err-truncated': z.boolean().optional(),
});

/** Checks a reply's shape. @throws ShimError UNAVAILABLE / GUEST_AGENT_GARBAGE */
export function parseAs<T>(schema: z.ZodType<T>, command: string, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.join('.') ?? '';
  throw new ShimError('UNAVAILABLE', `the guest agent's reply to ${command} has no usable ${where || 'value'}`, {
    reason: 'GUEST_AGENT_GARBAGE',
    metadata: { command, field: where },
  });
}

export function toDisk(disk: z.infer<typeof DISKS>[number]): GuestDisk {
  const pci = toPci(disk.address);
  const serial = disk.address?.serial;
  return {
    name: disk.name,
    partition: disk.partition,
    ...(pci && { pci }),
    ...(serial !== undefined && { serial }),
  };
}

export function toMount(mount: z.infer<typeof MOUNTS>[number]): GuestMount {
  const disks = mount.disk.map((address) => {
    const pci = toPci(address);
    return { ...(pci && { pci }), ...(address.dev !== undefined && { name: address.dev }) };
  });
  return { mountPoint: mount.mountpoint, fsType: mount.type, device: mount.name, disks };
}

/** QGA writes -1 everywhere for a disk that it cannot place. */
function toPci(address: z.infer<typeof diskAddress> | undefined): PciAddress | undefined {
  const pci = address?.['pci-controller'];
  return pci === undefined || pci.domain < 0 || pci.bus < 0 || pci.slot < 0 ? undefined : pci;
}
