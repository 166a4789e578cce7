import { sleep } from '../../base/deadline.ts';

const PAUSE_MS = 200;
const PAUSE_MAX_MS = 5000;

/** Does something again and again, ever more slowly, until it succeeds. @throws only the reason of `gone`: the VM went first */
export async function persist(
  gone: AbortSignal,
  act: () => Promise<void>,
  failed: (error: unknown) => void,
): Promise<void> {
  for (let pauseMs = PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS)) {
    gone.throwIfAborted();
    try {
      await act();
      return;
    } catch (error) {
      gone.throwIfAborted();
      failed(error);
    }
    await sleep(pauseMs, gone);
  }
}
