import { closeSync } from 'node:fs';
import type { Kept } from './helpers.ts';
import { messagePair, receiveDescriptor } from './native.ts';

/**
 * What a helper has kept open, as a descriptor of this process: for files in memory alone, since to use or to close any
 * other may hang.
 * @throws as Kept.send; the system error (EMFILE)
 */
export async function takeDescriptor(kept: Kept): Promise<number> {
  const [ours, its] = messagePair();
  try {
    await kept.send(its, Buffer.of(0));
    const { descriptor } = receiveDescriptor(ours, 1);
    if (descriptor === undefined) throw new Error('a helper has sent no descriptor');
    return descriptor;
  } finally {
    closeSync(ours);
    closeSync(its);
  }
}
