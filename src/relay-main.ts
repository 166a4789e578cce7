import { once } from 'node:events';
import { chmod, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { messageOf } from './base/errors.ts';
import { eachLine } from './base/lines.ts';
import { errorOutput } from './base/log.ts';
import { RELAY_VERSION, requestSchema, ttrpcSocketOf, type RelayResponse } from './relay/control.ts';
import { Holds } from './relay/holds.ts';
import { DaemonClient } from './relay/daemon.ts';
import { GrpcProxy } from './relay/proxy.ts';
import { TtrpcProxy } from './relay/ttrpc-proxy.ts';
import { freePath } from './grpc/socket.ts';

/**
 * The relay: a small process between containerd and the daemon that outlives the daemon. It passes calls on and holds
 * FIFOs open, and nothing else, so that there is nothing in it that would have to be restarted. The daemon starts it,
 * finds it again, and ends it when it has no pods.
 */
const log = errorOutput('relay');

async function main(): Promise<void> {
  const [socket, backend, control] = process.argv.slice(2);
  if (socket === undefined || backend === undefined || control === undefined) {
    throw new Error('usage: relay-main SOCKET BACKEND CONTROL; qshimd starts it');
  }
  process.umask(0o077);
  const ttrpcSocket = ttrpcSocketOf(socket);
  // The daemon has looked at their directories.
  for (const path of [control, socket, ttrpcSocket]) await freePath(path);
  const daemon = new DaemonClient(backend);
  const proxies = [new GrpcProxy(daemon), new TtrpcProxy((call) => daemon.pass(call), log)] as const;
  const holds = new Holds();
  await proxies[0].listen(socket);
  await proxies[1].listen(ttrpcSocket);
  for (const path of [socket, ttrpcSocket]) await chmod(path, 0o600);
  const about: RelayResponse = { pid: process.pid, socket, backend, version: RELAY_VERSION };
  const end = async (): Promise<never> => {
    for (const proxy of proxies) proxy.close();
    daemon.close();
    await Promise.all([socket, ttrpcSocket, control].map((path) => rm(path, { force: true })));
    process.exit(0);
  };
  const server = createServer((connection) => {
    converse(connection, holds, about, end);
  });
  server.listen(control);
  await once(server, 'listening');
  // A connection that could not be accepted is its caller's loss.
  server.on('error', (error) => log.write(`relay: ${messageOf(error)}\n`));
  process.on('SIGTERM', () => void end());
}

function converse(connection: Socket, holds: Holds, about: RelayResponse, end: () => Promise<never>): void {
  connection.on('error', () => connection.destroy());
  eachLine(connection, (line) => {
    try {
      const request = requestSchema.parse(JSON.parse(line));
      if (request.do === 'hold') holds.hold(request.key, request.fifos);
      if (request.do === 'release') holds.release(request.key);
      connection.write(`${JSON.stringify(about)}\n`);
      if (request.do === 'end') void end();
    } catch (error) {
      log.write(`relay: ${messageOf(error)}\n`);
      connection.destroy();
    }
  });
}

await main();
