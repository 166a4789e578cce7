import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/**
 * Hands over each line that comes out of a stream. Node's readline emits a stream's error once more, as its own: one
 * that nobody listens for would end the process. The stream's own listeners have heard it; whoever made the stream
 * has some.
 */
export function eachLine(input: Readable, take: (line: string) => void): void {
  const lines = createInterface({ input });
  lines.on('error', () => undefined);
  lines.on('line', take);
}
