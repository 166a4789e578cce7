import { randomInt } from 'node:crypto';
import { Backoff } from '../base/backoff.ts';
import { monotonicMs } from '../base/deadline.ts';
import type { GuestBudget } from '../base/budget.ts';
import { errnoOf, messageOf, ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { closedError, garbageError, lostError, queueFullError, tooLargeError } from './channel-errors.ts';
import { AgentLink } from './link.ts';
import { commandLine, GuestAgentError, parseReply, type AgentCommand, type AgentLine, type LineLimit } from './wire.ts';

const SYNC_FIRST_MS = 20;
const SYNC_FAST_MAX_MS = 250;
const SYNC_SLOW_MS = 1000;
/** So many syncs go out with growing pauses of at most 250 ms; later ones once a second. */
const SYNCS_FAST_MAX = 6;
/** With so many unanswered the link is made anew, which throws away those that QEMU has not read. */
const SYNCS_OUTSTANDING_MAX = 16;
/** After so long without an answer, the agent is asked again for a sync before a command is sent. */
const IDLE_SYNC_MS = 1000;
/** After so long without a reply, and then at doubled distances, a sync is sent behind a request. */
const PROBE_FIRST_MS = 250;
const PROBES_MAX = 6;
const PROBE_MAX_MS = PROBE_FIRST_MS * 2 ** PROBES_MAX;
/** So many replies to requests that were given up may come before the one that is waited for. */
const STALE_REPLIES_MAX = 16;
/** How long the agent may still complain about a command that has no reply when it succeeds. */
const SILENT_REPLY_MS = 1000;
/** A guest whose connection was ended for what it sent gets the next one after such a time, doubled each time. */
const FLOODED_PAUSE_MS = 100;
const FLOODED_PAUSE_MAX_MS = 10_000;
/** The longest reply to a command that says nothing of it. */
const REPLY_LIMIT: LineLimit = { lineBytesMax: 64 * 1024 };

export interface AgentChannelOptions {
  readonly path: string;
  readonly log: Logger;
  readonly requestTimeoutMs: number;
  readonly queueMax: number;
  readonly budget: GuestBudget | undefined;
}

export interface AgentRequest {
  /** Undefined: only synchronise, and wait for a socket that is not there yet. */
  readonly command?: AgentCommand;
  /** True for a command that QGA does not answer when it succeeds (`success-response: false`). */
  readonly silent?: boolean;
  /** What its reply may have. 64 KiB. */
  readonly reply?: LineLimit;
  /** From the call on, waiting in the queue included. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

interface Job {
  readonly request: AgentRequest;
  readonly name: string;
  /** Aborted with the error that ends the job: its time is over, or the channel is disposed. */
  readonly stop: AbortController;
  readonly done: PromiseWithResolvers<unknown>;
  /** True once the command was written: from then on the guest may have run it, whatever comes. */
  sent: boolean;
  /** Ends the job when its time is over, also when its caller has gone: the channel must not wait for ever. */
  timer: NodeJS.Timeout | undefined;
}

/**
 * Asks the agent one thing at a time, first come first served.
 *
 * INVARIANTS: a command is written only right after the agent has answered on the same link (a sync, or a reply less
 * than a second ago), so a command is not left lying in front of a guest that is down; after anything unexpected the
 * next command waits for a sync whose id was drawn for it, and everything before is thrown away, so a late reply
 * belongs to nobody.
 */
export class AgentChannel implements AsyncDisposable {
  readonly #options: AgentChannelOptions;
  readonly #log: Logger;
  #queue: Job[] = [];
  #current: Job | undefined;
  #link: AgentLink | undefined;
  #running: Promise<void> = Promise.resolve();
  #synced = false;
  #answeredAtMs = Number.NEGATIVE_INFINITY;
  #onNudge: (() => void) | undefined;
  #closed = false;
  /** The longest reply that may still come to a request that was given up. */
  #owedBytes = 0;
  readonly #floodedBackoff = new Backoff(FLOODED_PAUSE_MS, FLOODED_PAUSE_MAX_MS);
  #notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(options: AgentChannelOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** True while the last exchange was answered and its link is open. */
  get answering(): boolean {
    return this.#synced && this.#link?.open === true;
  }

  /**
   * Queues one request and returns what the agent returned.
   * @throws GuestAgentError when the agent refuses it; ShimError DEADLINE_EXCEEDED/GUEST_AGENT_TIMEOUT,
   * UNAVAILABLE/GUEST_AGENT_LOST, UNAVAILABLE/GUEST_AGENT_GARBAGE, UNAVAILABLE/GUEST_AGENT_CLOSED,
   * RESOURCE_EXHAUSTED/AGENT_QUEUE_FULL, RESOURCE_EXHAUSTED/GUEST_AGENT_REPLY_TOO_LARGE
   */
  async request(request: AgentRequest): Promise<unknown> {
    const { signal, timeoutMs } = request;
    signal?.throwIfAborted();
    if (this.#closed) throw closedError();
    if (this.#queue.length >= this.#options.queueMax) throw queueFullError(this.#options.queueMax);
    const job: Job = {
      request,
      name: request.command?.name ?? 'guest-sync-delimited',
      stop: new AbortController(),
      done: Promise.withResolvers(),
      sent: false,
      timer: undefined,
    };
    job.timer = setTimeout(() => this.#end(job, timeoutError(job)), timeoutMs);
    const onAbort = (): void => this.#callerLeft(job);
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#queue.push(job);
    if (this.#current === undefined) this.#running = this.#run();
    try {
      return await job.done.promise;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /**
   * Asks an idle agent for a sync now, so that a command which comes in a moment need not wait for one first. Without
   * effect while the channel is in use or was answered on lately.
   */
  warmUp(): void {
    const fresh = this.#synced && monotonicMs() - this.#answeredAtMs < IDLE_SYNC_MS / 2;
    if (fresh || this.#closed || this.#current !== undefined || this.#link?.open !== true) return;
    this.request({ timeoutMs: this.#options.requestTimeoutMs }).catch((error: unknown) => {
      this.#log.debug({ problem: messageOf(error) }, 'idle guest agent did not answer');
    });
  }

  /** A hint that the agent may have come or gone (VSERPORT_CHANGE): asks it at once instead of at the next beat. */
  nudge(): void {
    this.#onNudge?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const job of [...this.#queue, ...(this.#current ? [this.#current] : [])]) this.#end(job, closedError());
    await this.#running;
    this.#link?.drop();
    await this.#link?.closed();
  }

  #end(job: Job, error: Error): void {
    clearTimeout(job.timer);
    job.stop.abort(error);
    this.#queue = this.#queue.filter((queued) => queued !== job);
    // The exchange under way is ended by the abort itself; its link must be dropped before the next job begins.
    if (this.#current !== job) job.done.reject(error);
  }

  #callerLeft(job: Job): void {
    const reason: unknown = job.request.signal?.reason;
    const error =
      reason instanceof Error ? reason : new ShimError('CANCELLED', 'the caller gave up', { reason: 'CANCELLED' });
    // Locking rule 6: a command that was sent is seen through to its reply or its time; only its caller goes.
    if (!job.sent) this.#end(job, error);
    job.done.reject(error);
  }

  async #run(): Promise<void> {
    for (let job = this.#queue.shift(); job !== undefined; job = this.#queue.shift()) {
      this.#current = job;
      try {
        job.done.resolve(await this.#serve(job));
      } catch (error) {
        job.done.reject(error);
      } finally {
        clearTimeout(job.timer);
        this.#current = undefined;
      }
    }
  }

  async #serve(job: Job): Promise<unknown> {
    const { command } = job.request;
    try {
      const link = await this.#synchronise(job);
      return command === undefined ? undefined : await this.#exchange(job, link, command);
    } catch (error) {
      if (!(error instanceof GuestAgentError)) this.#synced = false;
      // See AgentLink: bytes that QEMU has not read must not reach an agent that starts later.
      if (job.stop.signal.aborted) this.#link?.drop();
      throw error;
    }
  }

  async #synchronise(job: Job): Promise<AgentLink> {
    const { signal } = job.stop;
    const backoff = new Backoff(SYNC_FIRST_MS, SYNC_FAST_MAX_MS);
    for (;;) {
      signal.throwIfAborted();
      const link = await this.#connect(job);
      if (link !== undefined) {
        const fresh = monotonicMs() - this.#answeredAtMs < IDLE_SYNC_MS;
        if (job.request.command !== undefined && this.#synced && fresh && link.syncsOutstanding === 0) return link;
        if (await this.#syncOn(link, signal)) return link;
      }
      await backoff.pause(signal);
    }
  }

  /** The open link, or undefined when there is none yet and the job may wait for one. */
  async #connect(job: Job): Promise<AgentLink | undefined> {
    if (this.#link?.open) return this.#link;
    this.#synced = false;
    await this.#link?.closed();
    if (this.#link?.flooded === true) this.#notBeforeMs = monotonicMs() + this.#floodedBackoff.next();
    this.#link = undefined;
    if (monotonicMs() < this.#notBeforeMs) return undefined;
    try {
      this.#link = await AgentLink.connect(this.#options);
      this.#link.owed(this.#owedBytes);
      return this.#link;
    } catch (error) {
      this.#link = undefined;
      const errno = errnoOf(error);
      const mayCome = errno === 'ENOENT' || errno === 'ECONNREFUSED' || errno === 'EAGAIN';
      if (mayCome && (job.request.command === undefined || errno === 'EAGAIN')) return undefined;
      throw lostError(job.name, `its socket cannot be reached (${errno ?? 'unknown error'})`, error);
    }
  }

  /**
   * Sends syncs until the last one sent is answered. False when the link went away. A sync that the guest has not
   * read waits in the socket and is answered as soon as the agent starts, so few are needed: more are sent only
   * because an agent that dies takes with it what it had read.
   */
  async #syncOn(link: AgentLink, signal: AbortSignal): Promise<boolean> {
    this.#synced = false;
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const backoff = new Backoff(SYNC_FIRST_MS, SYNC_FAST_MAX_MS);
    let timer: NodeJS.Timeout | undefined;
    const beat = (): void => {
      clearTimeout(timer);
      if (link.syncsOutstanding >= SYNCS_OUTSTANDING_MAX) {
        link.drop();
        return;
      }
      link.sendSync();
      const fastMs = backoff.next();
      timer = setTimeout(beat, link.syncsOutstanding < SYNCS_FAST_MAX ? fastMs : SYNC_SLOW_MS);
    };
    const onLine = (line: AgentLine): void => {
      const which = link.answered(line);
      if (which === 'last') resolve(true);
      if (which !== 'earlier') return;
      // It lives, and the rest of the answers are on their way: asking again would only put off the last one.
      clearTimeout(timer);
      timer = setTimeout(beat, SYNC_FAST_MAX_MS);
    };
    using owned = new DisposableStack();
    owned.defer(() => clearTimeout(timer));
    owned.use(link.listen({ line: onLine, gone: () => resolve(false) }));
    owned.use(onAbort(signal, reject));
    owned.use(
      this.#listenNudge(() => {
        if (link.syncsOutstanding < SYNCS_OUTSTANDING_MAX) beat();
      }),
    );
    beat();
    const answered = await promise;
    if (answered) {
      this.#heard();
      this.#owedBytes = 0;
      this.#floodedBackoff.reset();
    }
    return answered;
  }

  /**
   * Writes one command and waits for its reply. A sync goes out behind a request that takes long: the agent works in
   * order, so when that sync is answered and the request is not, the request died with an earlier agent.
   */
  async #exchange(job: Job, link: AgentLink, command: AgentCommand): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const silent = job.request.silent === true;
    const limit = job.request.reply ?? REPLY_LIMIT;
    const id = randomInt(2 ** 47);
    let answered = false;
    using owned = new DisposableStack();
    owned.defer(() => {
      if (!answered) this.#owedBytes = Math.max(this.#owedBytes, limit.lineBytesMax);
      if (!answered && link.open) link.owed(this.#owedBytes);
    });
    owned.use(link.expect(limit));
    const probe = owned.use(prober(link));
    const lost = (how: string): void => {
      if (silent) resolve(undefined);
      else reject(lostError(command.name, how));
    };
    let stale = 0;
    const onLine = (line: AgentLine): void => {
      if (line.delimited && link.answered(line) !== 'none') {
        lost('it was restarted and does not know the request any more');
        return;
      }
      const reply =
        line.kind === 'text' && !line.delimited ? parseReply(line.bytes, limit.strings !== undefined) : undefined;
      if (line.kind === 'oversize') {
        reject(tooLargeError(command.name, keptBytes(limit)));
        link.refuse(`its reply to ${command.name} is too long`);
      } else if (reply === undefined) reject(garbageError(command.name));
      else if (reply.id !== undefined && reply.id !== id) {
        this.#log.debug('guest agent sent a stale reply');
        if ((stale += 1) > STALE_REPLIES_MAX) reject(garbageError(command.name));
      } else if (reply.kind === 'return') resolve(reply.value);
      // An error without an id may be about the 0xFF byte of a probe; then the probe's answer comes next.
      else if (reply.id === id || link.syncsOutstanding === 0) {
        reject(new GuestAgentError(command.name, reply.errorClass, reply.description));
      }
    };
    owned.use(link.listen({ line: onLine, gone: () => lost('its connection was closed') }));
    owned.use(onAbort(job.stop.signal, reject));
    owned.use(this.#listenNudge(() => probe.send()));
    if (silent) owned.use(after(SILENT_REPLY_MS, () => lost('')));
    job.sent = true;
    link.send(commandLine(command, id), command.bytes !== undefined);
    if (silent) probe.send();
    else probe.start();
    try {
      const value = await promise;
      answered = true;
      return value;
    } catch (error) {
      answered = error instanceof GuestAgentError;
      throw error;
    } finally {
      if (link.open && !job.stop.signal.aborted) this.#heard();
      if (silent) this.#synced = false;
    }
  }

  #heard(): void {
    this.#synced = true;
    this.#answeredAtMs = monotonicMs();
  }

  #listenNudge(listener: () => void): Disposable {
    this.#onNudge = listener;
    return {
      [Symbol.dispose]: () => {
        this.#onNudge = undefined;
      },
    };
  }
}

/** What a reply may have, as its caller sees it. */
function keptBytes({ lineBytesMax, strings }: LineLimit): number {
  return strings?.restBytesMax ?? lineBytesMax;
}

interface Prober extends Disposable {
  /** The first goes out after a pause. */
  start(): void;
  /** One goes out now, the next after a pause. */
  send(): void;
}

function prober(link: AgentLink): Prober {
  let timer: NodeJS.Timeout | undefined;
  let left = PROBES_MAX;
  const backoff = new Backoff(PROBE_FIRST_MS, PROBE_MAX_MS);
  const start = (): void => {
    timer = setTimeout(send, backoff.next());
  };
  const send = (): void => {
    clearTimeout(timer);
    if (left === 0 || !link.open) return;
    left -= 1;
    link.sendSync();
    start();
  };
  return { start, send, [Symbol.dispose]: () => clearTimeout(timer) };
}

function after(milliseconds: number, act: () => void): Disposable {
  const timer = setTimeout(act, milliseconds);
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

function onAbort(signal: AbortSignal, reject: (reason: unknown) => void): Disposable {
  const listener = (): void => reject(signal.reason);
  if (signal.aborted) listener();
  signal.addEventListener('abort', listener, { once: true });
  return { [Symbol.dispose]: () => signal.removeEventListener('abort', listener) };
}

function timeoutError(job: Job): ShimError {
  const { timeoutMs, command } = job.request;
  const unsent = command !== undefined && !job.sent;
  const message = unsent
    ? `${job.name} was not sent, because the guest agent did not answer within ${timeoutMs} ms`
    : `the guest agent did not answer ${job.name} within ${timeoutMs} ms`;
  return new ShimError('DEADLINE_EXCEEDED', message, {
    reason: 'GUEST_AGENT_TIMEOUT',
    metadata: { command: job.name, timeoutMs: String(timeoutMs), sent: String(job.sent) },
  });
}
