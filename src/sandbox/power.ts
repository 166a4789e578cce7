import { waitFor } from '../base/deadline.ts';
import { isShimError, messageOf, shimError, ShimError } from '../base/errors.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import { refusalUnlessRunning } from '../volume/admission.ts';
import { awaitAgent } from './observe.ts';
import type { Sandbox } from './sandbox.ts';

/**
 * What a machine's buttons do to a VM that goes on to live:
 *
 *     pause ─▶ stop ─┐
 *     resume ─▶ cont ┼─▶ query-status ─▶ Sandbox.sawRunState
 *     reboot ─▶ agent, else system_reset ─▶ RESET, which observe.ts hears ─▶ the agent of the next boot
 */

/**
 * Stops the VM's vCPUs. Ends when QEMU says that it is paused; one that is already, stays so.
 * @throws ShimError FAILED_PRECONDITION: SANDBOX_NOT_RUNNING, SANDBOX_STOPPING, SANDBOX_NOT_PAUSED
 */
export async function pauseSandbox(sandbox: Sandbox): Promise<void> {
  const qmp = await connection(sandbox);
  const before = await look(sandbox, qmp);
  if (before === 'running') await qmp.run('stop');
  const now = await look(sandbox, qmp);
  if (now !== 'paused') throw notSo(sandbox, 'SANDBOX_NOT_PAUSED', now);
  if (before !== now) sandbox.announce('sandbox.paused', undefined);
}

/**
 * Lets the VM go on, whatever it was stopped for. Ends when QEMU says that it runs.
 * @throws ShimError FAILED_PRECONDITION: SANDBOX_NOT_RUNNING, SANDBOX_STOPPING, SANDBOX_NOT_RESUMED
 */
export async function resumeSandbox(sandbox: Sandbox): Promise<void> {
  const qmp = await connection(sandbox);
  const before = await look(sandbox, qmp);
  if (before === 'running') return;
  await goOn(sandbox, qmp);
  sandbox.announce('sandbox.resumed', undefined);
}

/**
 * Begins a new boot of the guest. Its agent is asked first; a guest that does not reset itself in time, and with
 * `force` any, is reset. Ends when the reset was seen and, in a sandbox whose Create waits for its agent, when the
 * agent of the new boot has answered. Volumes stay attached; their mounts are gone with the old boot (guest-reset.ts).
 * @throws ShimError FAILED_PRECONDITION: SANDBOX_NOT_RUNNING, SANDBOX_STOPPING, SANDBOX_NOT_RESUMED; DEADLINE_EXCEEDED:
 *   RESET_NOT_SEEN, GUEST_AGENT_TIMEOUT
 */
export async function rebootSandbox(
  sandbox: Sandbox,
  options: { readonly force: boolean; readonly gracefulTimeoutMs: number },
): Promise<void> {
  const qmp = await connection(sandbox);
  // Listens before it asks: the boot may come before the answer.
  const { nextBoot } = sandbox;
  const asked = !options.force && (await askGuest(sandbox, qmp, nextBoot, options.gracefulTimeoutMs));
  if (!asked) await reset(sandbox, qmp, nextBoot);
  // A VM that was paused, or had panicked, stays so through a reset.
  if ((await look(sandbox, qmp)) !== 'running') await goOn(sandbox, qmp);
  if (sandbox.identity.spec.readyWhen !== 'agent') return;
  try {
    await awaitAgent(sandbox);
  } catch (error) {
    sandbox.gone.throwIfAborted();
    const { id } = sandbox;
    throw new ShimError('DEADLINE_EXCEEDED', `sandbox ${id} was reset, but its agent did not answer since`, {
      reason: 'GUEST_AGENT_TIMEOUT',
      metadata: { sandboxId: id },
      cause: error,
    });
  }
}

/** @returns whether the guest has reset itself */
async function askGuest(
  sandbox: Sandbox,
  qmp: QmpClient,
  nextBoot: Promise<void>,
  gracefulTimeoutMs: number,
): Promise<boolean> {
  if (!sandbox.agentReady) return false;
  try {
    if ((await look(sandbox, qmp)) !== 'running') await goOn(sandbox, qmp);
    const work = sandbox.agent.shutdown('reboot').then(() => nextBoot);
    await waitFor(Promise.race([work, nextBoot]), { milliseconds: gracefulTimeoutMs, signal: sandbox.gone });
    return true;
  } catch (error) {
    sandbox.gone.throwIfAborted();
    sandbox.log.info({ problem: messageOf(error) }, 'the guest did not reboot by itself');
    return false;
  }
}

async function reset(sandbox: Sandbox, qmp: QmpClient, nextBoot: Promise<void>): Promise<void> {
  await qmp.run('system_reset');
  const milliseconds = sandbox.config.qmp_reply_timeout_ms;
  await waitFor(nextBoot, { milliseconds, signal: sandbox.gone }).catch((error: unknown) => {
    if (!isShimError(error, 'DEADLINE_EXCEEDED')) throw error;
    throw shimError(
      'RESET_NOT_SEEN',
      `QEMU has not said within ${milliseconds} ms that sandbox ${sandbox.id} was reset`,
      {
        metadata: { sandboxId: sandbox.id },
      },
    );
  });
}

async function goOn(sandbox: Sandbox, qmp: QmpClient): Promise<void> {
  try {
    await qmp.run('cont');
  } catch (error) {
    // Such as "Resetting the Virtual Machine is required".
    if (!isQmpError(error)) throw error;
    throw notSo(sandbox, 'SANDBOX_NOT_RESUMED', await look(sandbox, qmp), error.message);
  }
  const now = await look(sandbox, qmp);
  if (now !== 'running') throw notSo(sandbox, 'SANDBOX_NOT_RESUMED', now);
}

async function connection(sandbox: Sandbox): Promise<QmpClient> {
  const refusal = refusalUnlessRunning(sandbox);
  if (refusal !== undefined) throw refusal;
  return await sandbox.link.within(sandbox.config.qmp_reply_timeout_ms, sandbox.gone);
}

/** What QEMU says of the VM now; everybody else hears of it. */
async function look(sandbox: Sandbox, qmp: QmpClient): Promise<string> {
  const { status } = await qmp.run('query-status');
  sandbox.sawRunState(status);
  return status;
}

function notSo(
  { id }: Sandbox,
  reason: 'SANDBOX_NOT_PAUSED' | 'SANDBOX_NOT_RESUMED',
  runState: string,
  said?: string,
): ShimError {
  const what = reason === 'SANDBOX_NOT_PAUSED' ? 'is not paused' : 'does not run';
  const problem = `the VM of sandbox ${id} ${what}: its run state is ${runState}${said === undefined ? '' : `; ${said}`}`;
  return shimError(reason, problem, { metadata: { sandboxId: id, runState } });
}
