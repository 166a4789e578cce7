import { Backoff } from '../../base/backoff.ts';

const PAUSE_MS = 200;
const PAUSE_MAX_MS = 5000;

/**
 * Does something again and again, ever more slowly, until it succeeds.
 * @throws only the reason of `gone`: the VM went first
 */
export async function persist(
  gone: AbortSignal,
  act: () => Promise<void>,
  failed: (error: unknown) => void,
): Promise<void> {
  const backoff = new Backoff(PAUSE_MS, PAUSE_MAX_MS);
  for (;;) {
    gone.throwIfAborted();
    try {
      await act();
      return;
    } catch (error) {
      gone.throwIfAborted();
      failed(error);
    }
    await backoff.pause(gone);
  }
}
