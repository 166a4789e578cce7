import type { Meter } from '../../base/budget.ts';
import { toRecord, type ExitRecord } from './runtime.ts';
import { PortReader } from './streams.ts';

const LINE_BYTES_MAX = 1024;

/** An end as the guest announces it (program.ts, `finish`). */
export interface AnnouncedExit {
  readonly key: string;
  readonly token: string;
  readonly record: ExitRecord;
}

/**
 * Reads the events port. Lines that are none of the guest program's are passed over: whoever is root in the guest can
 * write there, and can do no more than end processes of its own guest.
 */
export class ExitListener implements Disposable {
  readonly #reader: PortReader;
  #line = '';

  /** @param meter counts what is read; none: nobody counts */
  constructor(path: string, heard: (exit: AnnouncedExit) => void, meter?: Meter) {
    this.#reader = new PortReader(path, undefined, meter);
    this.#reader.setEncoding('latin1');
    this.#reader.on('data', (text: string) => {
      const lines = (this.#line + text).split('\n');
      this.#line = (lines.pop() ?? '').slice(-LINE_BYTES_MAX);
      for (const line of lines) {
        const exit = parseExit(line);
        if (exit !== undefined) heard(exit);
      }
    });
    // The look at each new connection of a daemon stands in for what is missed.
    this.#reader.on('error', () => undefined);
  }

  [Symbol.dispose](): void {
    this.#reader.destroy();
  }
}

/** `exit KEY TOKEN CODE UPTIME OOM` */
export function parseExit(line: string): AnnouncedExit | undefined {
  const [word, key, token, ...rest] = line.split(' ');
  const record = toRecord(rest);
  if (word !== 'exit' || key === undefined || token === undefined || record === undefined) return undefined;
  return { key, token, record };
}
