import { monotonicMs, waitFor } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import type { Sandbox } from './sandbox.ts';

/**
 * Stops a sandbox: the guest's agent is asked, then its ACPI power button pressed, then QEMU is ended (SIGTERM, which
 * lets it flush, then SIGKILL). Each step has its own deadline. Joins a stop in progress; with `force`, hurries it.
 * @throws ShimError UNAVAILABLE / QEMU_NOT_KILLED when even SIGKILL has not been seen to work in time
 */
export async function stopSandbox(
  sandbox: Sandbox,
  options: { readonly force: boolean; readonly gracefulTimeoutMs: number },
): Promise<void> {
  await sandbox.stopOnce(options.force, (hurry) => carryOut(sandbox, options.gracefulTimeoutMs, hurry));
}

async function carryOut(sandbox: Sandbox, gracefulTimeoutMs: number, hurry: Promise<void>): Promise<void> {
  sandbox.preempt(
    new ShimError('ABORTED', `sandbox ${sandbox.id} is being stopped`, {
      reason: 'SANDBOX_STOPPING',
      metadata: { sandboxId: sandbox.id },
    }),
  );
  sandbox.commitSoon();
  const steps: readonly { readonly name: string; readonly act: () => Promise<void>; readonly timeoutMs: number }[] = [
    { name: 'agent', act: () => askAgent(sandbox), timeoutMs: gracefulTimeoutMs },
    { name: 'acpi', act: () => pressPowerButton(sandbox), timeoutMs: gracefulTimeoutMs },
    { name: 'SIGTERM', act: () => kill(sandbox, 'SIGTERM'), timeoutMs: sandbox.config.kill_timeout_ms },
    { name: 'SIGKILL', act: () => kill(sandbox, 'SIGKILL'), timeoutMs: sandbox.config.kill_timeout_ms },
  ];
  for (const { name, act, timeoutMs } of steps) {
    const graceful = name === 'agent' || name === 'acpi';
    if (await tryStep(sandbox, name, act, timeoutMs, graceful ? hurry : undefined)) return;
  }
  throw new ShimError(
    'UNAVAILABLE',
    `QEMU of sandbox ${sandbox.id} (pid ${sandbox.qemu?.pid ?? 0}) is still there after SIGKILL`,
    {
      reason: 'QEMU_NOT_KILLED',
      metadata: { sandboxId: sandbox.id, pid: String(sandbox.qemu?.pid ?? 0) },
    },
  );
}

/** One step; true when QEMU has been seen to be gone. A step that cannot be taken is passed over at once. */
async function tryStep(
  sandbox: Sandbox,
  name: string,
  act: () => Promise<void>,
  timeoutMs: number,
  hurry: Promise<void> | undefined,
): Promise<boolean> {
  const startedMs = monotonicMs();
  const gone = sandbox.stopped.then(() => true);
  const hurried = hurry?.then(() => false) ?? new Promise<never>(() => undefined);
  try {
    const work = act().then(() => gone);
    const ended = await waitFor(Promise.race([work, gone, hurried]), { milliseconds: timeoutMs });
    sandbox.log.info({ step: name, ended, milliseconds: monotonicMs() - startedMs }, 'stop step done');
    return ended;
  } catch (error) {
    const late = isShimError(error, 'DEADLINE_EXCEEDED');
    sandbox.log.info({ step: name, problem: late ? 'deadline' : messageOf(error) }, 'stop step had no effect');
    return sandbox.state === 'stopped';
  }
}

async function askAgent(sandbox: Sandbox): Promise<void> {
  if (!sandbox.agentReady) throw new Error('no guest agent');
  // A guest whose vCPUs stand still shuts nothing down.
  if (sandbox.runState === 'paused') await sandbox.link.current.run('cont');
  await sandbox.agent.shutdown('powerdown');
}

async function pressPowerButton(sandbox: Sandbox): Promise<void> {
  await sandbox.link.current.run('system_powerdown');
}

async function kill(sandbox: Sandbox, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  // A process that was stopped (SIGSTOP) takes SIGTERM only once it goes on.
  if (signal === 'SIGTERM') await sandbox.qemu?.kill('SIGCONT');
  await sandbox.qemu?.kill(signal);
}
