import { Backoff } from '../base/backoff.ts';
import { Coalesced } from '../base/coalesce.ts';
import type { GuestBudget } from '../base/budget.ts';
import { Deadline } from '../base/deadline.ts';
import { invalidArgument, isShimError, messageOf, ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { guestScript } from './programs.ts';
import { AgentChannel, type AgentRequest } from './channel.ts';
import {
  DISKS,
  EXEC,
  EXEC_STATUS,
  FILE_HANDLE,
  FILE_READ,
  INFO,
  MOUNTS,
  parseAs,
  toDisk,
  toMount,
  type GuestDisk,
  type GuestMount,
} from './replies.ts';
import { GuestAgentError, type AgentCommand, type LineLimit } from './wire.ts';

export type { GuestDisk, GuestMount, PciAddress } from './replies.ts';
export { GuestAgentError } from './wire.ts';

/**
 * What the daemon asks of a guest, and what it hears from it:
 *
 *     disks.ts, luks.ts ─ run-script.ts, programs.ts ─▶ agent.ts ─▶ channel.ts: one at a time ─▶ link.ts ─▶ the agent
 *     disk-names.ts ──────────────────────────────────────▲           replies.ts, wire.ts: what comes back, checked
 *     the guest's kernel ─▶ uevents.ts ─▶ disk-arrivals.ts ─▶ guest-events.ts
 *     containers/ has its own picture (containers.ts); identity.ts and player.ts make a clone a machine of its own
 */

/** What QGA captures of stdout and of stderr at most (GUEST_EXEC_MAX_OUTPUT). */
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
const INPUT_BYTES_MAX = 16 * 1024 * 1024;
/** The longest reply to a command that says nothing else: guest-info, the longest of these, has some 6 KB. */
const REPLY_LIMIT: LineLimit = { lineBytesMax: 64 * 1024 };
/** Lists of disks and mounts: some 400 bytes for each of them, and at most some hundred have room in a guest. */
const LIST_LIMIT: LineLimit = { lineBytesMax: 1024 * 1024 };
/** What guest-exec-status has beside the output: numbers. */
const STATUS_REST_BYTES_MAX = 16 * 1024;
const END_PROCESS = guestScript('end-process');
const POLL_FIRST_MS = 2;
const POLL_MAX_MS = 50;

export interface GuestAgentOptions {
  /** The unix socket of QEMU's chardev (`server=on`) behind the port org.qemu.guest_agent.0. */
  readonly path: string;
  readonly log: Logger;
  /** How long one request may take, waiting in the queue included. Default 10 s. */
  readonly requestTimeoutMs?: number;
  /** The longest line that is read, kept or not, of replies that hold the output of a program. Default 48 MiB. */
  readonly lineBytesMax?: number;
  /** How many requests may wait. Default 256. */
  readonly queueMax?: number;
  /** What this guest may cost. None: nobody counts. */
  readonly budget?: GuestBudget;
}

export interface ExecRequest {
  readonly path: string;
  readonly args?: readonly string[];
  /** `NAME=value`. When given, the process gets these and nothing else; otherwise the agent's own environment. */
  readonly env?: readonly string[];
  /** For the process's stdin, at most 16 MiB. It never becomes a string, and no copy of it outlives the write. */
  readonly input?: Uint8Array;
  readonly timeoutMs: number;
  /** What is kept of stdout and of stderr, each. Default, and the agent's own limit: 16 MiB. */
  readonly outputBytesMax?: number;
  readonly signal?: AbortSignal;
}

export interface ExecResult {
  /** Set when the process ended by itself. */
  readonly exitCode?: number;
  /** Set when a signal ended it. */
  readonly signal?: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Some output was left out. */
  readonly truncated: boolean;
  readonly pid: number;
}

/**
 * A client of qemu-guest-agent that outlives the agent, its guest's reboots and its own connection: after each, the
 * next request finds the agent again if it is back within the request's time.
 *
 * Every method rejects with GuestAgentError when the agent refuses, and otherwise with a ShimError:
 * DEADLINE_EXCEEDED/GUEST_AGENT_TIMEOUT (no answer; metadata `sent` tells whether the guest may have seen the
 * request), UNAVAILABLE/GUEST_AGENT_LOST (QEMU's socket is gone, or the agent was restarted meanwhile),
 * UNAVAILABLE/GUEST_AGENT_GARBAGE, UNAVAILABLE/GUEST_AGENT_CLOSED, RESOURCE_EXHAUSTED/AGENT_QUEUE_FULL,
 * RESOURCE_EXHAUSTED/GUEST_AGENT_REPLY_TOO_LARGE.
 */
export class GuestAgent implements AsyncDisposable {
  readonly #channel: AgentChannel;
  readonly #log: Logger;
  readonly #requestTimeoutMs: number;
  readonly #lineBytesMax: number;
  /** What its guest may cost, over this channel and others. */
  readonly budget: GuestBudget | undefined;
  // The agent's lists grow with the number of disks: callers that ask at the same time share one answer.
  readonly #diskList = new Coalesced(async () =>
    parseAs(DISKS, 'guest-get-disks', await this.#ask({ name: 'guest-get-disks' }, { reply: LIST_LIMIT })).map(toDisk),
  );
  readonly #mountList = new Coalesced(async () =>
    parseAs(MOUNTS, 'guest-get-fsinfo', await this.#ask({ name: 'guest-get-fsinfo' }, { reply: LIST_LIMIT })).map(
      toMount,
    ),
  );

  constructor(options: GuestAgentOptions) {
    this.#log = options.log;
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 10_000;
    this.#lineBytesMax = options.lineBytesMax ?? 48 * 1024 * 1024;
    this.budget = options.budget;
    this.#channel = new AgentChannel({
      path: options.path,
      log: options.log,
      requestTimeoutMs: this.#requestTimeoutMs,
      queueMax: options.queueMax ?? 256,
      budget: options.budget,
    });
  }

  /** `ready`: the last exchange was answered and its connection is open. It says nothing about the next one. */
  get state(): 'down' | 'ready' {
    return this.#channel.answering ? 'ready' : 'down';
  }

  /**
   * Connects, waiting for the socket if need be, and returns once the agent has answered (guest-sync-delimited).
   * @throws ShimError DEADLINE_EXCEEDED/GUEST_AGENT_TIMEOUT, or the signal's reason
   */
  async waitReady(options: { readonly timeoutMs: number; readonly signal?: AbortSignal }): Promise<void> {
    await this.#channel.request(options);
  }

  /**
   * A hint, from VSERPORT_CHANGE, that the agent may have come or gone: asks it at once. Never needed, only quicker.
   */
  nudge(): void {
    this.#channel.nudge();
  }

  /** guest-ping. */
  async ping(): Promise<void> {
    await this.#ask({ name: 'guest-ping' });
  }

  /** guest-info: the agent's version and the commands that are enabled. */
  async info(): Promise<{ version: string; commands: ReadonlySet<string> }> {
    const info = parseAs(INFO, 'guest-info', await this.#ask({ name: 'guest-info' }));
    const enabled = info.supported_commands.filter((command) => command.enabled);
    return { version: info.version, commands: new Set(enabled.map((command) => command.name)) };
  }

  /** guest-get-disks (QGA 5.2): all disks and partitions, also those that nothing uses. */
  disks(): Promise<readonly GuestDisk[]> {
    return this.#diskList.run();
  }

  /**
   * The first bytes of a file in the guest. Costs the same whatever the guest holds, unlike the lists above.
   * @param bytesMax at most 4096: the answer is to be small, and to come at once
   * @throws besides the class's errors, GuestAgentError when there is no such file
   */
  async readFile(path: string, bytesMax: number): Promise<Buffer> {
    const opened = await this.#ask({ name: 'guest-file-open', args: { path, mode: 'r' } });
    const handle = parseAs(FILE_HANDLE, 'guest-file-open', opened);
    try {
      const answer = await this.#ask({ name: 'guest-file-read', args: { handle, count: bytesMax } });
      return Buffer.from(parseAs(FILE_READ, 'guest-file-read', answer)['buf-b64'], 'base64');
    } finally {
      // Nobody waits for it. An agent that is gone has closed the file with itself.
      this.#ask({ name: 'guest-file-close', args: { handle } }).catch((error: unknown) => {
        this.#log.debug({ problem: messageOf(error) }, 'guest file not closed');
      });
    }
  }

  /**
   * Writes a file in the guest, from its beginning.
   * @throws besides the class's errors, GuestAgentError when it cannot be opened or written
   */
  async writeFile(path: string, text: string): Promise<void> {
    const opened = await this.#ask({ name: 'guest-file-open', args: { path, mode: 'w' } });
    const handle = parseAs(FILE_HANDLE, 'guest-file-open', opened);
    try {
      await this.#ask({
        name: 'guest-file-write',
        args: { handle, 'buf-b64': Buffer.from(text).toString('base64') },
      });
    } finally {
      // The agent buffers: the file has the bytes once it is closed.
      await this.#ask({ name: 'guest-file-close', args: { handle } });
    }
  }

  /**
   * Makes sure that the next request finds a link that was answered on just now; never fails, and is not waited for.
   */
  warmUp(): void {
    this.#channel.warmUp();
  }

  /** guest-get-fsinfo: the mounts of the agent's own mount namespace that lie on disks. */
  mounts(): Promise<readonly GuestMount[]> {
    return this.#mountList.run();
  }

  /**
   * guest-exec: runs a program and waits until it has ended and everybody has closed its stdout and stderr; a process
   * that it leaves in the background with them open prolongs the wait. QGA has no event for the end, so
   * guest-exec-status is polled, after 2 ms first and every 50 ms later.
   * @throws besides the class's errors, ShimError DEADLINE_EXCEEDED/GUEST_EXEC_TIMEOUT with `pid` in the metadata: the
   * process was started and goes on, nothing in the guest is killed. UNAVAILABLE/GUEST_AGENT_LOST with `pid`: it was
   * started, and its agent ended before it told how it went.
   */
  async exec(request: ExecRequest): Promise<ExecResult> {
    const { path, args, env, input, timeoutMs, signal } = request;
    if (input !== undefined && input.length > INPUT_BYTES_MAX) {
      throw invalidArgument('input', `${input.length} bytes`, `at most ${INPUT_BYTES_MAX} bytes are allowed`);
    }
    const deadline = Deadline.after(timeoutMs);
    this.#log.debug({ path }, 'guest exec');
    const started = await this.#ask(
      {
        name: 'guest-exec',
        args: { path, ...(args && { arg: args }), ...(env && { env }), 'capture-output': true },
        ...(input && { bytes: { field: 'input-data', value: input } }),
      },
      { timeoutMs: Math.min(this.#requestTimeoutMs, deadline.remainingMs), ...(signal && { signal }) },
    );
    const { pid } = parseAs(EXEC, 'guest-exec', started);
    const outputBytesMax = Math.min(request.outputBytesMax ?? OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX);
    const backoff = new Backoff(POLL_FIRST_MS, POLL_MAX_MS);
    for (;;) {
      await backoff.pause(signal, deadline);
      const result = await this.#execStatus(pid, deadline, outputBytesMax, signal);
      if (result !== undefined) return result;
      if (deadline.expired) throw execTimeoutError(path, pid, timeoutMs);
    }
  }

  /**
   * Ends a process that `exec` has left running, and the processes below it (SIGKILL), and collects its output.
   * @returns `ended`: it was seen to be gone. `result`: how it ended; none while something else holds its output open.
   */
  async endExec(
    pid: number,
    { timeoutMs, outputBytesMax = OUTPUT_BYTES_MAX }: Pick<ExecRequest, 'timeoutMs' | 'outputBytesMax'>,
  ): Promise<{ readonly ended: boolean; readonly result?: ExecResult }> {
    const deadline = Deadline.after(timeoutMs);
    const args = ['-c', END_PROCESS, 'sh', String(pid)];
    const { stdout } = await this.exec({ path: '/bin/sh', args, timeoutMs });
    const ended = stdout.toString('latin1').trim() === 'ended=1';
    const backoff = new Backoff(POLL_FIRST_MS, POLL_MAX_MS);
    while (ended && !deadline.expired) {
      const result = await this.#execStatus(pid, deadline, Math.min(outputBytesMax, OUTPUT_BYTES_MAX), undefined);
      if (result !== undefined) return { ended, result };
      await backoff.pause(undefined, deadline);
    }
    return { ended };
  }

  /**
   * guest-exec of a program that nobody waits for: nothing of its output is kept. The agent remembers how it ended
   * until somebody asks (`hasEnded`). @returns its process id
   */
  async spawn({ path, args, signal }: Pick<ExecRequest, 'path' | 'args' | 'signal'>): Promise<number> {
    this.#log.debug({ path }, 'guest exec');
    const command = { name: 'guest-exec', args: { path, ...(args && { arg: args }), 'capture-output': false } };
    return parseAs(EXEC, 'guest-exec', await this.#ask(command, { ...(signal && { signal }) })).pid;
  }

  /** guest-exec-status of a program that was spawned. The agent forgets one that has ended. */
  async hasEnded(pid: number): Promise<boolean> {
    const answer = await this.#ask({ name: 'guest-exec-status', args: { pid } });
    return parseAs(EXEC_STATUS, 'guest-exec-status', answer).exited;
  }

  /**
   * guest-shutdown. Resolves when the agent took the request without complaint, fell silent or went away: QGA does not
   * answer it on success. Whether the guest went down is for the caller to observe (QMP: SHUTDOWN, RESET).
   */
  async shutdown(mode: 'powerdown' | 'reboot' | 'halt'): Promise<void> {
    await this.#ask({ name: 'guest-shutdown', args: { mode } }, { silent: true });
  }

  /** Fails what is queued or under way with GUEST_AGENT_CLOSED and closes the connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  async #ask(command: AgentCommand, options: Partial<Omit<AgentRequest, 'command'>> = {}): Promise<unknown> {
    const reply = options.reply ?? REPLY_LIMIT;
    const lineBytesMax = Math.min(reply.lineBytesMax, this.#lineBytesMax);
    return await this.#channel.request({
      timeoutMs: this.#requestTimeoutMs,
      ...options,
      reply: { ...reply, lineBytesMax },
      command,
    });
  }

  /** The agent sends all that it has captured. More than is wanted is not kept, and does not have to be parsed. */
  #outputLimit(outputBytesMax: number): LineLimit {
    // One group more than the output takes: so that it is seen to have been cut.
    const bytesMax = (Math.ceil(outputBytesMax / 3) + 1) * 4;
    return { lineBytesMax: this.#lineBytesMax, strings: { bytesMax, restBytesMax: STATUS_REST_BYTES_MAX } };
  }

  /** One poll; undefined: it still runs, or the agent was too slow to say while time is left. */
  async #execStatus(
    pid: number,
    deadline: Deadline,
    outputBytesMax: number,
    signal: AbortSignal | undefined,
  ): Promise<ExecResult | undefined> {
    const command = 'guest-exec-status';
    let answer: unknown;
    try {
      // At the deadline there is one last look: the process may have ended in time.
      const timeoutMs = Math.max(1000, Math.min(this.#requestTimeoutMs, deadline.remainingMs));
      const reply = this.#outputLimit(outputBytesMax);
      answer = await this.#ask({ name: command, args: { pid } }, { timeoutMs, reply, ...(signal && { signal }) });
    } catch (error) {
      if (isShimError(error, 'DEADLINE_EXCEEDED')) return undefined;
      throw execLostError(pid, error);
    }
    const status = parseAs(EXEC_STATUS, command, answer);
    if (!status.exited) return undefined;
    const stdout = Buffer.from(status['out-data'] ?? '', 'base64');
    const stderr = Buffer.from(status['err-data'] ?? '', 'base64');
    const cut = stdout.length > outputBytesMax || stderr.length > outputBytesMax;
    return {
      ...(status.exitcode !== undefined && { exitCode: status.exitcode }),
      ...(status.signal !== undefined && { signal: status.signal }),
      stdout: stdout.subarray(0, outputBytesMax),
      stderr: stderr.subarray(0, outputBytesMax),
      truncated: cut || status['out-truncated'] === true || status['err-truncated'] === true,
      pid,
    };
  }
}

function execTimeoutError(path: string, pid: number, timeoutMs: number): ShimError {
  const message = `${path} did not end within ${timeoutMs} ms in the guest; process ${pid} was left running`;
  return new ShimError('DEADLINE_EXCEEDED', message, {
    reason: 'GUEST_EXEC_TIMEOUT',
    metadata: { path, pid: String(pid), timeoutMs: String(timeoutMs) },
  });
}

/** The agent's only refusal of guest-exec-status is that it does not know the process: another agent started it. */
function execLostError(pid: number, error: unknown): unknown {
  if (!(error instanceof GuestAgentError)) return error;
  return new ShimError('UNAVAILABLE', `the guest agent was restarted and does not know process ${pid} any more`, {
    reason: 'GUEST_AGENT_LOST',
    metadata: { command: 'guest-exec-status', pid: String(pid) },
    cause: error,
  });
}

/** A client of the agent behind this socket, within the configured limits. */
export function agentFor(
  path: string,
  config: {
    readonly agent_timeout_ms: number;
    readonly agent_line_bytes_max: number;
    readonly agent_queue_max: number;
  },
  log: Logger,
  budget?: GuestBudget,
): GuestAgent {
  return new GuestAgent({
    path,
    log,
    requestTimeoutMs: config.agent_timeout_ms,
    lineBytesMax: config.agent_line_bytes_max,
    queueMax: config.agent_queue_max,
    ...(budget && { budget }),
  });
}
