import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { NODE_FLAGS } from '../../src/base/node-flags.ts';
import { readProcStat } from '../../src/base/proc-stat.ts';
import {
  relayArguments,
  relayFromArguments,
  relayOfCommandLine,
  type RelayPlace,
} from '../../src/volume/relay-arguments.ts';

const program = join(import.meta.dirname, '../../src/nbd-relay-main.ts');

const anyPlace: fc.Arbitrary<RelayPlace> = fc.record({
  socket: fc.stringMatching(/^\/[a-z/]{0,20}$/),
  uid: fc.nat(),
  qemu: fc.record({ pid: fc.nat(), startTicks: fc.nat() }),
  server: fc.oneof(
    fc.record({ type: fc.constant('unix' as const), path: fc.string() }),
    fc.record({ type: fc.constant('inet' as const), host: fc.string(), port: fc.nat(65_535) }),
  ),
});

describe("a relay's command line", () => {
  it('says what it does, also to those who find the process', () => {
    fc.assert(
      fc.property(anyPlace, (place) => {
        const args = relayArguments(place);
        assert.deepEqual(relayFromArguments(args), structuredClone(place));
        assert.deepEqual(
          relayOfCommandLine(['/usr/bin/node', ...NODE_FLAGS, program, ...args, '']),
          structuredClone(place),
        );
      }),
    );
  });

  it('is told from others', () => {
    const place: RelayPlace = {
      socket: '/s',
      uid: 0,
      qemu: { pid: 1, startTicks: 1 },
      server: { type: 'unix', path: '/x' },
    };
    const args = relayArguments(place);
    for (const line of [
      ['/usr/bin/node', '/src/relay-main.ts', ...args],
      ['/usr/bin/node', program, ...args.slice(1)],
      ['/usr/bin/node', program, ...args.slice(0, 4), '{"type":"fd","str":"7"}'],
      ['/usr/bin/node', program, ...args.with(1, '-1')],
      [],
    ]) {
      assert.equal(relayOfCommandLine(line), undefined, line.join(' '));
    }
  });
});

describe('a relay', () => {
  let directory: string;
  let server: Server;
  const accepted: Socket[] = [];
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'qshim-relay-'));
    server = createServer({ allowHalfOpen: true }, (socket) => {
      accepted.push(socket);
      socket.on('error', () => undefined);
    });
    server.listen(join(directory, 'server'));
    await once(server, 'listening');
  });
  after(async () => {
    server.close();
    await rm(directory, { recursive: true });
  });

  async function start(socket: string, of: number, path = join(directory, 'server')): Promise<ChildProcess> {
    const { startTicks } = await readProcStat(of);
    const place: RelayPlace = { socket, uid: 0, qemu: { pid: of, startTicks }, server: { type: 'unix', path } };
    const child = spawn(process.execPath, [...NODE_FLAGS, program, ...relayArguments(place)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    return child;
  }

  /** The next connection at the server. */
  async function next(): Promise<Socket> {
    while (accepted.length === 0) await once(server, 'connection');
    const socket = accepted.shift();
    assert.ok(socket !== undefined);
    return socket;
  }

  it('passes on bytes and ends, each direction by itself, and ends when its last bytes have gone', async () => {
    const path = join(directory, 'pass');
    const child = await start(path, process.pid);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    const client = connect({ path, allowHalfOpen: true });
    const upstream = await next();
    const bytes = Buffer.alloc(3_000_000, 'x').toString();
    client.end(bytes);
    assert.equal(await text(upstream), bytes);
    upstream.write('an answer after the end of the question');
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    upstream.end(', and more');
    assert.equal(await text(client), 'an answer after the end of the question, and more');
    assert.deepEqual(await exited, [0, null]);
  });

  it('a server that goes, and one that is not there, is an end to the client', async () => {
    const path = join(directory, 'goes');
    const child = await start(path, process.pid);
    const client = connect({ path });
    const closed = once(client, 'close');
    (await next()).destroy();
    await closed;
    child.kill('SIGKILL');
    const nowhere = await start(path, process.pid, join(directory, 'nobody'));
    const lost = connect({ path });
    lost.on('error', () => undefined);
    await once(lost, 'close');
    nowhere.kill('SIGKILL');
  });

  it('takes few connections at once', async () => {
    const path = join(directory, 'few');
    const child = await start(path, process.pid);
    const clients = Array.from({ length: 12 }, () => connect({ path }));
    let closed = 0;
    for (const client of clients) client.on('error', () => undefined).on('close', () => (closed += 1));
    for (let count = 0; count < 8; count += 1) await next();
    while (closed < 4) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(accepted.length, 0);
    for (const client of clients) client.destroy();
    child.kill('SIGKILL');
  });

  it('ends, and its socket with it, when the process ends that it is for', async () => {
    const path = join(directory, 'ends');
    const qemu = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
    const child = await start(path, qemu.pid ?? 0);
    const exited = once(child, 'exit');
    qemu.kill('SIGKILL');
    assert.deepEqual(await exited, [0, null]);
    await assert.rejects(stat(path), { code: 'ENOENT' });
  });
});
