import { sleep, waitFor } from '../base/deadline.ts';
import { isShimError, messageOf } from '../base/errors.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { QmpLink } from '../qmp/link.ts';

/** A beat's answer is awaited for as long as it takes, so that a monitor that answers nothing is asked once. */
const BEAT_TIMEOUT_MS = 2 ** 31 - 1;

/** Whose QEMU is asked, and who is told. Implemented by Sandbox. */
interface Watched {
  readonly config: Pick<Config, 'qmp_heartbeat_ms' | 'qmp_reply_timeout_ms'>;
  readonly log: Logger;
  readonly link: Pick<QmpLink, 'ready'>;
  readonly state: string;
  readonly gone: AbortSignal;
  sawSilence(message: string): void;
  sawAnswer(): void;
}

/**
 * Asks QEMU's monitor again and again whether it answers: a QEMU whose main loop hangs has a process, a socket and an
 * open connection, and nothing else tells. What does not answer within `qmp_reply_timeout_ms` is unresponsive until it
 * answers. Ends when the VM is on its way out.
 *
 *     sleep ─▶ query-status ─┬─ answer in time ─▶ responsive
 *                            └─ none ─▶ unresponsive ─▶ the same answer, or the next connection's ─▶ responsive
 */
export async function watchMonitor(sandbox: Watched): Promise<void> {
  const { config, gone } = sandbox;
  for (;;) {
    await sleep(config.qmp_heartbeat_ms, gone);
    // Create has time limits of its own, and nobody is told yet that it runs.
    if (sandbox.state === 'running') await beat(sandbox);
  }
}

async function beat(sandbox: Watched): Promise<void> {
  const { config, gone, link } = sandbox;
  const boundMs = config.qmp_reply_timeout_ms;
  const answer = link
    .ready()
    .then((client) => client.run('query-status', undefined, { timeoutMs: BEAT_TIMEOUT_MS }))
    // A refusal is an answer. Of a connection that broke nothing is known: the next one is asked.
    .catch((error: unknown) => {
      if (!isQmpError(error)) throw error;
    });
  answer.catch(() => undefined); // Nobody may wait for it any more when the connection ends.
  try {
    await waitFor(answer, { milliseconds: boundMs, signal: gone });
  } catch (error) {
    gone.throwIfAborted();
    if (!isShimError(error, 'DEADLINE_EXCEEDED')) {
      sandbox.log.debug({ problem: messageOf(error) }, 'heartbeat without an answer');
      return;
    }
    sandbox.sawSilence(`QEMU has not answered its monitor within ${boundMs} ms`);
    try {
      await waitFor(answer, { signal: gone });
    } catch {
      gone.throwIfAborted();
      return;
    }
  }
  sandbox.sawAnswer();
}
