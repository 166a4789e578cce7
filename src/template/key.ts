import { createHash } from 'node:crypto';
import type { FileIdentity } from '../qemu/file-identity.ts';
import { qemuArguments, type Launch } from '../qemu/argv.ts';

/** Raised whenever a template of an earlier qshim must not be used by this one: what is saved, or how, has changed. */
export const TEMPLATE_FORMAT = 2;

/** Everything that a template depends on. */
export interface TemplateInputs {
  /** How a VM of this kind is launched. Its id, UUID and paths do not matter; all else does. */
  readonly launch: Omit<Launch, 'sandboxId' | 'uuid' | 'files' | 'memory'>;
  readonly qemu: FileIdentity;
  /** What the binary calls itself, with its package. */
  readonly qemuVersion: string;
  readonly kernel: FileIdentity;
  readonly initrd: FileIdentity;
  readonly qshimVersion: string;
  /** /proc/sys/kernel/random/boot_id of the host: its CPU, kernel and libraries may be others after a boot. */
  readonly hostBoot: string;
}

/**
 * The name of the template for these inputs: 64 hexadecimal digits. Inputs that differ in anything have different keys,
 * because the whole command line is part of it: an option that is added to it one day cannot be forgotten here.
 */
export function templateKey(inputs: TemplateInputs): string {
  const { launch, ...rest } = inputs;
  const everywhere = '/';
  const commandLine = qemuArguments({
    ...launch,
    sandboxId: '',
    uuid: '',
    files: {
      directory: everywhere,
      qmpSocket: everywhere,
      spareSocket: everywhere,
      agentSocket: everywhere,
      ueventSocket: everywhere,
      consoleLog: everywhere,
      qemuLog: everywhere,
      fences: everywhere,
    },
    memory: { kind: 'template', identitySocket: everywhere },
  });
  const facts = {
    format: TEMPLATE_FORMAT,
    commandLine,
    qemu: fileFacts(rest.qemu),
    qemuVersion: rest.qemuVersion,
    kernel: fileFacts(rest.kernel),
    initrd: fileFacts(rest.initrd),
    qshimVersion: rest.qshimVersion,
    hostBoot: rest.hostBoot,
  };
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex');
}

/** True when both tell of one file in one version. */
export function sameFile(one: FileIdentity, other: FileIdentity): boolean {
  return JSON.stringify(fileFacts(one)) === JSON.stringify(fileFacts(other));
}

function fileFacts({ path, device, inode, bytes, modifiedNs }: FileIdentity): readonly string[] {
  return [path, device, inode, bytes, modifiedNs];
}
