import { mkdir, rm } from 'node:fs/promises';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Reason } from '../base/reasons.ts';
import type { Config } from '../config.ts';
import type { GuestAgent } from '../guest/agent.ts';
import type { IdentityPort } from '../guest/identity.ts';
import { qemuArguments, type SandboxFiles } from '../qemu/argv.ts';
import { QemuProcess } from '../qemu/process.ts';
import type { TemplateLease } from '../qemu/template-store.ts';
import type { QmpClient } from '../qmp/client.ts';
import { endQemu, enterRunning, launchIdentity, type LaunchIdentity } from './launch.ts';
import type { Sandbox } from './sandbox.ts';
import type { Stopwatch } from './stopwatch.ts';
import { cloneMemory, connectQmp, startClone, type TemplateLaunch } from './template-vm.ts';

/** A sandbox that starts as a clone of a template. */

/** Failures by which a template is known to be of no use. Others (no journal, no QEMU) would meet any start. */
const BAD_TEMPLATE: ReadonlySet<Reason> = new Set([
  'TEMPLATE_RESTORE_FAILED',
  'TEMPLATE_TIMEOUT',
  'CLONE_IDENTITY_FAILED',
  'CLONE_IDENTITY_TIMEOUT',
  'GUEST_AGENT_TIMEOUT',
]);

/** A clone's VM that is a machine of its own, with everything that is connected to it. */
export interface CloneVm {
  readonly qemu: QemuProcess;
  readonly qmp: QmpClient;
  /** Takes further identities while it is open. Whoever has the VM disposes of it. */
  readonly port: IdentityPort;
}

export interface CloneVmOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly launch: TemplateLaunch;
  readonly lease: TemplateLease;
  readonly identity: LaunchIdentity;
  readonly files: SandboxFiles;
  /** Not connected yet. */
  readonly agent: GuestAgent;
  readonly watch: Stopwatch;
  readonly signal: AbortSignal;
}

/**
 * Starts a clone's QEMU in a directory that is there, up to the answer of the guest's agent. When it fails, that QEMU has
 * ended.
 * @throws what QemuProcess.spawn, connectQmp and startClone throw
 */
export async function startCloneVm(options: CloneVmOptions): Promise<CloneVm> {
  const { config, log, launch, lease, identity, files, agent, watch, signal } = options;
  const limits = { timeoutMs: config.clone_timeout_ms, signal };
  await using undo = new AsyncDisposableStack();
  const args = qemuArguments({ ...launch, ...identity, files, memory: cloneMemory(lease, files) });
  const { qemu_binary: binary, qemu_allocator: allocator } = config;
  const qemu = await QemuProcess.spawn(binary, args, files.directory, files.qemuLog, allocator);
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
  const { port } = await startClone({ qmp, agent, files, lease, identity, watch }, limits);
  undo.move();
  return { qemu, qmp, port };
}

/**
 * Starts the sandbox as a clone. False when it has to boot instead: why is in `sandbox.start`, and nothing of the attempt
 * is left but its time.
 * @throws where a template is required, what keeps it from being used; ShimError FAILED_PRECONDITION / CLONE_FAILED; the
 *   reason of `sandbox.ended`; UNAVAILABLE / JOURNAL_WRITE_FAILED
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
  await using unused = new AsyncDisposableStack();
  unused.use(lease);
  sandbox.start = { kind: 'clone', templateId: lease.key, reason: '' };
  // Says `clone`, and no process: a daemon that comes back finds the process by its sockets and begins anew.
  await sandbox.commit();
  watch.lap('journal');
  let vm: CloneVm;
  try {
    const { config, log, files, agent, ended: signal } = sandbox;
    vm = await startCloneVm({
      config,
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
    await cloneFailed(sandbox, lease.key, use, error);
    watch.lap('failed clone');
    return false;
  }
  unused.move();
  await runClone(sandbox, vm, lease, watch);
  return true;
}

/** Takes charge of a clone's VM: from here it is the sandbox's. When this throws, QEMU has ended. */
export async function runClone(sandbox: Sandbox, vm: CloneVm, lease: TemplateLease, watch: Stopwatch): Promise<void> {
  sandbox.own(vm.qemu);
  sandbox.holdTemplate(lease);
  try {
    await Promise.all([vm.port[Symbol.asyncDispose](), sandbox.link.take(vm.qmp)]);
    sandbox.agentAnswered();
    watch.lap('observe');
    await enterRunning(sandbox, watch);
  } catch (error) {
    await endQemu(sandbox, vm.qemu);
    throw error;
  }
}

async function cloneFailed(sandbox: Sandbox, key: string, use: 'auto' | 'required', error: unknown): Promise<void> {
  const problem = messageOf(error);
  sandbox.log.warn({ templateId: key, problem }, 'clone failed');
  if (isShimError(error) && BAD_TEMPLATE.has(error.reason)) {
    await sandbox.environment.templates.clonedBadly(key, error);
  }
  if (use === 'required') {
    throw new ShimError('FAILED_PRECONDITION', `the sandbox could not be cloned from its template: ${problem}`, {
      reason: 'CLONE_FAILED',
      metadata: { templateId: key },
      cause: error,
    });
  }
  sandbox.start = { kind: 'cold', templateId: '', reason: `the clone failed: ${problem}` };
  // What it has left must not be taken for the boot's.
  await rm(sandbox.files.directory, { recursive: true, force: true });
  await mkdir(sandbox.files.directory, { mode: 0o700 });
}
