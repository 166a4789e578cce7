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
  let last: StepResult | undefined;
  for (const { name, act, timeoutMs } of steps) {
    const graceful = name === 'agent' || name === 'acpi';
    last = await tryStep(sandbox, name, act, timeoutMs, graceful ? hurry : undefined);
    if (last.ended) return;
  }
  // Only what was done is told: the signal may never have been sent.
  const outcome =
    last?.taken === true ? 'is still there after SIGKILL' : `has not been sent SIGKILL: ${last?.problem ?? 'no step'}`;
  throw new ShimError('UNAVAILABLE', `QEMU of sandbox ${sandbox.id} (pid ${sandbox.qemu?.pid ?? 0}) ${outcome}`, {
    reason: 'QEMU_NOT_KILLED',
    metadata: { sandboxId: sandbox.id, pid: String(sandbox.qemu?.pid ?? 0) },
  });
}

/** What came of one step. */
interface StepResult {
  /** QEMU has been seen to be gone. */
  readonly ended: boolean;
  /** The step was taken: what it does has been done. */
  readonly taken: boolean;
  /** Why it was not, or had no effect. */
  readonly problem: string;
}

/** One step. One that cannot be taken is passed over at once. */
async function tryStep(
  sandbox: Sandbox,
  name: string,
  act: () => Promise<void>,
  timeoutMs: number,
  hurry: Promise<void> | undefined,
): Promise<StepResult> {
  let taken = false;
  const startedMs = monotonicMs();
  const gone = sandbox.stopped.then(() => true);
  const hurried = hurry?.then(() => false) ?? new Promise<never>(() => undefined);
  try {
    const work = act().then(() => {
      taken = true;
      return gone;
    });
    const ended = await waitFor(Promise.race([work, gone, hurried]), { milliseconds: timeoutMs });
    sandbox.log.info({ step: name, ended, milliseconds: monotonicMs() - startedMs }, 'stop step done');
    return { ended, taken, problem: 'hurried' };
  } catch (error) {
    const late = isShimError(error, 'DEADLINE_EXCEEDED');
    const problem = late ? `nothing came of it within ${timeoutMs} ms` : messageOf(error);
    sandbox.log.info({ step: name, taken, problem }, 'stop step had no effect');
    return { ended: sandbox.state === 'stopped', taken, problem };
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
