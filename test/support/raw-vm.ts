import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bareQemuBinary, bareQemuMissing } from './bare-qemu.ts';
import { INITRD, KERNEL } from './guest-image.ts';

/**
 * QEMU started directly, with nothing of qshim in between: for tests of parts that need a real guest but no daemon.
 * Uses the reference guest of `npm run guest`.
 */

/** Why such a VM cannot run here, or false: what node:test takes as `skip`. */
export function rawVmMissing(): string | false {
  const missing = bareQemuMissing();
  if (missing !== false) return missing;
  return existsSync(KERNEL) && existsSync(INITRD) ? false : 'the reference guest is missing: run `npm run guest`';
}

export interface RawDisk {
  readonly serial: string;
  /** The slot on PCI bus 0, 3 to 0x1d. */
  readonly slot: number;
  readonly bytes: number;
  /** What the disk begins with; the rest is a hole. */
  readonly content?: readonly { readonly offset: number; readonly bytes: Buffer }[];
  readonly readOnly?: boolean;
}

export interface RawVmOptions {
  readonly disks?: readonly RawDisk[];
}

/** A running VM; disposing kills it and removes its files. */
export interface RawVm extends AsyncDisposable {
  /** The socket of the guest agent's chardev. */
  readonly agentPath: string;
  readonly pid: number;
  /** The guest's console so far. */
  console(): Promise<string>;
  diskPath(serial: string): string;
}

/** Starts QEMU (q35, TCG, 512 MiB, 2 vCPUs); returns when its process runs, long before the guest is up. */
export async function startRawVm(options: RawVmOptions = {}): Promise<RawVm> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-raw-vm-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const agentPath = join(directory, 'agent.sock');
  const consolePath = join(directory, 'console.log');
  const diskPath = (serial: string): string => join(directory, `${serial}.img`);
  const diskArguments: string[] = [];
  for (const [index, disk] of (options.disks ?? []).entries()) {
    await makeDisk(diskPath(disk.serial), disk);
    const readOnly = disk.readOnly === true ? 'on' : 'off';
    diskArguments.push(
      ...['-blockdev', `driver=file,node-name=disk${index},filename=${diskPath(disk.serial)},read-only=${readOnly}`],
      ...['-device', `virtio-blk-pci,drive=disk${index},serial=${disk.serial},addr=0x${disk.slot.toString(16)}`],
    );
  }
  const child = spawn(
    bareQemuBinary,
    [
      ...['-machine', 'q35', '-accel', 'tcg', '-cpu', 'max', '-m', '512', '-smp', '2'],
      ...['-nodefaults', '-no-user-config', '-display', 'none'],
      ...['-kernel', KERNEL, '-initrd', INITRD, '-append', 'console=ttyS0 quiet panic=-1'],
      ...['-serial', `file:${consolePath}`],
      ...['-device', 'virtio-serial-pci,addr=0x2'],
      ...['-chardev', `socket,id=agent,path=${agentPath},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
      ...diskArguments,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  await once(child, 'spawn');
  const exited = once(child, 'exit');
  stack.defer(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const owned = stack.move();
  return {
    agentPath,
    pid: child.pid ?? -1,
    console: () => readFile(consolePath, 'utf8'),
    diskPath,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function makeDisk(path: string, disk: RawDisk): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(disk.bytes);
  for (const { offset, bytes } of disk.content ?? []) await file.write(bytes, 0, bytes.length, offset);
}
