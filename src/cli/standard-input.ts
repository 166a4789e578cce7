import type { Readable } from 'node:stream';
import { Interrupted, usageFailure } from './cli-failure.ts';
import { EXIT } from './exit-codes.ts';

/** Input travels in one request, and the guest agent takes it in one message. */
export const STDIN_BYTES_MAX = 3 * 1024 * 1024;

/**
 * Reads standard input up to its end.
 * @throws CliFailure of usage when there is more than STDIN_BYTES_MAX; Interrupted when the signal aborts
 */
export async function readStandardInput(stdin: Readable, signal: AbortSignal): Promise<Buffer> {
  const onAbort = (): void => {
    stdin.destroy();
  };
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of stdin as AsyncIterable<Buffer | string>) {
      const buffer = typeof part === 'string' ? Buffer.from(part) : part;
      bytes += buffer.length;
      if (bytes > STDIN_BYTES_MAX) {
        const limit = `${STDIN_BYTES_MAX / 1024 / 1024} MiB (${STDIN_BYTES_MAX} bytes)`;
        throw usageFailure(
          `standard input is longer than ${limit}, which is all that one exec takes; nothing was sent`,
        );
      }
      parts.push(buffer);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
  if (signal.aborted) throw new Interrupted(EXIT.interrupted);
  return Buffer.concat(parts);
}
