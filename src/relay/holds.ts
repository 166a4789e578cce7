import { closeSync, constants, openSync } from 'node:fs';

/** A FIFO that must stay open while no daemon runs. */
export interface HeldFifo {
  readonly path: string;
  /**
   * `reader`: writers get no broken pipe (stdin). `both`: readers get no end of file either (stdout, stderr). `writer`:
   * only the latter, so that a FIFO without a reader can be told.
   */
  readonly mode: keyof typeof FLAGS;
}

const FLAGS = { reader: constants.O_RDONLY, both: constants.O_RDWR, writer: constants.O_WRONLY } as const;

/**
 * FIFOs that are held open for processes, by key. Nothing is read or written here: the ends that a daemon takes with it
 * when it dies would otherwise be the end of the stream for containerd.
 */
export class Holds {
  readonly #held = new Map<string, number[]>();

  /** Holds what can be opened; replaces what was held under this key. */
  hold(key: string, fifos: readonly HeldFifo[]): void {
    const fds = fifos.flatMap(({ path, mode }) => {
      try {
        return [openSync(path, FLAGS[mode] | constants.O_NONBLOCK)];
      } catch {
        return []; // Its owner has removed it: nothing ends that has not ended.
      }
    });
    this.release(key);
    this.#held.set(key, fds);
  }

  release(key: string): void {
    for (const fd of this.#held.get(key) ?? []) closeSync(fd);
    this.#held.delete(key);
  }
}
