import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { ensureCommands, missingCommands } from '../../scripts/lib/packages.ts';
import { silentLogger } from '../../src/base/log.ts';
import { KeyBindings, type KeyUse } from '../../src/keys/bindings.ts';
import { KeySources } from '../../src/keys/sources.ts';
import { shimFailure } from '../support/agent-pair.ts';

const TOOLS = ['clevis', 'jose', 'curl', 'tangd'] as const;
const isRoot = process.getuid?.() === 0;
const skip = !isRoot && missingCommands(TOOLS).length > 0 ? 'clevis and tang are not installed' : false;
const USE: KeyUse = { kind: 'guest_luks2', labels: {}, uuid: undefined, creates: false };
const KEY = Buffer.from([0, 255, 10, 0x6b, 0x65, 0x79, 10]);

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/**
 * Starts a real tangd for each connection, on its standard input and output, as inetd and systemd do. Loopback only.
 */
async function startTangd(keys: string, port: number): Promise<AsyncDisposable> {
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    const child = spawn('/usr/libexec/tangd', [keys], { stdio: [socket, socket, 'ignore'] });
    child.once('exit', () => socket.destroy());
    // The child has its own copy of the connection.
    socket.unref();
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      await once(server, 'close');
    },
  };
}

describe('a key that is bound to a Tang server', { skip }, () => {
  let directory: string;
  let port: number;
  let path: string;
  before(async () => {
    await ensureCommands(TOOLS);
    directory = await mkdtemp(join(tmpdir(), 'qshim-tang-'));
    const server = join(directory, 'server');
    await mkdir(server);
    await execa('/usr/libexec/tangd-keygen', [server]);
    port = await freePort();
    await using _tangd = await startTangd(server, port);
    path = join(directory, 'key.jwe');
    const config = JSON.stringify({ url: `http://127.0.0.1:${port}` });
    const { stdout } = await execa('clevis', ['encrypt', 'tang', config, '-y'], { input: KEY });
    await writeFile(path, stdout, { mode: 0o644 });
  });
  after(async () => await rm(directory, { recursive: true }));

  const sources = (): KeySources =>
    new KeySources({
      bindings: new KeyBindings([]),
      log: silentLogger(),
      directories: [directory],
      environmentNames: [],
      commands: new Map(),
      timeoutMs: 20_000,
      credentialsDirectory: undefined,
      environment: process.env,
    });

  it('is to be had while the server answers, byte for byte', async () => {
    await using _tangd = await startTangd(join(directory, 'server'), port);
    using key = await sources().fetch({ kind: 'tang', path }, USE);
    assert.deepEqual(
      key.use((bytes) => Buffer.from(bytes)),
      KEY,
    );
  });

  it('and not without it, nor from another one', async () => {
    const down = shimFailure('UNAVAILABLE', 'KEY_SOURCE_DOWN');
    await assert.rejects(sources().fetch({ kind: 'tang', path }, USE), down);
    const other = join(directory, 'other');
    await mkdir(other);
    await execa('/usr/libexec/tangd-keygen', [other]);
    await using _tangd = await startTangd(other, port);
    await assert.rejects(sources().fetch({ kind: 'tang', path }, USE), down);
  });

  it('a JWE that others may write is refused: it names the server', async () => {
    await chmod(path, 0o666);
    const refused = shimFailure('PERMISSION_DENIED', 'KEY_SOURCE_REFUSED');
    await assert.rejects(sources().fetch({ kind: 'tang', path }, USE), refused);
  });
});
