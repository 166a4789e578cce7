/**
 * The checks of `qshim doctor` that look at this host. Each tries the thing instead of guessing from what is installed.
 *
 *     cli-main.ts ─▶ examineHost ─▶ qemu-checks.ts, command-checks.ts, ─▶ findings (finding.ts)
 *                │                  confine-checks.ts, folder-checks.ts, resource-checks.ts
 *                └─▶ examineContainerd (containerd-checks.ts)
 */
import type { Logger } from '../base/log.ts';
import type { Finding } from './finding.ts';
import { checkCommands } from './command-checks.ts';
import { checkConfinement } from './confine-checks.ts';
import { checkAllowedRoots, checkFolderLock, checkPrivateFolder, checkReadableFile } from './folder-checks.ts';
import { checkAio, checkAllocator, checkKvm, checkQemu } from './qemu-checks.ts';
import { checkLoopDevices, checkMemory } from './resource-checks.ts';

/** What the daemon would work with; from its configuration. */
export interface HostOptions {
  readonly qemuBinary: string;
  readonly qemuAllocator: string;
  readonly confine: 'full' | 'degraded' | 'off';
  /** FIRST-LAST. */
  readonly confineUids: string;
  readonly kernel: string;
  readonly initrd: string;
  readonly stateDir: string;
  readonly socketDir: string;
  readonly allowedRoots: readonly string[];
  /** MiB of guest memory of a sandbox that names none. */
  readonly memoryMib: number;
  readonly kvmProbeTimeoutMs: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Examines the host, one check after the other: KVM is tried under a time limit, and company would slow it down.
 * Rejects only with the signal's reason; whatever else goes wrong is a finding.
 */
export async function examineHost(options: HostOptions): Promise<Finding[]> {
  const image = 'make the guest image with `npm run guest`, or name yours with the options kernel and initrd';
  const qemu = await checkQemu(options.qemuBinary);
  options.signal.throwIfAborted();
  const findings = [...qemu.findings, ...(qemu.runs ? await checkCommands(options) : [])];
  options.signal.throwIfAborted();
  const checks = [
    ...(qemu.runs
      ? [
          () => checkAllocator(options),
          () => checkKvm(options),
          () => checkAio(options),
          () => checkConfinement(options),
        ]
      : []),
    () => checkReadableFile('guest kernel', options.kernel, image),
    () => checkReadableFile('guest initrd', options.initrd, image),
    () => checkPrivateFolder('state folder', options.stateDir, 'state_dir'),
    () => checkPrivateFolder('socket folder', options.socketDir, 'socket'),
    () => checkFolderLock(options.stateDir),
    () => checkAllowedRoots(options.allowedRoots),
    () => checkMemory(options.memoryMib),
    () => checkLoopDevices(),
  ];
  for (const check of checks) {
    findings.push(await check());
    options.signal.throwIfAborted();
  }
  return findings;
}
