import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import { NODE_FLAGS } from '../../src/base/node-flags.ts';
import { identify, type ProcessIdentity } from '../../src/qemu/process.ts';
import type { BlockNodeInfo } from '../../src/qmp/protocol.ts';
import { relayArguments, relayOfCommandLine, type ServerAddress } from '../../src/volume/relay-arguments.ts';
import { Relays, relaySocket } from '../../src/volume/relays.ts';
import { recogniseSource } from '../../src/volume/source/registry.ts';
import { until } from '../support/until.ts';

const MAIN = join(import.meta.dirname, '../support/relay-start-main.ts');
const FILES_MAX = 64;

it('a relay that finds no descriptor left is an error of its own volume, and not the end of the process', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-relays-'));
  try {
    const script = `ulimit -n ${FILES_MAX}; exec "$0" "$@"`;
    const args = ['-c', script, process.execPath, ...NODE_FLAGS, MAIN, directory];
    const { stdout } = await execa('sh', args, { stdin: 'ignore' });
    assert.deepEqual(JSON.parse(stdout), ['OUT_OF_DESCRIPTORS', 'started']);
  } finally {
    await rm(directory, { recursive: true });
  }
});

describe('the relays of a QEMU', () => {
  const server: ServerAddress = { type: 'unix', path: '/nowhere' };
  const ended = new AbortController();
  let directory: string;
  let socket: string;
  let qemu: ProcessIdentity | undefined;
  let made = 0;
  before(async () => {
    qemu = await identify(process.pid);
    directory = await mkdtemp(join(tmpdir(), 'qshim-relays-'));
  });
  after(async () => {
    ended.abort();
    for (const pid of await running()) process.kill(pid, 'SIGKILL');
    await rm(directory, { recursive: true });
  });

  function relays(of = (): ProcessIdentity | undefined => qemu): Relays {
    made += 1;
    socket = relaySocket(directory, made);
    return new Relays({ log: silentLogger(), directory, qemu: of, uid: () => 0, ended: ended.signal });
  }

  /** Pids of those that run for a socket, or for any of the directory. */
  async function running(of?: string): Promise<readonly number[]> {
    const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
    const found = await Promise.all(
      pids.map(async (pid) => {
        const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
        const at = relayOfCommandLine(args)?.socket;
        return of === undefined ? at?.startsWith(`${directory}/`) === true && Number(pid) : at === of && Number(pid);
      }),
    );
    return found.filter((pid) => pid !== false);
  }

  it('start one relay of a socket, however often they are asked at once', async () => {
    const all = relays();
    await Promise.all([all.start(socket, server), all.start(socket, server)]);
    all.ensure(socket, server);
    assert.equal((await running(socket)).length, 1);
    await all.end(socket);
    assert.deepEqual(await running(socket), []);
  });

  it('end one that is being started, and never start it again', async () => {
    const all = relays();
    const started = all.start(socket, server);
    const refused = assert.rejects(started, { reason: 'NBD_RELAY_NOT_STARTED' });
    await all.end(socket);
    await refused;
    assert.deepEqual([await running(socket), all.sockets], [[], []]);
    assert.ok(!(await readdir(directory)).includes(`nbd-${made}`));
  });

  it('know the server of none that has ended: it is not taken for its own', async () => {
    const all = relays();
    const file = `nbd+unix:///disk?socket=${socket}`;
    const node = (drv: string): BlockNodeInfo => ({
      ...{ 'node-name': `vol-${made}`, drv, ro: false, file, encrypted: false },
      cache: { writeback: true, direct: false, 'no-flush': false },
      image: { filename: file, format: drv, 'virtual-size': 1 },
    });
    const recognised = (): unknown =>
      recogniseSource({
        ...{ root: node('raw'), protocol: node('nbd'), objects: [] },
        relayed: (path) => all.serverOf(path),
      });
    assert.throws(recognised, /who knew its server/);
    assert.equal(all.serverOf('/nowhere/nbd-1'), undefined);
    // As an earlier qshim started it.
    all.ensure(socket, { type: 'unix', path: socket });
    assert.throws(recognised, /who knew its server/);
    await all.end(socket);
  });

  it('end those that nobody uses: neither a volume, nor a node that stays in QEMU without one', async () => {
    const all = relays();
    const [volumes, left, unused] = [socket, `${socket}-left`, `${socket}-unused`];
    for (const one of [volumes, left, unused]) await all.start(one, server);
    await all.endUnused(new Set([volumes, undefined]), ['/dev/fdset/3', `nbd+unix:///disk?socket=${left}`]);
    assert.deepEqual(all.sockets, [volumes, left]);
    await all.endAll();
  });

  it('try one again that could not be started', async () => {
    let isThere = false;
    const all = relays(() => (isThere ? qemu : undefined));
    all.ensure(socket, server);
    assert.deepEqual(all.serverOf(socket), server);
    await new Promise(setImmediate);
    isThere = true;
    await until('it listens', async () => (await readdir(directory)).includes(`nbd-${made}`));
    await all.end(socket);
    assert.deepEqual(await running(socket), []);
  });

  it('take over one that does not listen yet, where a volume is to have one', async () => {
    assert.ok(qemu !== undefined);
    const [known, unknown] = [relays(), relays()];
    // As a relay that has not come as far as that: it has its command line.
    const wait = ['-e', 'setInterval(() => undefined, 1000)', 'nbd-relay-main.ts'];
    const child = spawn(process.execPath, [...wait, ...relayArguments({ socket, uid: 0, qemu, server })], {
      stdio: 'ignore',
    });
    try {
      await unknown.adopt(false);
      await known.adopt(true);
      assert.deepEqual([unknown.sockets, known.sockets], [[], [socket]]);
      await known.end(socket);
      assert.deepEqual(await running(socket), []);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
