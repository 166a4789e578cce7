import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { ChildProcess } from 'node:child_process';
import { errnoOf, messageOf } from './errors.ts';
import type { Logger } from './log.ts';

/** The channel on which Node shows every child process that it makes. */
const CHANNEL = 'child_process';
const NO_DESCRIPTOR: ReadonlySet<string | undefined> = new Set(['EMFILE', 'ENFILE']);

/**
 * Listens for the error of every child process that is begun while this lasts. With no descriptor left Node gives such
 * a process no streams, by which execa fails before it listens: nobody would, and an error that nobody listens for ends
 * this process. Whoever began the child hears of it all the same, by what execa throws.
 */
export function surviveFailedSpawns(log: Logger): Disposable {
  const onError = (error: unknown): void => {
    if (NO_DESCRIPTOR.has(errnoOf(error))) log.warn({ problem: messageOf(error) }, 'no descriptor left for a process');
  };
  const onChild = (message: unknown): void => {
    if (typeof message !== 'object' || message === null || !('process' in message)) return;
    if (message.process instanceof ChildProcess) message.process.on('error', onError);
  };
  subscribe(CHANNEL, onChild);
  return { [Symbol.dispose]: () => unsubscribe(CHANNEL, onChild) };
}
