import { ShimError, invalidArgument } from '../base/errors.ts';
import type { ExecResult } from '../guest/agent.ts';
import { GuestAgentError } from '../guest/agent.ts';
import type { Sandbox } from './sandbox.ts';

export interface GuestCommand {
  readonly path: string;
  readonly args: readonly string[];
  readonly environment: readonly string[];
  readonly input: Uint8Array;
  /** Milliseconds; 0 means the configured default. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

const running = new WeakMap<Sandbox, number>();

/**
 * Runs one command in the guest.
 * @throws ShimError FAILED_PRECONDITION / GUEST_AGENT_NOT_READY, GUEST_EXEC_REFUSED; RESOURCE_EXHAUSTED / TOO_MANY_COMMANDS;
 *   DEADLINE_EXCEEDED / GUEST_EXEC_TIMEOUT (the command goes on in the guest)
 */
export async function execInGuest(sandbox: Sandbox, command: GuestCommand): Promise<ExecResult> {
  if (!command.path.startsWith('/'))
    throw invalidArgument('path', command.path, 'must be an absolute path in the guest');
  const strings = [command.path, ...command.args, ...command.environment];
  if (strings.some((text) => text.includes('\0'))) throw invalidArgument('arguments', '', 'must not contain NUL');
  const { config, id } = sandbox;
  if (sandbox.state !== 'running' || !sandbox.agentReady) {
    throw new ShimError(
      'FAILED_PRECONDITION',
      `the guest agent of sandbox ${id} is not ready (the sandbox is ${sandbox.state})`,
      {
        reason: 'GUEST_AGENT_NOT_READY',
        metadata: { sandboxId: id, state: sandbox.state },
      },
    );
  }
  const count = running.get(sandbox) ?? 0;
  if (count >= config.exec_max) {
    throw new ShimError('RESOURCE_EXHAUSTED', `${count} commands run in sandbox ${id} already`, {
      reason: 'TOO_MANY_COMMANDS',
      metadata: { sandboxId: id, max: String(config.exec_max) },
    });
  }
  running.set(sandbox, count + 1);
  try {
    return await sandbox.agent.exec({
      path: command.path,
      args: command.args,
      ...(command.environment.length === 0 ? {} : { env: command.environment }),
      ...(command.input.length === 0 ? {} : { input: command.input }),
      timeoutMs: command.timeoutMs === 0 ? config.exec_timeout_ms : command.timeoutMs,
      outputBytesMax: config.exec_output_bytes_max,
      signal: AbortSignal.any([command.signal, sandbox.gone]),
    });
  } catch (error) {
    if (!(error instanceof GuestAgentError)) throw error;
    throw new ShimError('FAILED_PRECONDITION', `the guest did not run ${command.path}: ${error.message}`, {
      reason: 'GUEST_EXEC_REFUSED',
      metadata: { sandboxId: id, path: command.path },
      cause: error,
    });
  } finally {
    running.set(sandbox, (running.get(sandbox) ?? 1) - 1);
  }
}
