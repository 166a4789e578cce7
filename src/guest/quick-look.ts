import { randomUUID } from 'node:crypto';
import { Backoff } from '../base/backoff.ts';
import { monotonicMs, waitFor } from '../base/deadline.ts';
import type { Uevent } from './uevents.ts';

/** So long a guest may take. In TCG an answer takes some 15 ms, a script (holders.ts) a fifth of a second. */
const ANSWER_MS = 500;
/** A guest that did not answer is not asked again sooner: what nobody reads stays in the port. */
const QUIET_MIN_MS = 10_000;
const QUIET_MAX_MS = 600_000;
/** So many disks in one question; the program in the guest takes 256, and lines of 16 KiB. */
const DISKS_MAX = 200;

/** The port on which the guest announces its disks, the other way round. */
export interface QuestionPort {
  readonly open: boolean;
  send(text: string): void;
}

interface Question {
  readonly unused: string[];
  readonly answered: PromiseWithResolvers<void>;
}

/**
 * Asks the program that announces the guest's disks which of some it has seen to be used by nobody
 * (programs/disk-users.h). It tells nothing of any other, and nothing at all when it could not look at everything: then
 * the guest is asked by a script.
 */
export class QuickLook {
  readonly #questions = new Map<string, Question>();
  readonly #backoff = new Backoff(QUIET_MIN_MS, QUIET_MAX_MS);
  #quietUntilMs = Number.NEGATIVE_INFINITY;

  /**
   * Those that nobody uses, of the disks at some PCI addresses, as sysfs writes them. None when there was no answer.
   * Never rejects.
   *
   * @param signal ends the waiting
   */
  async of(port: QuestionPort, addresses: readonly string[], signal: AbortSignal): Promise<ReadonlySet<string>> {
    const unused = new Set<string>();
    for (let from = 0; from < addresses.length; from += DISKS_MAX) {
      for (const address of await this.#ask(port, addresses.slice(from, from + DISKS_MAX), signal)) unused.add(address);
    }
    return unused;
  }

  /** An announcement whose action is `answer`. */
  take({ path, variables }: Uevent): void {
    const question = this.#questions.get(path.slice(1));
    if (question === undefined) return;
    for (const [name, value] of variables) {
      if (name === 'looked') question.answered.resolve();
      else if (name !== 'SEQNUM' && question.unused.length < DISKS_MAX) question.unused.push(value);
    }
  }

  /** The guest was reset: another program may be there. */
  reset(): void {
    this.#quietUntilMs = Number.NEGATIVE_INFINITY;
    this.#backoff.reset();
  }

  async #ask(port: QuestionPort, addresses: readonly string[], signal: AbortSignal): Promise<readonly string[]> {
    if (!port.open || monotonicMs() < this.#quietUntilMs) return [];
    const id = randomUUID();
    const question: Question = { unused: [], answered: Promise.withResolvers() };
    this.#questions.set(id, question);
    try {
      port.send(`unused ${id} ${addresses.join(' ')}\n`);
      await waitFor(question.answered.promise, { milliseconds: ANSWER_MS, signal });
      this.#backoff.reset();
      return question.unused;
    } catch {
      if (!signal.aborted) this.#quietUntilMs = monotonicMs() + this.#backoff.next();
      return [];
    } finally {
      this.#questions.delete(id);
    }
  }
}
