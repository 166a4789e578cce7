import { connect, type Socket } from 'node:net';
import type { Meter } from './budget.ts';

/**
 * One read takes at most so many bytes, so that what one guest sends never keeps the thread for long at a time.
 *
 * All sockets read into the same memory: Node calls back right after each read, and `take` keeps nothing of it. So a
 * read allocates nothing (else Node makes a Buffer for each, and a guest that sends single bytes costs some hundred
 * times what it sends).
 */
const READ_BYTES = 16 * 1024;
const memory = Buffer.alloc(READ_BYTES);

export interface MeteredSocketOptions {
  /** Of a unix socket. */
  readonly path: string;
  readonly meter: Meter;
  /**
   * Takes what was read. It must not keep the chunk, which is overwritten by the next read. What it throws ends the
   * socket with that error.
   * @returns what it is to be charged for
   */
  readonly take: (chunk: Buffer) => { readonly bytes: number; readonly lines: number };
}

/**
 * Connects to a unix socket behind which a guest, or its QEMU, is. While the meter says so, nothing is read: what the
 * guest sends waits in the socket, and then the guest waits.
 */
export function connectMetered({ path, meter, take }: MeteredSocketOptions): Socket {
  let rest: NodeJS.Timeout | undefined;
  const callback = (bytes: number): boolean => {
    try {
      const cost = take(memory.subarray(0, bytes));
      const restMs = socket.destroyed ? 0 : meter.charge(cost.bytes, cost.lines);
      if (restMs === 0) return true;
      rest = setTimeout(() => socket.resume(), restMs);
      return false;
    } catch (error) {
      // Thrown from here it would be nobody's, and end the daemon.
      socket.destroy(error instanceof Error ? error : new Error(String(error)));
      return false;
    }
  };
  const socket = connect({ path, onread: { buffer: memory, callback } });
  socket.once('close', () => clearTimeout(rest));
  return socket;
}
