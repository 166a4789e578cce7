import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ShimError, messageOf } from '../base/errors.ts';
import { runClone } from './clone.ts';
import { launchIdentity } from './launch.ts';
import { SANDBOX_ID_FILE, type PoolMember } from '../template/pool.ts';
import type { SandboxEnvironment } from './environment.ts';
import type { Sandbox } from './sandbox.ts';
import type { Stopwatch } from '../base/stopwatch.ts';
import { identityFilesOf, type TemplateLaunch } from '../template/vm.ts';

/**
 * Makes a sandbox of a pool member in whose directory it was made. False when the member will not do: it has been ended
 * then, and its directory is gone.
 * @throws the reason of `sandbox.ended`; UNAVAILABLE / JOURNAL_WRITE_FAILED
 */
export async function startFromPool(
  sandbox: Sandbox,
  environment: SandboxEnvironment,
  member: PoolMember,
  launch: TemplateLaunch,
  watch: Stopwatch,
): Promise<boolean> {
  const { config, log, ended: signal } = sandbox;
  const { vm, agent, lease } = member;
  try {
    const { hostname, uuid } = launchIdentity(sandbox);
    // Neither harms a member that then turns out not to fit: it is ended.
    const limits = { timeoutMs: config.clone_timeout_ms, signal };
    const [key] = await Promise.all([
      environment.templates.keyOf(launch),
      vm.port.assume({ hostname, uuid }, identityFilesOf(lease), limits),
      agent.waitReady(limits),
    ]);
    if (key !== lease.key) {
      environment.pool.forget(lease.key);
      throw new ShimError('ABORTED', 'its template is out of date', { reason: 'TEMPLATE_INPUTS_CHANGED' });
    }
  } catch (error) {
    log.warn({ pid: vm.qemu.pid, problem: messageOf(error) }, 'pool member not used');
    await environment.pool.endTaken(member);
    signal.throwIfAborted();
    return false;
  }
  watch.lap('identity');
  sandbox.launching({ start: { kind: 'pool', templateId: lease.key, reason: '' } });
  member.images[Symbol.dispose]();
  await runClone(sandbox, vm, lease, watch);
  // QEMU's command line names the member. Written after the journal: a member that has one is a sandbox.
  sandbox.inBackground(
    'sandbox id',
    writeFile(join(sandbox.files.directory, SANDBOX_ID_FILE), sandbox.id, { mode: 0o600 }),
  );
  return true;
}
