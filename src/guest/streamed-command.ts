import { randomBytes } from 'node:crypto';
import { Backoff } from '../base/backoff.ts';
import { waitFor } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { written } from '../base/written.ts';
import type { GuestAgent } from './agent.ts';
import { PortsAbsent, withPorts } from './containers/absent-ports.ts';
import type { Port, PortKind, Ports } from './containers/port.ts';
import { PortReader, PortWriter } from './containers/streams.ts';
import { guestScript } from './programs.ts';
import { parseFacts, type Facts } from './run-script.ts';

const PREPARE = guestScript('prepare-command');
const RUN = guestScript('run-command');
const OUTPUT_BYTES_MAX = 64 * 1024;
const LINE_CHARS_MAX = 64;
/** From the word that a command shall end to the news that it has; also for QEMU to let go of its ports. */
const END_TIMEOUT_MS = 5000;
const FORGET_TRIES = 5;

/** In characters. */
export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface CommandSpec {
  /** Absolute, or a name in the PATH of the guest's agent. */
  readonly path: string;
  readonly args: readonly string[];
  /** `NAME=value`; none: the agent's own environment. */
  readonly environment: readonly string[];
  /** Absolute. */
  readonly directory: string;
  readonly terminal: TerminalSize | undefined;
}

/** What a command with streams needs of its sandbox. */
export interface StreamHost {
  readonly log: Logger;
  readonly agent: Pick<GuestAgent, 'exec' | 'spawn' | 'hasEnded'>;
  readonly ports: Ports;
  readonly gone: AbortSignal;
  readonly config: { readonly container_timeout_ms: number };
  inBackground(purpose: string, work: Promise<void>): void;
}

/** How it was with a command when it was let go. `unseen`: it was told to end, and nobody has seen that it did. */
export type CommandEnd = 'exited' | 'killed' | 'unseen' | 'lost';

interface CommandPorts {
  readonly control: Port;
  readonly stdin: Port;
  readonly stdout: Port;
  readonly stderr: Port | undefined;
}

/**
 * One command in the guest whose streams are ports of its own (programs/run-command.sh), plugged for it and unplugged
 * after it. Bytes wait in the FIFOs behind them (sandbox/ports.ts): neither side is read faster than the other takes.
 *
 * A control port goes with them. On it the guest tells the command's pid and exit code, and the host tells signals and
 * sizes. The command ends with that port, so that unplugging is enough where nobody answers.
 */
export class StreamedCommand {
  readonly stdout: PortReader;
  /** Undefined with a terminal. */
  readonly stderr: PortReader | undefined;
  readonly #host: StreamHost;
  readonly #spec: CommandSpec;
  readonly #ports: CommandPorts;
  readonly #stdin: PortWriter;
  readonly #control: { readonly from: PortReader; readonly to: PortWriter };
  readonly #token = randomBytes(16).toString('hex');
  readonly #started = Promise.withResolvers<number>();
  readonly #exited = Promise.withResolvers<number>();
  readonly #onGone = (): void => this.lose(this.#host.gone.reason);
  #state: 'coming' | 'running' | 'exited' | 'lost' = 'coming';
  /** Process id in the guest of the shell that runs it. */
  #runner: number | undefined;
  #pid = 0;
  #size: TerminalSize | undefined;
  #resizing: Promise<void> | undefined;
  #ending: Promise<CommandEnd> | undefined;

  private constructor(host: StreamHost, spec: CommandSpec, ports: CommandPorts) {
    this.#host = host;
    this.#spec = spec;
    this.#ports = ports;
    const { control, stdin, stdout, stderr } = ports;
    const output = host.ports.budget?.stream;
    this.stdout = quiet(new PortReader(stdout.outputPath ?? '', this.#token, output));
    this.stderr = stderr && quiet(new PortReader(stderr.outputPath ?? '', this.#token, output));
    this.#stdin = quiet(new PortWriter(stdin.inputPath ?? '', () => host.ports.endInput(stdin.nr)));
    this.#control = {
      from: quiet(new PortReader(control.outputPath ?? '', undefined, host.ports.budget?.control('ports'))),
      to: quiet(new PortWriter(control.inputPath ?? '', () => Promise.resolve())),
    };
    for (const { promise } of [this.#started, this.#exited]) promise.catch(() => undefined);
    host.gone.addEventListener('abort', this.#onGone, { once: true });
  }

  /**
   * Plugs its ports and runs it. Resolves when the guest has told its pid.
   * @throws ShimError FAILED_PRECONDITION / GUEST_EXEC_REFUSED with the guest's words; DEADLINE_EXCEEDED /
   *   GUEST_EXEC_TIMEOUT when it was not seen to start; RESOURCE_EXHAUSTED / NO_PORT; UNAVAILABLE / PORT_NOT_SEEN; what
   *   GuestAgent.exec throws; the signal's reason. Nothing is left then.
   */
  static async start(host: StreamHost, spec: CommandSpec, signal: AbortSignal): Promise<StreamedCommand> {
    signal.throwIfAborted();
    const kinds: readonly PortKind[] =
      spec.terminal === undefined ? ['duplex', 'input', 'output', 'output'] : ['duplex', 'duplex'];
    const [control, stdin, stdout = stdin, stderr] = await host.ports.add(kinds);
    if (control === undefined || stdin === undefined || stdout === undefined) throw new Error('ports are missing');
    const command = new StreamedCommand(host, spec, { control, stdin, stdout, stderr });
    try {
      await command.#start(signal);
    } catch (error) {
      await command.end();
      throw error;
    }
    return command;
  }

  get pid(): number {
    return this.#pid;
  }

  /** Resolves with its exit code, as shells have it; rejects when nobody can say any more how it ended. */
  get exited(): Promise<number> {
    return this.#exited.promise;
  }

  /** Resolves when the bytes are on their way; waits for as long as the command does not read. */
  async write(bytes: Uint8Array): Promise<void> {
    await written(this.#stdin, bytes);
  }

  /** The command reads end of file after the last byte. With a terminal nothing happens. */
  async endInput(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#stdin.once('error', reject);
    this.#stdin.end(() => resolve());
    await promise;
  }

  async signal(number: number): Promise<void> {
    await this.#say(`signal ${number}`);
  }

  /** The last of several counts. */
  resize(size: TerminalSize): void {
    this.#size = size;
    this.#resizing ??= this.#tellSizes().catch((error: unknown) => {
      this.#host.log.debug({ problem: messageOf(error) }, 'size of a terminal not told');
    });
  }

  /** Nobody can tell any more how it ends: the VM is gone, or the guest was reset. */
  lose(reason: unknown): void {
    if (this.#state === 'exited' || this.#state === 'lost') return;
    this.#state = 'lost';
    this.#started.reject(reason);
    this.#exited.reject(reason);
  }

  /** Kills it where it still runs, and takes its ports out. What was not read of its output is lost. Never rejects. */
  end(): Promise<CommandEnd> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #start(signal: AbortSignal): Promise<void> {
    const { host, spec } = { host: this.#host, spec: this.#spec };
    const { control, stdin, stdout, stderr } = this.#ports;
    const { terminal, environment, args, directory } = spec;
    const program = await withPorts(host.ports, () => this.#prepare(signal));
    this.#listen();
    const plain = terminal === undefined;
    const numbers = [control.nr, ...(plain ? [stdin.nr, stdout.nr, stderr?.nr ?? 0, 0] : [0, 0, 0, stdin.nr])];
    const size = [terminal?.rows ?? 0, terminal?.columns ?? 0];
    const command = [String(environment.length), ...environment, program, ...args];
    const words = [this.#token, ...numbers.map(String), ...size.map(String), directory, ...command];
    this.#runner = await host.agent.spawn({ path: '/bin/sh', args: ['-c', RUN, 'sh', ...words], signal });
    const milliseconds = host.config.container_timeout_ms;
    const onTimeout = (): Error =>
      new ShimError('DEADLINE_EXCEEDED', `the guest has not said within ${milliseconds} ms that ${spec.path} runs`, {
        reason: 'GUEST_EXEC_TIMEOUT',
        metadata: { path: spec.path, timeoutMs: String(milliseconds) },
      });
    this.#pid = await waitFor(this.#started.promise, { milliseconds, signal, onTimeout });
  }

  /** @returns the program's path. @throws PortsAbsent */
  async #prepare(signal: AbortSignal): Promise<string> {
    const { path, directory, terminal } = this.#spec;
    const numbers = this.#numbers.map(String);
    const { stdout, stderr } = await this.#host.agent.exec({
      path: '/bin/sh',
      args: ['-c', PREPARE, 'sh', path, directory, terminal === undefined ? '0' : '1', ...numbers],
      timeoutMs: this.#host.config.container_timeout_ms,
      outputBytesMax: OUTPUT_BYTES_MAX,
      signal,
    });
    const facts: Facts = parseFacts(stdout.toString('utf8'));
    const absent = facts.get('absent');
    if (absent !== undefined) throw new PortsAbsent(absent.map(Number));
    if (facts.has('ready')) return path.startsWith('/') ? path : (facts.get('program')?.[0] ?? path);
    const words = stderr.toString('utf8').replace(/\s+/g, ' ').trim();
    throw new ShimError('FAILED_PRECONDITION', `the guest did not run ${path}: ${words}`, {
      reason: 'GUEST_EXEC_REFUSED',
      metadata: { path },
    });
  }

  get #numbers(): readonly number[] {
    const { control, stdin, stdout, stderr } = this.#ports;
    return [...new Set([control, stdin, stdout, stderr].flatMap((port) => (port === undefined ? [] : [port.nr])))];
  }

  /** Lines that are none of the guest's program are passed over. */
  #listen(): void {
    const { from } = this.#control;
    let line = '';
    from.setEncoding('latin1');
    from.on('data', (text: string) => {
      const lines = (line + text).split('\n');
      line = (lines.pop() ?? '').slice(-LINE_CHARS_MAX);
      for (const each of lines) this.#hear(each);
    });
  }

  #hear(line: string): void {
    const [, word, digits] = /^(pid|exit) (\d{1,7})$/.exec(line) ?? [];
    if (word === 'pid' && this.#state === 'coming') {
      this.#state = 'running';
      this.#started.resolve(Number(digits));
    } else if (word === 'exit' && this.#state === 'running') {
      this.#state = 'exited';
      this.#exited.resolve(Number(digits));
      this.stdout.processEnded();
      this.stderr?.processEnded();
      this.#control.from.destroy();
    }
  }

  async #say(line: string): Promise<void> {
    await written(this.#control.to, Buffer.from(`${line}\n`));
  }

  async #tellSizes(): Promise<void> {
    try {
      while (this.#size !== undefined) {
        const { rows, columns } = this.#size;
        this.#size = undefined;
        await this.#say(`size ${rows} ${columns}`);
      }
    } finally {
      this.#resizing = undefined;
    }
  }

  async #end(): Promise<CommandEnd> {
    const { gone, ports } = this.#host;
    const how = await this.#endCommand();
    gone.removeEventListener('abort', this.#onGone);
    for (const stream of [this.stdout, this.stderr, this.#stdin, ...Object.values(this.#control)]) stream?.destroy();
    const removal = ports.remove(this.#numbers);
    this.#host.inBackground('removal of the ports of a command', removal);
    await waitFor(removal, { milliseconds: END_TIMEOUT_MS }).catch(() => undefined);
    if (how === 'exited' || how === 'killed') this.#host.inBackground('end of a command', this.#forget());
    return how;
  }

  async #endCommand(): Promise<CommandEnd> {
    if (this.#state === 'exited' || this.#state === 'lost') return this.#state;
    if (this.#runner === undefined) return 'unseen';
    const ended = this.#say('end').then(() => this.exited);
    return await waitFor(ended, { milliseconds: END_TIMEOUT_MS }).then(
      () => 'killed',
      () => (this.#state === 'lost' ? 'lost' : 'unseen'),
    );
  }

  /** The agent keeps the runner's end until it was asked for; it ends right after the command. */
  async #forget(): Promise<void> {
    if (this.#runner === undefined) return;
    const backoff = new Backoff(10, 500);
    for (let tries = 0; tries < FORGET_TRIES; tries += 1) {
      if (await this.#host.agent.hasEnded(this.#runner)) return;
      await backoff.pause(this.#host.gone);
    }
  }
}

/** Whoever uses a stream hears of its failure. Nobody else has to. */
function quiet<T extends PortReader | PortWriter>(stream: T): T {
  stream.on('error', () => undefined);
  return stream;
}
