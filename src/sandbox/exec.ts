import { ShimError, invalidArgument } from '../base/errors.ts';
import { GuestAgentError, type ExecResult, type GuestAgent } from '../guest/agent.ts';
import type { Config } from '../config.ts';

export interface GuestCommand {
  readonly path: string;
  readonly args: readonly string[];
  readonly environment: readonly string[];
  readonly input: Uint8Array;
  /** Milliseconds; 0 means the configured default. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** What the commands need of their sandbox. */
export interface CommandHost {
  readonly id: string;
  readonly state: string;
  readonly config: Pick<Config, 'exec_max' | 'exec_timeout_ms' | 'exec_output_bytes_max'>;
  readonly agent: Pick<GuestAgent, 'exec'>;
  readonly agentReady: boolean;
  readonly gone: AbortSignal;
}

/** Commands that callers have run in one guest. */
export class GuestCommands {
  readonly #host: CommandHost;
  #running = 0;

  constructor(host: CommandHost) {
    this.#host = host;
  }

  /**
   * Runs one command in the guest.
   * @throws ShimError FAILED_PRECONDITION / GUEST_AGENT_NOT_READY, GUEST_EXEC_REFUSED; RESOURCE_EXHAUSTED /
   *   TOO_MANY_COMMANDS; DEADLINE_EXCEEDED / GUEST_EXEC_TIMEOUT (the command goes on in the guest)
   */
  async run(command: GuestCommand): Promise<ExecResult> {
    if (!command.path.startsWith('/'))
      throw invalidArgument('path', command.path, 'must be an absolute path in the guest');
    const strings = [command.path, ...command.args, ...command.environment];
    if (strings.some((text) => text.includes('\0'))) throw invalidArgument('arguments', '', 'must not contain NUL');
    const { config, id, state, agent, agentReady, gone } = this.#host;
    if (state !== 'running' || !agentReady) {
      throw new ShimError(
        'FAILED_PRECONDITION',
        `the guest agent of sandbox ${id} is not ready (the sandbox is ${state})`,
        {
          reason: 'GUEST_AGENT_NOT_READY',
          metadata: { sandboxId: id, state },
        },
      );
    }
    if (this.#running >= config.exec_max) {
      throw new ShimError('RESOURCE_EXHAUSTED', `${this.#running} commands run in sandbox ${id} already`, {
        reason: 'TOO_MANY_COMMANDS',
        metadata: { sandboxId: id, max: String(config.exec_max) },
      });
    }
    this.#running += 1;
    try {
      return await agent.exec({
        path: command.path,
        args: command.args,
        ...(command.environment.length === 0 ? {} : { env: command.environment }),
        ...(command.input.length === 0 ? {} : { input: command.input }),
        timeoutMs: command.timeoutMs === 0 ? config.exec_timeout_ms : command.timeoutMs,
        outputBytesMax: config.exec_output_bytes_max,
        signal: AbortSignal.any([command.signal, gone]),
      });
    } catch (error) {
      if (!(error instanceof GuestAgentError)) throw error;
      throw new ShimError('FAILED_PRECONDITION', `the guest did not run ${command.path}: ${error.message}`, {
        reason: 'GUEST_EXEC_REFUSED',
        metadata: { sandboxId: id, path: command.path },
        cause: error,
      });
    } finally {
      this.#running -= 1;
    }
  }
}
