import { once } from 'node:events';
import { chown, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { errnoOf, messageOf } from './base/errors.ts';
import { readProcStat } from './base/proc-stat.ts';
import { relayFromArguments, type RelayPlace } from './volume/relay-arguments.ts';

/**
 * The relay of one NBD volume of a confined QEMU, which reaches no network and no socket of the host:
 *
 *     QEMU ─ unix socket in the sandbox's directory ─▶ this process ─ unix socket or TCP ─▶ the server
 *
 * It passes bytes on in both directions and understands none of them: TLS stays between QEMU and the server. Each
 * connection of QEMU's is a connection to the server, and ends with it, so that QEMU sees what becomes of the server
 * and connects again as it is told to. It outlives the daemon, and ends with QEMU (volume/relays.ts ends it before).
 */

/** QEMU has one at a time; the one before may still be ending. */
const CONNECTIONS_MAX = 8;
/** How long QEMU may have been gone before that is seen. */
const LOOK_MS = 2000;
/** What was written last has so long to reach the server, once this process is asked to end. */
const DRAIN_MS = 1000;

async function main(): Promise<void> {
  const place = relayFromArguments(process.argv.slice(2));
  process.umask(0o177);
  const { socket: path, uid } = place;
  // Left by one that was killed.
  await rm(path, { force: true });
  const server = createServer({ allowHalfOpen: true }, (client) => pass(client, place));
  server.maxConnections = CONNECTIONS_MAX;
  server.listen(path);
  await once(server, 'listening');
  // A connection that could not be accepted is QEMU's loss, which tries again.
  server.on('error', () => undefined);
  if (uid !== 0) await chown(path, uid, uid);
  process.on('SIGTERM', () => {
    server.close(() => process.exit(0));
    setTimeout(() => process.exit(0), DRAIN_MS);
  });
  setInterval(() => void endWithout(place), LOOK_MS);
  process.stdout.on('error', () => undefined);
  process.stdout.write('ready\n');
}

function pass(client: Socket, { server }: RelayPlace): void {
  const upstream =
    server.type === 'unix'
      ? connect({ path: server.path, allowHalfOpen: true })
      : connect({ host: server.host, port: server.port, noDelay: true, allowHalfOpen: true });
  const pair = [client, upstream] as const;
  for (const socket of pair) {
    // What ends in an error on one side has no end on the other: both go.
    socket.on('error', () => pair.forEach((one) => one.destroy()));
  }
  // QEMU has given up: the server is not to hear of it later.
  client.on('end', () => {
    if (upstream.connecting) pair.forEach((one) => one.destroy());
  });
  client.pipe(upstream);
  upstream.pipe(client);
}

/** Ends this process when QEMU has ended: no daemon may be there to do it. */
async function endWithout({ qemu, socket }: RelayPlace): Promise<void> {
  const startTicks = await readProcStat(qemu.pid).then(
    (stat) => (stat.state === 'Z' || stat.state === 'X' ? undefined : stat.startTicks),
    (error: unknown) => (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH' ? undefined : qemu.startTicks),
  );
  if (startTicks === qemu.startTicks) return;
  await rm(socket, { force: true });
  process.exit(0);
}

await main().catch((error: unknown) => {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exit(1);
});
