import { createHash } from 'node:crypto';
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

/** Where all sandboxes have their directories, and nothing else is. */
const SANDBOXES_DIRECTORY = '.sandboxes';

/**
 * In a sandbox's directory that was moved while its QEMU ran: the path that QEMU's command line has. Its sockets have
 * moved along.
 */
export const MOVED_FROM_FILE = 'moved-from';

/**
 * 132 bits: nobody finds two ids of one name. As long as the path of the longest socket below the longest state
 * directory allows (config.ts).
 */
const DIRECTORY_NAME_CHARS = 22;

/** The directory of all sandboxes' directories. */
export function sandboxesDirectory(stateDir: string): string {
  return join(stateDir, SANDBOXES_DIRECTORY);
}

/**
 * A sandbox's state directory. Its name is a hash of the id, always: whatever ids callers choose, it is no other name
 * of the daemon's, and no other sandbox's.
 */
export function sandboxDirectory(stateDir: string, sandboxId: string): string {
  const name = createHash('sha256').update(sandboxId).digest('base64url').slice(0, DIRECTORY_NAME_CHARS);
  return join(sandboxesDirectory(stateDir), name);
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
