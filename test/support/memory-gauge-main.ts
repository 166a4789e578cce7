/**
 * Loaded into a process with `--expose-gc --import memory-gauge-main.ts?listen=SOCKET`: whoever connects to the socket
 * gets what `process.memoryUsage()` says right after a full garbage collection, as JSON.
 */
import { createServer } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';

const COLLECTIONS = 3;

const path = new URL(import.meta.url).searchParams.get('listen');
const collect = globalThis.gc;
if (path === null || collect === undefined) throw new Error('?listen=SOCKET and --expose-gc are needed');

const server = createServer((socket) => {
  socket.on('error', () => undefined);
  void (async () => {
    // What one collection finalizes, the next one frees.
    for (let count = 0; count < COLLECTIONS; count += 1) {
      collect();
      await turn();
    }
    socket.end(JSON.stringify(process.memoryUsage()));
  })();
});
server.listen(path);
server.unref();
