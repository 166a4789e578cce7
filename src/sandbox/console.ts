import { createReadStream, watch, type FSWatcher } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Meter } from '../base/budget.ts';
import { sleep } from '../base/deadline.ts';
import { errnoOf } from '../base/errors.ts';
import { olderLog } from './log-limit.ts';

const CHUNK_BYTES = 65_536;
/** Between two looks at a file that changes: a guest that writes single bytes is looked at no more often. */
const LOOK_EVERY_MS = 50;

/**
 * What the guest wrote to its console: everything so far that is within the log's limit, and with `follow` what comes,
 * until the VM ends or the caller has enough.
 */
export async function* followConsole(
  sandbox: {
    readonly files: { readonly consoleLog: string };
    readonly ended: AbortSignal;
    /** What the guest may cost. */
    readonly budget: { readonly stream: Meter };
  },
  options: { readonly follow: boolean; readonly signal: AbortSignal },
): AsyncGenerator<Buffer> {
  await using file = await open(sandbox.files.consoleLog, 'r');
  yield* older(sandbox.files.consoleLog);
  const meter = sandbox.budget.stream;
  const memory = Buffer.alloc(CHUNK_BYTES);
  let offset = 0;
  const rest = async function* (): AsyncGenerator<Buffer> {
    for (;;) {
      const { bytesRead } = await file.read(memory, 0, CHUNK_BYTES, offset);
      if (bytesRead === 0) {
        // Cut meanwhile (log-limit.ts): it begins anew.
        if (offset <= (await file.stat()).size) return;
        offset = 0;
        continue;
      }
      offset += bytesRead;
      // A copy: the memory is read into again.
      yield Buffer.from(memory.subarray(0, bytesRead));
      const restMs = meter.charge(bytesRead, 1);
      if (restMs > 0) await sleep(restMs);
    }
  };
  if (!options.follow) {
    yield* rest();
    return;
  }
  // Watched before it is read: what is written in between is seen by one or the other.
  using changes = new FileChanges(sandbox.files.consoleLog);
  const end = AbortSignal.any([options.signal, sandbox.ended]);
  for (;;) {
    const change = changes.next(end);
    yield* rest();
    if (end.aborted) return;
    await change;
    await sleep(LOOK_EVERY_MS);
  }
}

/** What is left of the console's log from before it was last cut. */
async function* older(path: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of createReadStream(olderLog(path))) if (chunk instanceof Buffer) yield chunk;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

/** Wakes a reader when a file has changed (inotify). */
class FileChanges implements Disposable {
  readonly #watcher: FSWatcher;
  #wake = Promise.withResolvers<void>();

  constructor(path: string) {
    this.#watcher = watch(path, { persistent: false }, () => this.#wake.resolve());
    // What cannot be watched any more is looked at once more, then when the VM ends.
    this.#watcher.on('error', () => this.#wake.resolve());
  }

  /** Resolves at the first change after this call, or when the signal is aborted. */
  async next(signal: AbortSignal): Promise<void> {
    const wake = Promise.withResolvers<void>();
    this.#wake = wake;
    const onAbort = (): void => wake.resolve();
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) wake.resolve();
    await wake.promise;
    signal.removeEventListener('abort', onAbort);
  }

  [Symbol.dispose](): void {
    this.#watcher.close();
  }
}
