import { ShimError, invalidArgument, isShimError, messageOf } from '../base/errors.ts';
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

export interface CommandResult extends ExecResult {
  /** Its time was over, and qshim ended it: what it had written until then is there. */
  readonly timedOut?: true;
}

/** From the end of a command's time to the end of its process. */
const END_TIMEOUT_MS = 5000;

/** What the commands need of their sandbox. */
export interface CommandHost {
  readonly id: string;
  readonly state: string;
  readonly config: Pick<Config, 'exec_max' | 'exec_timeout_ms' | 'exec_output_bytes_max'>;
  readonly agent: Pick<GuestAgent, 'exec' | 'endExec'>;
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
   *   TOO_MANY_COMMANDS; DEADLINE_EXCEEDED / GUEST_EXEC_TIMEOUT when its time is over and its output could not be had:
   *   metadata `killed` says whether it was seen to end
   */
  async run(command: GuestCommand): Promise<CommandResult> {
    // QGA looks a bare name up in the PATH of its own environment (G_SPAWN_SEARCH_PATH).
    if (command.path === '' || (!command.path.startsWith('/') && command.path.includes('/'))) {
      const problem = 'must be an absolute path in the guest, or a name to be found in the PATH of its agent';
      throw invalidArgument('path', command.path, problem);
    }
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
      const message = `${this.#running} commands run in sandbox ${id} already (option exec_max)`;
      throw new ShimError('RESOURCE_EXHAUSTED', message, {
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
      if (isShimError(error) && error.reason === 'GUEST_EXEC_TIMEOUT') return await this.#end(error);
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
  /** The time of a command is over: ends it in the guest. */
  async #end(timeout: ShimError): Promise<CommandResult> {
    const { agent, config } = this.#host;
    const { path = '', pid = '', timeoutMs = '' } = timeout.metadata;
    const limits = { timeoutMs: END_TIMEOUT_MS, outputBytesMax: config.exec_output_bytes_max };
    let killed = false;
    let problem = 'it was not seen to end';
    try {
      const { ended, result } = await agent.endExec(Number(pid), limits);
      if (result !== undefined) return { ...result, timedOut: true };
      killed = ended;
      if (ended) problem = 'it was killed, but something that it has started holds its output open';
    } catch (error) {
      problem = `it could not be killed: ${messageOf(error)}`;
    }
    const message = `${path} (process ${pid} of the guest) did not end within ${timeoutMs} ms, and ${problem}`;
    throw new ShimError('DEADLINE_EXCEEDED', message, {
      reason: 'GUEST_EXEC_TIMEOUT',
      metadata: { ...timeout.metadata, killed: String(killed) },
      cause: timeout,
    });
  }
}
