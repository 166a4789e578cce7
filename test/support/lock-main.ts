/**
 * Locks state directories when told to: each line on standard input is a directory, the answer is a line of JSON. Holds
 * what it has got until its standard input ends.
 */
import { createInterface } from 'node:readline';
import { messageOf } from '../../src/base/errors.ts';
import { lockStateDirectory } from '../../src/grpc/state-lock.ts';

await using held = new AsyncDisposableStack();
process.stdout.write('ready\n');
for await (const directory of createInterface(process.stdin)) {
  try {
    held.use(await lockStateDirectory(directory));
    process.stdout.write(`${JSON.stringify({ won: true, said: '' })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ won: false, said: messageOf(error) })}\n`);
  }
}
