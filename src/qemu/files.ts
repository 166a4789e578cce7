import { join } from 'node:path';

/** Paths of everything that QEMU makes for one sandbox, all inside its state directory. */
export interface SandboxFiles {
  readonly directory: string;
  readonly qmpSocket: string;
  /** A second monitor for people; a second client on the first one would hang without a greeting. */
  readonly spareSocket: string;
  readonly agentSocket: string;
  /** Behind the port on which the guest's kernel announces its devices. */
  readonly ueventSocket: string;
  readonly consoleLog: string;
  readonly qemuLog: string;
  /** Which fences were begun (volume/fence.ts). */
  readonly fences: string;
}

/** Paths inside a sandbox's state directory. */
export function sandboxFiles(directory: string): SandboxFiles {
  return {
    directory,
    qmpSocket: join(directory, 'qmp.sock'),
    spareSocket: join(directory, 'spare.sock'),
    agentSocket: join(directory, 'qga.sock'),
    ueventSocket: join(directory, 'uevents.sock'),
    consoleLog: join(directory, 'console.log'),
    qemuLog: join(directory, 'qemu.log'),
    fences: join(directory, 'fences.json'),
  };
}
