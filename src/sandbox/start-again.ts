import { mkdir } from 'node:fs/promises';
import { messageOf } from '../base/errors.ts';
import type { Cause } from '../volume/model/state.ts';
import { makeSandbox, type SandboxEnvironment } from './environment.ts';
import type { Sandbox } from './sandbox.ts';

/**
 * A sandbox in the place of one that has stopped: of the same id, spec, UUID and directory, for a new VM. What the old
 * VM had is gone with it. It remembers the removed volumes, and no generation comes twice.
 */
export function successorOf(stopped: Sandbox, environment: SandboxEnvironment): Sandbox {
  const next = makeSandbox(environment, stopped.identity);
  next.volumes.reserveGenerations(stopped.volumes.nextGeneration);
  for (const record of stopped.volumes.records()) next.volumes.restore(record);
  return next;
}

/**
 * What a start that failed leaves: the sandbox, stopped as before, with why. Its record is on disk again.
 * @param failed was let go of
 */
export async function stoppedAgain(failed: Sandbox, environment: SandboxEnvironment, cause: Cause): Promise<Sandbox> {
  const sandbox = makeSandbox(environment, failed.identity);
  sandbox.restore(failed.recordOfStopped(cause));
  await sandbox.foundDead();
  try {
    await mkdir(sandbox.files.directory, { recursive: true, mode: 0o700 });
    await sandbox.commit();
  } catch (error) {
    sandbox.log.warn({ problem: messageOf(error) }, 'journal not written after a start that failed');
  }
  sandbox.announce('sandbox.stopped', cause);
  return sandbox;
}
