import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, constants, type ClientHttp2Session } from 'node:http2';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { TestDaemon } from '../support/daemon.ts';
import { residentBytes } from '../support/grpc-fuzz.ts';
import { until } from '../support/until.ts';

/** What one caller could take: 1.3 GiB by messages that never end, seconds by filters, every connection. */

const MIB = 1024 * 1024;
const UNFINISHED = 150;
const UNFINISHED_BYTES = 8 * MIB;
const IDLE_CONNECTIONS = 3620;
const FILTER_BYTES = 6.6 * MIB;
/** What a daemon at rest may take or give back between two looks. */
const GROWTH_BYTES_MAX = 96 * MIB;

describe('one caller', { timeout: 300_000 }, () => {
  it(`${UNFINISHED} unfinished messages of 8 MiB: little is kept, and all of it given back`, async () => {
    await using daemon = await TestDaemon.start({ config: { request_timeout_ms: 3000 } });
    const pid = daemon.child.pid ?? 0;
    const before = await residentBytes(pid);
    // As much of each as the daemon takes: 8 MiB where it may, and what fits where it may not.
    const sessions = await Promise.all(Array.from({ length: 3 }, () => open(daemon.socket)));
    const ends = Array.from({ length: UNFINISHED }, (_, index) =>
      begin(sessions[index % sessions.length] ?? assert.fail(), '/qshim.v1.Sandboxes/List', UNFINISHED_BYTES),
    );
    let most = before;
    const gauge = (async () => {
      for (let look = 0; look < 40; look += 1) {
        most = Math.max(most, await residentBytes(pid));
        await sleep(100);
      }
    })();
    await Promise.all(ends.map(({ closed }) => closed));
    await gauge;
    assert.ok(most - before < GROWTH_BYTES_MAX, `from ${before} to ${most} bytes`);
    for (const session of sessions) session.destroy();
    assert.deepEqual(await daemon.client.listSandboxes(), []);
  });

  it(`${IDLE_CONNECTIONS} connections: those too many are turned away`, async () => {
    await using daemon = await TestDaemon.start({ config: { caller_connections_max: 128 } });
    const sockets = Array.from({ length: IDLE_CONNECTIONS }, () => {
      const socket = connect(daemon.socket);
      socket.on('error', () => undefined).resume();
      return socket;
    });
    const isOpen = (): number => sockets.filter(({ closed, connecting }) => !closed && !connecting).length;
    await until('few are left', () =>
      sockets.every(({ connecting }) => !connecting) && isOpen() <= 128 ? true : undefined,
    );
    assert.deepEqual(await daemon.client.listSandboxes(), [], 'the connection of a client that was there is kept');
    for (const socket of sockets) socket.destroy();
  });

  it('6.6 MiB of label filters are no request', async () => {
    await using daemon = await TestDaemon.start();
    const session = await open(daemon.socket);
    const { closed } = begin(session, '/qshim.v1.Sandboxes/List', FILTER_BYTES, true);
    assert.match(await closed, /^(?:8|rst)/);
    session.destroy();
    assert.deepEqual(await daemon.client.listSandboxes(), []);
  });
});

async function open(socket: string): Promise<ClientHttp2Session> {
  const session = connectHttp2('http://localhost', { createConnection: () => connect(socket) });
  session.on('error', () => undefined);
  await once(session, 'connect');
  return session;
}

/**
 * Sends a message but for its last byte, or whole.
 * @returns when the call has ended: its gRPC status, or `rst` and the code
 */
function begin(session: ClientHttp2Session, path: string, bytes: number, whole = false): { closed: Promise<string> } {
  const stream = session.request(
    { ':method': 'POST', ':path': path, te: 'trailers', 'content-type': 'application/grpc' },
    { endStream: false },
  );
  let seen: string | undefined;
  for (const event of ['response', 'trailers']) {
    stream.on(event, (headers: Readonly<Record<string, unknown>>) => {
      const found: unknown = headers['grpc-status'];
      if (typeof found === 'string') seen = found;
    });
  }
  stream.on('error', () => undefined);
  stream.resume();
  const message = Buffer.alloc(5 + bytes - (whole ? 0 : 1), 0x0a);
  message[0] = 0;
  message.writeUInt32BE(bytes, 1);
  stream.write(message);
  if (whole) stream.end();
  const closed = new Promise<string>((resolve) => {
    // A refusal that the caller does not take ends with its connection.
    const leave = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), 20_000);
    stream.once('close', () => {
      clearTimeout(leave);
      resolve(seen ?? `rst ${stream.rstCode}`);
    });
  });
  return { closed };
}
