import { ShimError, invalidArgument, isShimError, messageOf } from '../base/errors.ts';
import { GuestAgentError, type ExecResult, type GuestAgent } from '../guest/agent.ts';
import { StreamedCommand, type CommandSpec, type StreamHost, type TerminalSize } from '../guest/streamed-command.ts';
import type { Config } from '../config.ts';

export type { CommandSpec, StreamedCommand } from '../guest/streamed-command.ts';

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
export interface CommandHost extends StreamHost {
  readonly id: string;
  readonly state: string;
  readonly config: Pick<Config, 'exec_max' | 'exec_timeout_ms' | 'exec_output_bytes_max' | 'container_timeout_ms'>;
  readonly agent: Pick<GuestAgent, 'exec' | 'endExec' | 'spawn' | 'hasEnded'>;
  readonly agentReady: boolean;
}

/** Commands that callers have run in one guest. */
export class GuestCommands {
  readonly #host: CommandHost;
  /** Those that are carried on now; a reset of the guest ends them. */
  readonly #streams = new Set<StreamedCommand>();
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
    checkCommand(command);
    const { config, id, agent, gone } = this.#host;
    using _counted = this.#count();
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
      throw refused(error, id, command.path);
    }
  }

  /**
   * Runs one command with its streams, for as long as `use` takes. Whatever ends that, nothing of the command is left
   * then: one that still runs is killed.
   * @throws as `run` and StreamedCommand.start, and what `use` throws
   */
  async stream(
    command: CommandSpec,
    signal: AbortSignal,
    use: (running: StreamedCommand) => Promise<void>,
  ): Promise<void> {
    checkCommand(command);
    checkStreams(command);
    using _counted = this.#count();
    const { id, log, gone } = this.#host;
    const running = await StreamedCommand.start(this.#host, command, AbortSignal.any([signal, gone])).catch(
      (error: unknown) => {
        throw refused(error, id, command.path);
      },
    );
    this.#streams.add(running);
    try {
      await use(running);
    } finally {
      this.#streams.delete(running);
      const how = await running.end();
      const facts = { path: command.path, pid: running.pid };
      if (how === 'killed') log.info(facts, 'command killed in the guest: its call has ended');
      if (how === 'unseen') log.warn(facts, 'command not seen to end in the guest, its ports are taken away');
    }
  }

  /** No command has survived the reset of the guest. */
  guestReset(): void {
    const message = 'the guest was reset, and the command with it';
    for (const each of this.#streams) each.lose(new ShimError('UNAVAILABLE', message, { reason: 'GUEST_RESET' }));
  }

  /** @throws ShimError FAILED_PRECONDITION / GUEST_AGENT_NOT_READY; RESOURCE_EXHAUSTED / TOO_MANY_COMMANDS */
  #count(): Disposable {
    const { config, id, state, agentReady } = this.#host;
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
    return { [Symbol.dispose]: () => (this.#running -= 1) };
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

/** @throws ShimError INVALID_ARGUMENT */
function checkCommand({ path, args, environment }: Pick<GuestCommand, 'path' | 'args' | 'environment'>): void {
  // QGA looks a bare name up in the PATH of its own environment (G_SPAWN_SEARCH_PATH).
  if (path === '' || (!path.startsWith('/') && path.includes('/'))) {
    const problem = 'must be an absolute path in the guest, or a name to be found in the PATH of its agent';
    throw invalidArgument('path', path, problem);
  }
  if ([path, ...args, ...environment].some((text) => text.includes('\0'))) {
    throw invalidArgument('arguments', '', 'must not contain NUL');
  }
}

/** @throws ShimError INVALID_ARGUMENT */
function checkStreams({ path, environment, directory, terminal }: CommandSpec): void {
  if (!directory.startsWith('/') || directory.includes('\0')) {
    throw invalidArgument('working_directory', directory, 'must be an absolute path in the guest');
  }
  // env(1) in the guest takes everything of that form for a variable, and what comes first without it for the program.
  const unnamed = environment.find((text) => text.indexOf('=') < 1);
  if (unnamed !== undefined) throw invalidArgument('environment', unnamed, 'must be NAME=VALUE');
  if (environment.length > 0 && path.includes('=')) {
    throw invalidArgument('path', path, 'must not contain "=" when the command has an environment of its own');
  }
  if (terminal !== undefined) checkTerminalSize(terminal);
}

/** @throws ShimError INVALID_ARGUMENT. Linux counts them in 16 bits (struct winsize). */
export function checkTerminalSize({ rows, columns }: TerminalSize): void {
  const isSize = (value: number): boolean => value >= 1 && value <= 65_535;
  if (!isSize(rows) || !isSize(columns)) {
    throw invalidArgument('terminal size', `${rows} x ${columns}`, 'must be 1 to 65535 rows and columns');
  }
}

/** What the agent refuses, as the caller hears it. */
function refused(error: unknown, sandboxId: string, path: string): unknown {
  if (!(error instanceof GuestAgentError)) return error;
  return new ShimError('FAILED_PRECONDITION', `the guest did not run ${path}: ${error.message}`, {
    reason: 'GUEST_EXEC_REFUSED',
    metadata: { sandboxId, path },
    cause: error,
  });
}
