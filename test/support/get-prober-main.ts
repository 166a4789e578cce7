/**
 * Asks a daemon for a sandbox again and again, from a process of its own, and prints how long each Get took, in
 * milliseconds, as JSON. Arguments: the daemon's socket, the sandbox, for how many milliseconds.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ApiClient } from './daemon.ts';

const WARM_UP_CALLS = 200;
const PAUSE_MS = 2;

const [socket = '', sandboxId = '', forMs = '1000'] = process.argv.slice(2);
using client = new ApiClient(socket);
for (let count = 0; count < WARM_UP_CALLS; count += 1) await client.getSandbox(sandboxId);
const took: number[] = [];
const endMs = performance.now() + Number(forMs);
while (performance.now() < endMs) {
  const began = performance.now();
  await client.getSandbox(sandboxId);
  took.push(performance.now() - began);
  await sleep(PAUSE_MS);
}
process.stdout.write(JSON.stringify(took));
