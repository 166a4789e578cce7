/**
 * Starts the relay of a volume while this process can open no file, and again when it can. Prints the reason of the
 * failure and what came of the second, as JSON. To be run with a low limit of open files. The argument is a directory.
 */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { isShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { identify } from '../../src/qemu/process.ts';
import { Relays, relaySocket } from '../../src/volume/relays.ts';

const [directory = ''] = process.argv.slice(2);
const qemu = await identify(process.pid);
const ended = new AbortController();
const relays = new Relays({ log: silentLogger(), directory, qemu: () => qemu, uid: () => 0, ended: ended.signal });
const socket = relaySocket(directory, 1);
const start = (): Promise<string> =>
  relays.start(socket, { type: 'unix', path: join(directory, 'server') }).then(
    () => 'started',
    (error: unknown) => (isShimError(error) ? error.reason : String(error)),
  );

const held: number[] = [];
try {
  for (;;) held.push(openSync('/dev/null', 'r'));
} catch {
  // None is left.
}
const first = await start();
for (const descriptor of held) closeSync(descriptor);
const second = await start();
await relays.end(socket);
process.stdout.write(JSON.stringify([first, second]));
