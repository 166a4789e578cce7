import { stat } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

export interface FileWatchOptions {
  /** Absolute. */
  readonly paths: readonly string[];
  readonly everyMs: number;
  /** For the log. */
  readonly what: string;
  readonly log: Logger;
  /** Takes up what the files hold now. What it throws leaves everything as it was. */
  readonly load: () => Promise<void>;
}

/**
 * Looks whether files have changed, and takes up what they hold. By looking, not by inotify: a file behind symbolic
 * links, as Kubernetes exchanges them, changes without an event at its own name.
 */
export class FileWatch implements AsyncDisposable {
  readonly #options: FileWatchOptions;
  readonly #leaving = new AbortController();
  readonly #work: Promise<void>;
  #problem: string | undefined;

  /** Begins with the files as they are: `load` has been called once already. */
  constructor(options: FileWatchOptions) {
    this.#options = options;
    this.#work = this.#watch();
  }

  /** Why what the files hold now is not what is in force; undefined: it is. */
  get problem(): string | undefined {
    return this.#problem;
  }

  async #watch(): Promise<void> {
    const { everyMs, load, what, log, paths } = this.#options;
    const { signal } = this.#leaving;
    let seen = await this.#look();
    const left = (): boolean => signal.aborted;
    while (!left()) {
      await pause(everyMs, undefined, { signal, ref: false }).catch(() => undefined);
      const now = await this.#look();
      if (left() || now === seen) continue;
      seen = now;
      try {
        await load();
        this.#problem = undefined;
        log.info({ what, paths }, 'files reloaded');
      } catch (error) {
        this.#problem = messageOf(error);
        log.error({ what, paths, problem: this.#problem }, 'files changed and cannot be used: what was in force stays');
      }
    }
  }

  /** What tells one content from the next: a file that is not there has none. */
  async #look(): Promise<string> {
    const looks = this.#options.paths.map(async (path) => {
      const found = await stat(path, { bigint: true }).catch(() => undefined);
      return found === undefined ? 'none' : `${found.dev}.${found.ino}.${found.size}.${found.mtimeNs}.${found.ctimeNs}`;
    });
    return (await Promise.all(looks)).join(' ');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving.abort();
    await this.#work;
  }
}
