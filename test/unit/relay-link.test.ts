import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { RelayLink } from '../../src/containerd/relay-link.ts';
import { RELAY_VERSION, type RelayRequest } from '../../src/relay/control.ts';

/** The place of a relay, and in it one that answers what the test says. */
class Rig implements AsyncDisposable {
  readonly directory: string;
  readonly asked: RelayRequest['do'][] = [];
  /** The answer to every request. */
  says = '';
  readonly #server = createServer((socket) => {
    this.#serve(socket);
  });
  readonly #connections = new Set<Socket>();
  readonly #links: RelayLink[] = [];

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
    const link = await RelayLink.open({ ...this.#place, directory, inUse: () => inUse, log: silentLogger() });
    this.#links.push(link);
    return link;
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
    const replaced = this.asked.includes('end');
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
