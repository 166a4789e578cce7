import { mkdir, rm } from 'node:fs/promises';
import { ShimError, messageOf } from '../base/errors.ts';
import { qemuArguments } from '../qemu/argv.ts';
import { QemuProcess } from '../qemu/process.ts';
import type { TemplateLease } from '../qemu/template-store.ts';
import type { QmpClient } from '../qmp/client.ts';
import { endQemu, enterRunning, launchIdentity } from './launch.ts';
import type { Sandbox } from './sandbox.ts';
import type { Stopwatch } from './stopwatch.ts';
import { cloneMemory, connectQmp, startClone, type TemplateLaunch } from './template-vm.ts';

/** A sandbox that starts as a clone of a template. */

/**
 * Starts the sandbox as a clone. False when it has to boot instead: why is in `sandbox.start`, and nothing of the attempt
 * is left but its time.
 * @throws where a template is required, what keeps it from being used; ShimError FAILED_PRECONDITION / CLONE_FAILED; the
 *   reason of `sandbox.ended`
 */
export async function startFromTemplate(
  sandbox: Sandbox,
  launch: TemplateLaunch,
  use: 'auto' | 'required',
  watch: Stopwatch,
): Promise<boolean> {
  const { templates } = sandbox.environment;
  const found = await templates.find(launch, use, sandbox.ended);
  watch.lap('template');
  if (found.lease === undefined) {
    sandbox.start = { kind: 'cold', templateId: '', reason: found.reason };
    return false;
  }
  const { lease } = found;
  try {
    await clone(sandbox, launch, lease, watch);
    return true;
  } catch (error) {
    lease[Symbol.dispose]();
    sandbox.ended.throwIfAborted();
    const problem = messageOf(error);
    sandbox.log.warn({ templateId: lease.key, problem }, 'clone failed');
    await templates.clonedBadly(lease.key, error);
    if (use === 'required') {
      throw new ShimError('FAILED_PRECONDITION', `the sandbox could not be cloned from its template: ${problem}`, {
        reason: 'CLONE_FAILED',
        metadata: { templateId: lease.key },
        cause: error,
      });
    }
    sandbox.start = { kind: 'cold', templateId: '', reason: `the clone failed: ${problem}` };
    await emptyDirectory(sandbox);
    watch.lap('failed clone');
    return false;
  }
}

async function clone(sandbox: Sandbox, launch: TemplateLaunch, lease: TemplateLease, watch: Stopwatch): Promise<void> {
  sandbox.start = { kind: 'clone', templateId: lease.key, reason: '' };
  // Says `clone`, and no process: a daemon that comes back finds the process by its sockets and begins anew.
  await sandbox.commit();
  watch.lap('journal');
  await using undo = new AsyncDisposableStack();
  const { qemu, qmp } = await runningClone(sandbox, launch, lease, watch, undo);
  undo.move();
  sandbox.own(qemu);
  sandbox.holdTemplate(lease);
  try {
    await sandbox.link.take(qmp);
    sandbox.agentReady = true;
    watch.lap('observe');
    await enterRunning(sandbox, watch);
  } catch (error) {
    await endQemu(sandbox, qemu);
    throw error;
  }
}

/** A clone whose agent has answered; `undo` ends it. */
async function runningClone(
  sandbox: Sandbox,
  launch: TemplateLaunch,
  lease: TemplateLease,
  watch: Stopwatch,
  undo: AsyncDisposableStack,
): Promise<{ readonly qemu: QemuProcess; readonly qmp: QmpClient }> {
  const { config, files, agent, log } = sandbox;
  const limits = { timeoutMs: config.clone_timeout_ms, signal: sandbox.ended };
  const identity = launchIdentity(sandbox);
  const args = qemuArguments({ ...launch, ...identity, files, memory: cloneMemory(lease, files) });
  const qemu = await QemuProcess.spawn(config.qemu_binary, args, files.directory, files.qemuLog);
  undo.defer(async () => {
    await qemu.kill('SIGKILL');
    await qemu.exited;
  });
  watch.lap('spawn');
  const connect = {
    log,
    lineBytesMax: config.qmp_line_bytes_max,
    pendingMax: config.qmp_pending_max,
    replyTimeoutMs: config.qmp_reply_timeout_ms,
  };
  const qmp = undo.use(await connectQmp(qemu, files, connect, limits));
  watch.lap('qmp');
  await startClone({ qmp, agent, files, lease, identity, watch }, limits);
  return { qemu, qmp };
}

/** What a clone that failed has left must not be taken for the boot's. */
async function emptyDirectory({ files }: Sandbox): Promise<void> {
  await rm(files.directory, { recursive: true, force: true });
  await mkdir(files.directory, { mode: 0o700 });
}
