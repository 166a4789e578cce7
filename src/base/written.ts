import type { Writable } from 'node:stream';

/**
 * Writes to a stream, and waits until it has passed the bytes on. It ends when the stream does: nobody waits for ever
 * for a reader that is gone.
 *
 * @throws what the stream failed with, or Error when it is closed
 */
export async function written(to: Writable, bytes: Uint8Array): Promise<void> {
  if (to.destroyed) throw to.errored ?? new Error('nobody takes it any more');
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const closed = (): void => reject(to.errored ?? new Error('nobody takes it any more'));
  to.once('close', closed);
  to.write(bytes, (error) => (error ? reject(error) : resolve()));
  try {
    await promise;
  } finally {
    to.off('close', closed);
  }
}
