import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Encryption } from '../../src/grpc/generated/qshim/v1/Encryption.ts';
import type { GuestLuks2 } from '../../src/grpc/generated/qshim/v1/GuestLuks2.ts';
import type { HostLuks } from '../../src/grpc/generated/qshim/v1/HostLuks.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { TestDaemon, type DaemonOptions } from './daemon.ts';
import { qemuInventory } from './leaks.ts';

export const MIB = 1024 * 1024;

export const mountAt = (mountPoint: string, fsType = 'ext4'): NonNullable<VolumeSpec['mount']> => ({
  fsType,
  mountPoint,
  options: [],
  format: 'FORMAT_IF_EMPTY',
});
export const hostLuks = (luks: HostLuks): { readonly encryption: Encryption } => ({
  encryption: { hostLuks: { format: 'FORMAT_IF_EMPTY', iterationMs: 50, ...luks } },
});
export const guestLuks2 = (luks: GuestLuks2): { readonly encryption: Encryption } => ({
  encryption: { guestLuks2: { mode: 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY', ...luks } },
});

/** A daemon with one sandbox, "vm", for tests of encrypted volumes. */
export class ConfidentialRig implements AsyncDisposable {
  daemon: TestDaemon;

  private constructor(daemon: TestDaemon) {
    this.daemon = daemon;
  }

  static async start(options: DaemonOptions = {}): Promise<ConfidentialRig> {
    await using stack = new AsyncDisposableStack();
    const daemon = stack.use(await TestDaemon.start(options));
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
    stack.move();
    return new ConfidentialRig(daemon);
  }

  async attach(volumeId: string, spec: VolumeSpec): Promise<Volume__Output> {
    return await this.daemon.client.attach({ sandboxId: 'vm', volumeId, spec });
  }

  async detach(volumeId: string): Promise<Volume__Output> {
    return await this.daemon.client.detach({ sandboxId: 'vm', volumeId });
  }

  async guest(script: string, input?: Buffer): Promise<string> {
    return await this.daemon.client.guest('vm', script, input);
  }

  /** What of volumes QEMU and the guest still have: all of it empty when nothing is attached. */
  async left(sandboxId = 'vm'): Promise<{ readonly qemu: readonly string[]; readonly guest: string }> {
    const { client } = this.daemon;
    const { qemuPid, stateDir } = await client.getSandbox(sandboxId);
    const { blockNodes, objects, peripherals } = await qemuInventory(stateDir, qemuPid);
    const qemu = [...blockNodes, ...objects, ...peripherals].filter((name) => name.startsWith('vol-'));
    const script = 'ls /dev/mapper 2> /dev/null | grep -v control; grep -E " /mnt/" /proc/mounts; true';
    return { qemu, guest: await client.guest(sandboxId, script) };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.daemon[Symbol.asyncDispose]();
  }
}

export const NOTHING_LEFT = { qemu: [], guest: '' };

export async function readAt(path: string, offset: number, bytes: number): Promise<Buffer> {
  await using file = await open(path, 'r');
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await file.read(buffer, 0, bytes, offset);
  return buffer.subarray(0, bytesRead);
}

export async function writeAt(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
  await file.sync();
}

export async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
