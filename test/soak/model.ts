import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import type { Answer } from './answers.ts';

/** Bytes that one write puts on a volume. */
export const BLOCK_BYTES = 65_536;
const MOUNTED_BYTES = 8 * 1024 * 1024;

/** A volume's file and what the harness put on it. */
export interface VolumeFile {
  /** Volume id and serial. */
  readonly id: string;
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  /** Where it is mounted whenever it is attached; undefined for volumes that are used as plain disks. */
  readonly mountPoint: string | undefined;
  /** Plain disks: every byte as it must be. */
  readonly mirror: Buffer;
  /** Mounted ones: SHA-256 of each file by its name. */
  readonly files: Map<string, string>;
  /** True when its last unmount was seen to be done, so that all of it lies in the file without the journal's help. */
  unmounted: boolean;
}

/** Where a thing may be after what was asked and answered; more than one while nobody has told. */
export type Expected<T> = ReadonlySet<T>;

export interface Attachment {
  readonly file: VolumeFile;
  readonly readOnly: boolean;
  expected: Expected<'attached' | 'removed'>;
  /** Its file system is mounted, if it is to have one: since the attach, unless the guest has rebooted. */
  mounted: boolean;
}

export type SandboxFate = 'absent' | 'running' | 'stopped';

/** What the harness expects of one sandbox. */
export class SandboxModel {
  readonly id: string;
  expected: Expected<SandboxFate> = new Set(['absent']);
  /** The guest's boot_id; undefined when the next one seen is the right one. */
  bootId: string | undefined;
  /** QEMU's pid; undefined when the next one seen is the right one. */
  pid: number | undefined;
  /** What the VM has besides volumes, as it was when it was first looked at. */
  baseline: string | undefined;
  readonly attachments = new Map<string, Attachment>();

  constructor(id: string) {
    this.id = id;
  }

  get runs(): boolean {
    return this.expected.size === 1 && this.expected.has('running');
  }

  isAttached(file: VolumeFile): boolean {
    return this.attachments.get(file.id)?.expected.has('attached') === true;
  }

  /** The VM is gone, or will be another one: with it go all attachments, and file systems are left as they were. */
  vmEnds(expected: readonly SandboxFate[]): void {
    this.expected = new Set(expected);
    const certain = !this.expected.has('running');
    for (const attachment of this.attachments.values()) {
      attachment.expected = certain ? new Set(['removed']) : new Set([...attachment.expected, 'removed']);
    }
    if (!certain) return;
    this.pid = undefined;
    this.bootId = undefined;
    this.baseline = undefined;
  }

  /** The guest boots anew on the same QEMU: volumes stay, mounts do not. */
  guestReboots(): void {
    this.bootId = undefined;
    for (const attachment of this.attachments.values()) attachment.mounted = false;
  }
}

/** Makes the files: raw, qcow2, raw with a file system, raw, and so on. */
export async function makeFiles(directory: string, count: number, plainBytes: number): Promise<readonly VolumeFile[]> {
  const indices = Array.from({ length: count }, (_, index) => index);
  return await Promise.all(
    indices.map((index) => {
      if (index % 4 === 2) return makeFile(directory, index, { format: 'raw', bytes: MOUNTED_BYTES, mounted: true });
      return makeFile(directory, index, {
        format: index % 4 === 1 ? 'qcow2' : 'raw',
        bytes: plainBytes,
        mounted: false,
      });
    }),
  );
}

/** Makes raw files only, for plain disks. */
export async function makePlainFiles(directory: string, count: number, bytes: number): Promise<readonly VolumeFile[]> {
  const indices = Array.from({ length: count }, (_, index) => index);
  return await Promise.all(
    indices.map((index) => makeFile(directory, index, { format: 'raw', bytes, mounted: false })),
  );
}

async function makeFile(
  directory: string,
  index: number,
  shape: { readonly format: 'raw' | 'qcow2'; readonly bytes: number; readonly mounted: boolean },
): Promise<VolumeFile> {
  const { format, bytes, mounted } = shape;
  const id = `v${String(index).padStart(2, '0')}`;
  const path = join(directory, `${id}.${format}`);
  if (format === 'qcow2') await execa('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(bytes)]);
  else {
    await using file = await open(path, 'w');
    await file.truncate(bytes);
  }
  const mountPoint = mounted ? `/mnt/${id}` : undefined;
  return {
    id,
    path,
    format,
    mountPoint,
    mirror: Buffer.alloc(mounted ? 0 : bytes),
    files: new Map(),
    unmounted: false,
  };
}

/** The spec that every attach of this file asks for; the same words each time, so that repeats are repeats. */
export function specOf(file: VolumeFile, readOnly: boolean): VolumeSpec {
  const source = file.format === 'qcow2' ? { qcow2File: { path: file.path } } : { rawFile: { path: file.path } };
  const { mountPoint } = file;
  if (mountPoint === undefined) return { ...source, readOnly };
  return { ...source, readOnly, mount: { fsType: 'ext4', mountPoint, format: 'FORMAT_IF_EMPTY' } };
}

/** What an attach changes, by its answer. */
export function afterAttach(sandbox: SandboxModel, file: VolumeFile, readOnly: boolean, answer: Answer<unknown>): void {
  if (sandbox.isAttached(file)) return; // A repeat, or a refusal: neither changes anything.
  if (answer.kind === 'refused') return;
  const expected: Expected<'attached' | 'removed'> =
    answer.kind === 'ok' ? new Set(['attached']) : new Set(['attached', 'removed']);
  sandbox.attachments.set(file.id, { file, readOnly, expected, mounted: file.mountPoint !== undefined });
  file.unmounted = false;
}

/** What a detach changes, by its answer. */
export function afterDetach(sandbox: SandboxModel, file: VolumeFile, force: boolean, answer: Answer<unknown>): void {
  const attachment = sandbox.attachments.get(file.id);
  if (attachment === undefined || !sandbox.isAttached(file) || answer.kind === 'refused') return;
  attachment.expected = answer.kind === 'ok' ? new Set(['removed']) : new Set(['attached', 'removed']);
  file.unmounted = attachment.mounted && answer.kind === 'ok' && !force;
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
