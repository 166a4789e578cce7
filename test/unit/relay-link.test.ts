import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { RelayLink } from '../../src/containerd/relay-link.ts';
import { RELAY_VERSION, responseSchema, type RelayRequest, type RelayResponse } from '../../src/relay/control.ts';
import { pidOf } from '../support/listening.ts';
import { until } from '../support/until.ts';

/** The place of a relay, and in it one that answers what the test says. */
class Rig implements AsyncDisposable {
  readonly directory: string;
  readonly asked: RelayRequest['do'][] = [];
  /** The answer to every request. */
  says = '';
  /** How often the link has called the relay gone, and dead. */
  gone = 0;
  lost = 0;
  readonly #server = createServer((socket) => {
    this.#serve(socket);
  });
  readonly #connections = new Set<Socket>();
  readonly #links: RelayLink[] = [];
  #real = false;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Rig> {
    const rig = new Rig(await mkdtemp(join(tmpdir(), 'qshim-relay-link-')));
    rig.#server.listen(join(rig.directory, 'relay.sock'));
    await once(rig.#server, 'listening');
    return rig;
  }

  about(more: object): string {
    const { socket, backend } = this.#place;
    return JSON.stringify({ pid: 1, socket, backend, version: RELAY_VERSION, ...more });
  }

  async open(inUse: boolean): Promise<RelayLink> {
    const { directory } = this;
    const place = { ...this.#place, directory, inUse: () => inUse, log: silentLogger() };
    const link = await RelayLink.open({
      ...place,
      gone: () => {
        this.gone += 1;
        return () => (this.lost += 1);
      },
    });
    this.#links.push(link);
    return link;
  }

  /** From here on only a relay that is started. */
  stopServing(): void {
    this.#server.close();
    this.#real = true;
  }

  /** As if the connections had failed. */
  cut(): void {
    for (const socket of this.#connections) socket.destroy();
  }

  /** What the relay says of itself to a stranger. */
  async hello(): Promise<RelayResponse> {
    const socket = connect({ path: this.control });
    socket.write('{"do":"hello"}\n');
    const [line] = (await once(socket, 'data')) as [Buffer];
    socket.destroy();
    return responseSchema.parse(JSON.parse(line.toString()));
  }

  get control(): string {
    return join(this.directory, 'relay.sock');
  }

  get #place(): { readonly socket: string; readonly backend: string } {
    return { socket: join(this.directory, 'shim.sock'), backend: join(this.directory, 'daemon.sock') };
  }

  #serve(socket: Socket): void {
    this.#connections.add(socket);
    socket.on('error', () => socket.destroy());
    createInterface({ input: socket }).on('line', (line) => {
      const request = JSON.parse(line) as RelayRequest;
      this.asked.push(request.do);
      socket.write(`${this.says}\n`);
      if (request.do === 'end') this.#end();
    });
  }

  #end(): void {
    this.#server.close();
    for (const socket of this.#connections) socket.end();
  }

  /** Also of a relay that was started instead. */
  async [Symbol.asyncDispose](): Promise<void> {
    const replaced = this.#real || this.asked.includes('end');
    await Promise.all(this.#links.map((link) => link.close(replaced)));
    this.#end();
    await rm(this.directory, { recursive: true });
  }
}

describe('a relay that an earlier daemon has started', { timeout: 60_000 }, () => {
  for (const version of [RELAY_VERSION - 1, RELAY_VERSION + 1]) {
    it(`of version ${version} stays while there are pods, and is asked to hold their FIFOs`, async () => {
      await using rig = await Rig.make();
      rig.says = rig.about({ version, more: true });
      const link = await rig.open(true);
      await link.hold('key', []);
      assert.deepEqual(rig.asked, ['hello', 'hold']);
    });
  }

  it('at another socket stays as well, and that socket is the one that is served', async () => {
    await using rig = await Rig.make();
    rig.says = rig.about({ socket: '/run/earlier.sock' });
    const link = await rig.open(true);
    assert.equal(link.socket, '/run/earlier.sock');
  });

  it('of another version is replaced when there are none', async () => {
    await using rig = await Rig.make();
    rig.says = rig.about({ version: RELAY_VERSION - 1, socket: '/run/earlier.sock' });
    const link = await rig.open(false);
    assert.deepEqual(rig.asked, ['hello', 'end']);
    assert.equal(link.socket, join(rig.directory, 'shim.sock'));
  });

  it('that talks nonsense fails whoever waits for its answer, at once', async () => {
    await using rig = await Rig.make();
    rig.says = '{"pid":"x"}';
    await assert.rejects(rig.open(true), /has closed the connection/);
  });
});

describe('a relay that runs', { timeout: 60_000 }, () => {
  it('may die with a request unread: the daemon lives, and another relay serves in its place', async () => {
    await using rig = await Rig.make();
    rig.stopServing();
    const link = await rig.open(true);
    assert.ok(link.isNew);
    const { pid, socket } = await rig.hello();
    process.kill(pid, 'SIGSTOP');
    const held = link.hold('key', []);
    process.kill(pid, 'SIGKILL');
    await held;
    await until('the relay is known to be dead', () => Promise.resolve(rig.lost === 1));
    const next = await rig.hello();
    assert.notEqual(next.pid, pid);
    assert.equal(next.socket, socket);
    assert.equal(rig.gone, 1);
  });

  it('that is being started when the daemon goes ends with it', async () => {
    await using rig = await Rig.make();
    rig.says = rig.about({});
    const link = await rig.open(false);
    rig.stopServing();
    rig.cut();
    await until('another is started', () => pidOf('relay-main.ts', rig.control).catch(() => undefined));
    await link.close(true);
    await assert.rejects(pidOf('relay-main.ts', rig.control), /no process/);
  });

  it('lives when whoever speaks with it dies with an answer unread', async () => {
    await using rig = await Rig.make();
    rig.stopServing();
    await rig.open(true);
    const { pid } = await rig.hello();
    const stranger = connect({ path: rig.control });
    stranger.pause();
    stranger.on('error', () => undefined);
    stranger.write('{"do":"hello"}\n'.repeat(50_000));
    await once(stranger, 'drain');
    stranger.destroy();
    assert.equal((await rig.hello()).pid, pid);
    assert.equal(rig.gone, 0);
  });

  it('is not taken for dead when only the connection to it has failed', async () => {
    await using rig = await Rig.make();
    rig.says = rig.about({});
    const link = await rig.open(true);
    rig.cut();
    await until('the link has found it again', () =>
      Promise.resolve(rig.asked.filter((asked) => asked === 'hello').length === 2),
    );
    await link.hold('key', []);
    assert.ok(!link.isNew);
    assert.deepEqual([rig.gone, rig.lost], [1, 0]);
  });
});
