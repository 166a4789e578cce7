import { closeSync, constants, openSync } from 'node:fs';
import { Backoff } from '../base/backoff.ts';
import { errnoOf } from '../base/errors.ts';
import type { HeldFifo } from '../relay/holds.ts';

/** How often a FIFO is looked at that waits for a reader, or for its reader to have read all. */
const LOOK_MIN_MS = 2;
const LOOK_MAX_MS = 100;

/** Who holds FIFOs open in place of the daemon (relay-link.ts); a `hold` replaces the one before. */
export interface FifoKeeper {
  hold(fifos: readonly HeldFifo[]): Promise<void>;
  release(): Promise<void>;
}

/**
 * The FIFOs have the last bytes, and the daemon has closed them; their readers shall have them, too. A FIFO that only
 * has a writer tells whether somebody reads: until then the writer stays, and the bytes with it (containerd is away).
 * Then the writer goes, the reader comes to the end of the file, and closes its own end: that it has read everything is
 * seen, not assumed.
 * @param nobodyReads called when one has no reader
 * @throws the signal's reason
 */
export async function handOver(
  paths: readonly string[],
  keeper: FifoKeeper,
  signal: AbortSignal,
  nobodyReads: () => void,
): Promise<void> {
  signal.throwIfAborted();
  await keeper.hold(paths.map((path) => ({ path, mode: 'writer' })));
  await whileAny(paths, 'nobody', signal, nobodyReads);
  await keeper.release();
  await whileAny(paths, 'somebody', signal);
}

/** Waits as long as one of the FIFOs is read by somebody, or by nobody. */
async function whileAny(
  paths: readonly string[],
  reader: 'somebody' | 'nobody',
  signal: AbortSignal,
  seen?: () => void,
): Promise<void> {
  const backoff = new Backoff(LOOK_MIN_MS, LOOK_MAX_MS);
  while (paths.some((path) => readerOf(path) === reader)) {
    seen?.();
    await backoff.pause(signal);
  }
}

/** Who reads a FIFO (fifo(7): without a reader it cannot be opened for writing without waiting). */
function readerOf(path: string): 'somebody' | 'nobody' | 'removed' {
  try {
    closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
    return 'somebody';
  } catch (error) {
    if (errnoOf(error) === 'ENXIO') return 'nobody';
    if (errnoOf(error) === 'ENOENT') return 'removed';
    throw error;
  }
}
