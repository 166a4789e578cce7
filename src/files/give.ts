import { setTimeout as pause } from 'node:timers/promises';
import { errnoOf } from '../base/errors.ts';
import { sendBytes, sendWithDescriptor } from './native.ts';

/** A full socket is looked at so often. */
const FULL_PAUSE_MS = 2;

/**
 * Puts bytes on a socket, all of them, with a descriptor beside the first. Nobody else may write to it meanwhile.
 * @throws the system error; with `sent` true when some of them have gone
 */
export async function giveDescriptor(socket: number, bytes: Uint8Array, descriptor: number): Promise<void> {
  let sent = 0;
  while (sent < bytes.length) {
    const rest = bytes.subarray(sent);
    try {
      sent += sent === 0 ? sendWithDescriptor(socket, rest, descriptor) : sendBytes(socket, rest);
    } catch (error) {
      if (errnoOf(error) !== 'EAGAIN') throw sent > 0 ? Object.assign(error as Error, { sent: true }) : error;
      await pause(FULL_PAUSE_MS);
    }
  }
}
