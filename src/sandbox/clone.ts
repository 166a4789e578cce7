import { mkdir, rm } from 'node:fs/promises';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import type { Reason } from '../base/reasons.ts';
import type { Stopwatch } from '../base/stopwatch.ts';
import { startCloneVm, type CloneVm } from '../template/clone.ts';
import type { TemplateLease } from '../template/store.ts';
import type { Templates } from '../template/templates.ts';
import type { TemplateLaunch } from '../template/vm.ts';
import { endQemu, launchIdentity } from './launch.ts';
import type { SandboxEnvironment } from './environment.ts';
import type { Sandbox } from './sandbox.ts';

/** A sandbox that starts as a clone of a template. */

/** Failures by which a template is known to be of no use. Others (no journal, no QEMU) would meet any start. */
const BAD_TEMPLATE: ReadonlySet<Reason> = new Set([
  'TEMPLATE_RESTORE_FAILED',
  'TEMPLATE_TIMEOUT',
  'CLONE_IDENTITY_FAILED',
  'CLONE_IDENTITY_TIMEOUT',
  'GUEST_AGENT_TIMEOUT',
]);

/**
 * Starts the sandbox as a clone. False when it has to boot instead: why is in `sandbox.start`, and nothing of the
 * attempt is left but its time.
 * @throws where a template is required, what keeps it from being used; ShimError FAILED_PRECONDITION / CLONE_FAILED;
 *   the reason of `sandbox.ended`; UNAVAILABLE / JOURNAL_WRITE_FAILED
 */
export async function startFromTemplate(
  sandbox: Sandbox,
  { templates, cells }: Pick<SandboxEnvironment, 'templates' | 'cells'>,
  launch: TemplateLaunch,
  use: 'auto' | 'required',
  watch: Stopwatch,
): Promise<boolean> {
  const found = await templates.find(launch, use, sandbox.ended);
  watch.lap('template');
  if (found.lease === undefined) {
    sandbox.launching({ start: { kind: 'cold', templateId: '', reason: found.reason } });
    return false;
  }
  const { lease } = found;
  await using unused = new AsyncDisposableStack();
  unused.use(lease);
  sandbox.launching({ start: { kind: 'clone', templateId: lease.key, reason: '' } });
  // Says `clone`, and no process: a daemon that comes back finds the process by its sockets and begins anew.
  await sandbox.commit();
  watch.lap('journal');
  let vm: CloneVm;
  try {
    const { config, log, files, agent, ended: signal } = sandbox;
    vm = await startCloneVm({
      config,
      cells,
      log,
      launch,
      lease,
      identity: launchIdentity(sandbox),
      files,
      agent,
      watch,
      signal,
    });
  } catch (error) {
    sandbox.ended.throwIfAborted();
    await cloneFailed(sandbox, templates, lease.key, use, error);
    watch.lap('failed clone');
    return false;
  }
  unused.move();
  await runClone(sandbox, vm, lease, watch);
  return true;
}

/** Takes charge of a clone's VM: from here it is the sandbox's. When this throws, QEMU has ended. */
export async function runClone(sandbox: Sandbox, vm: CloneVm, lease: TemplateLease, watch: Stopwatch): Promise<void> {
  sandbox.holdCell(vm.cell);
  sandbox.own(vm.qemu);
  sandbox.holdTemplate(lease);
  try {
    await Promise.all([vm.port[Symbol.asyncDispose](), sandbox.link.take(vm.qmp)]);
    sandbox.agentAnswered();
    watch.lap('observe');
    await sandbox.enterRunning(watch.timings);
  } catch (error) {
    await endQemu(sandbox, vm.qemu);
    throw error;
  }
}

async function cloneFailed(
  sandbox: Sandbox,
  templates: Templates,
  key: string,
  use: 'auto' | 'required',
  error: unknown,
): Promise<void> {
  const problem = messageOf(error);
  sandbox.log.warn({ templateId: key, problem }, 'clone failed');
  if (isShimError(error) && BAD_TEMPLATE.has(error.reason)) {
    await templates.clonedBadly(key, error);
  }
  if (use === 'required') {
    throw new ShimError('FAILED_PRECONDITION', `the sandbox could not be cloned from its template: ${problem}`, {
      reason: 'CLONE_FAILED',
      metadata: { templateId: key },
      cause: error,
    });
  }
  sandbox.launching({ start: { kind: 'cold', templateId: '', reason: `the clone failed: ${problem}` } });
  // What it has left must not be taken for the boot's.
  await rm(sandbox.files.directory, { recursive: true, force: true });
  await mkdir(sandbox.files.directory, { mode: 0o700 });
}
