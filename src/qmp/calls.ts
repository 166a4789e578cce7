import { monotonicMs } from '../base/deadline.ts';
import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { QmpError, qmpLost } from './errors.ts';
import type { QmpMessage } from './message.ts';

/** The only arguments whose values may reach the log: object-add and qom-set carry keys. */
const LOGGED_ARGUMENTS: ReadonlySet<string> = new Set([
  'addr',
  'bus',
  'device',
  'drive',
  'driver',
  'fdset-id',
  'filter-node-name',
  'id',
  'job-id',
  'node-name',
  'path',
  'property',
  'qom-type',
  'size',
  'speed',
  'target',
  'typename',
]);

interface Call {
  readonly command: string;
  readonly settle: PromiseWithResolvers<unknown>;
  readonly timer: NodeJS.Timeout;
  readonly sinceMs: number;
}

export type QmpReply = Extract<QmpMessage, { kind: 'return' | 'error' }>;

/** Sends text with a descriptor beside it; rejects when the connection is of no use any more. */
export type SendBeside = (text: string) => Promise<void>;

interface Outgoing {
  readonly text: string;
  readonly beside: SendBeside | undefined;
}

/**
 * The calls on their way: ids, time limits, and the bytes that wait for the socket.
 *
 * INVARIANT: `#pending` and `#late` are disjoint, and together at most `pendingMax`. A call that timed out keeps its
 * place until its reply comes, since QEMU may still be holding it: a monitor that answers nothing fills up and says so.
 */
export class PendingCalls {
  readonly #pendingMax: number;
  readonly #replyTimeoutMs: number;
  readonly #log: Logger;
  readonly #write: (text: string) => boolean;
  readonly #isIdle: () => boolean;
  readonly #pending = new Map<number, Call>();
  readonly #late = new Map<number, Pick<Call, 'command' | 'sinceMs'>>();
  /** Ids and texts that the socket has not taken yet, oldest first. */
  readonly #outbox = new Map<number, Outgoing>();
  #blocked = false;
  /** Something is being sent with a descriptor. */
  #besides = false;
  #lastId = 0;
  #lateReplies = 0;
  #unknownReplies = 0;
  #failed: ShimError | undefined;

  /**
   * @param options.write hands text to the socket; false means: wait for `flush` before the next
   * @param options.isIdle whether the kernel has all that was handed to the socket; `flush` is called when it has
   */
  constructor(options: {
    readonly pendingMax: number;
    readonly replyTimeoutMs: number;
    readonly log: Logger;
    readonly write: (text: string) => boolean;
    readonly isIdle: () => boolean;
  }) {
    this.#pendingMax = options.pendingMax;
    this.#replyTimeoutMs = options.replyTimeoutMs;
    this.#log = options.log;
    this.#write = options.write;
    this.#isIdle = options.isIdle;
  }

  /** Replies that came after their call had timed out. */
  get lateReplies(): number {
    return this.#lateReplies;
  }

  /** For how long QEMU has owed its oldest reply; 0 when it owes none. */
  get owedMs(): number {
    const now = monotonicMs();
    return Math.max(0, ...[...this.#late.values(), ...this.#pending.values()].map(({ sinceMs }) => now - sinceMs));
  }

  /** Replies whose id no call has: a repeated reply, or none of ours. */
  get unknownReplies(): number {
    return this.#unknownReplies;
  }

  /** @param beside sends it instead, with a descriptor */
  async send(command: string, args: unknown, timeoutMs = this.#replyTimeoutMs, beside?: SendBeside): Promise<unknown> {
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#pending.size + this.#late.size >= this.#pendingMax) throw queueFull(this.#pendingMax);
    const id = this.#lastId + 1;
    const text = `${JSON.stringify({ execute: command, arguments: args, id })}\n`;
    this.#lastId = id;
    const settle = Promise.withResolvers<unknown>();
    const timer = setTimeout(() => this.#onTimeout(id, timeoutMs), timeoutMs);
    this.#pending.set(id, { command, settle, timer, sinceMs: monotonicMs() });
    this.#log.trace({ command, id, args: shown(args) }, 'qmp command');
    this.#outbox.set(id, { text, beside });
    this.#drain();
    return settle.promise;
  }

  /** The socket takes bytes again. */
  flush(): void {
    this.#blocked = false;
    this.#drain();
  }

  /** The kernel has taken something that was handed to the socket. */
  written(): void {
    if (!this.#blocked && this.#outbox.size > 0) this.#drain();
  }

  /**
   * Ends the call that the reply belongs to. A reply that belongs to none is counted, logged and otherwise ignored.
   * @returns false when there never was such a call, or it has had its reply
   */
  settle(reply: QmpReply): boolean {
    const id = reply.id;
    const call = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (typeof id !== 'number' || call === undefined) return this.#onStray(id);
    this.#pending.delete(id);
    clearTimeout(call.timer);
    this.#log.trace({ command: call.command, id, ok: reply.kind === 'return' }, 'qmp reply');
    if (reply.kind === 'return') call.settle.resolve(reply.value);
    else call.settle.reject(new QmpError(call.command, reply.errorClass, reply.description));
    return true;
  }

  /** Ends every call, and all that come later, with the cause. */
  fail(cause: ShimError): void {
    if (this.#failed !== undefined) return;
    this.#failed = cause;
    for (const call of this.#pending.values()) {
      clearTimeout(call.timer);
      call.settle.reject(qmpLost(`${call.command}: ${cause.message}; its outcome is unknown`, cause));
    }
    this.#pending.clear();
    this.#late.clear();
    this.#outbox.clear();
  }

  #drain(): void {
    for (const [id, { text, beside }] of this.#outbox) {
      if (this.#blocked || this.#besides) return;
      if (beside === undefined) {
        this.#outbox.delete(id);
        this.#blocked = !this.#write(text);
        continue;
      }
      // In its turn: after all that Node still holds, and nothing of Node's in between.
      if (!this.#isIdle()) return;
      this.#outbox.delete(id);
      this.#sendBeside(id, text, beside);
    }
  }

  #sendBeside(id: number, text: string, beside: SendBeside): void {
    this.#besides = true;
    const onward = (): void => {
      this.#besides = false;
      this.#drain();
    };
    beside(text).then(onward, (error: unknown) => {
      const call = this.#pending.get(id);
      this.#pending.delete(id);
      // Timed out while it was being sent: no reply will come to what was not.
      this.#late.delete(id);
      clearTimeout(call?.timer);
      call?.settle.reject(error instanceof Error ? error : new Error('nothing was sent', { cause: error }));
      onward();
    });
  }

  #onTimeout(id: number, timeoutMs: number): void {
    const call = this.#pending.get(id);
    if (call === undefined) return;
    this.#pending.delete(id);
    const sent = !this.#outbox.delete(id);
    if (sent) this.#late.set(id, call);
    const outcome = sent ? 'its outcome is unknown' : 'it was never sent';
    call.settle.reject(
      new ShimError('DEADLINE_EXCEEDED', `${call.command}: no reply from QEMU within ${timeoutMs} ms; ${outcome}`, {
        reason: 'QMP_REPLY_TIMEOUT',
        metadata: { command: call.command, timeoutMs: String(timeoutMs), sent: String(sent) },
      }),
    );
  }

  #onStray(id: unknown): boolean {
    const call = typeof id === 'number' ? this.#late.get(id) : undefined;
    if (typeof id === 'number' && call !== undefined) {
      const { command } = call;
      this.#late.delete(id);
      this.#lateReplies += 1;
      this.#log.debug({ command, id }, 'qmp reply came after its time limit');
      return true;
    }
    this.#unknownReplies += 1;
    this.#log.warn({ id: typeof id === 'number' ? id : typeof id }, 'qmp reply with an unknown id ignored');
    return false;
  }
}

function queueFull(pendingMax: number): ShimError {
  return new ShimError('RESOURCE_EXHAUSTED', `QEMU owes ${pendingMax} replies already, no more commands are sent`, {
    reason: 'QMP_QUEUE_FULL',
    metadata: { pendingMax: String(pendingMax) },
  });
}

function shown(args: unknown): Record<string, unknown> {
  if (typeof args !== 'object' || args === null) return {};
  return Object.fromEntries(Object.entries(args).filter(([name]) => LOGGED_ARGUMENTS.has(name)));
}
