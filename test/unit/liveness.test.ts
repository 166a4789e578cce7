import assert from 'node:assert/strict';
import { closeSync, readSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import koffi from 'koffi';
import { Liveness } from '../../src/api/liveness.ts';
import { serviceManager } from '../../src/api/service-manager.ts';

describe('whether the daemon gets on', () => {
  /** Looks that a test makes by hand. */
  function rig(askPool: () => Promise<unknown> = () => Promise.resolve()) {
    const state = { now: 0, journal: undefined as string | undefined };
    const liveness = new Liveness({ now: () => state.now, askPool, journalProblem: () => state.journal });
    const lookAfter = async (milliseconds: number): Promise<string | undefined> => {
      state.now += milliseconds;
      const { stuck, unable } = liveness.look();
      // What the pool has answered is heard.
      await new Promise(setImmediate);
      return stuck ?? unable;
    };
    return { state, lookAfter };
  }

  it('well: nothing to tell', async () => {
    const { lookAfter } = rig();
    for (let look = 0; look < 20; look += 1) assert.equal(await lookAfter(500), undefined);
  });

  it('a thread that was not free is told of until it has been free for a while', async () => {
    const { lookAfter } = rig();
    await lookAfter(500);
    assert.match((await lookAfter(6500)) ?? '', /answered nobody for 6000 ms/);
    for (let look = 0; look < 19; look += 1) assert.match((await lookAfter(500)) ?? '', /answered nobody/);
    assert.equal(await lookAfter(500), undefined);
  });

  it('threads for files that answer nothing are told of, until they answer', async () => {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const { lookAfter } = rig(() => promise);
    for (let look = 0; look < 10; look += 1) assert.equal(await lookAfter(500), undefined);
    assert.match((await lookAfter(500)) ?? '', /no thread for files has answered for 5000 ms/);
    resolve(undefined);
    await promise;
    await new Promise(setImmediate);
    assert.equal(await lookAfter(500), undefined);
  });

  it('a journal that cannot be written is told of', async () => {
    const { state, lookAfter } = rig();
    state.journal = 'cannot write the journal';
    assert.equal(await lookAfter(500), 'cannot write the journal');
    state.journal = undefined;
    assert.equal(await lookAfter(500), undefined);
  });
});

describe('what systemd is told', () => {
  it('nothing without it, and its variables are for nobody else', () => {
    const environment = { NOTIFY_SOCKET: '/run/x', WATCHDOG_USEC: '1000000', PATH: '/bin' };
    const told: string[] = [];
    const systemd = serviceManager(environment, (path, text) => told.push(`${path} ${text}`));
    assert.deepEqual(environment, { PATH: '/bin' });
    systemd.ready();
    systemd.alive(0);
    systemd.alive(499);
    systemd.alive(500);
    systemd.stopping();
    assert.deepEqual(told, ['/run/x READY=1', '/run/x WATCHDOG=1', '/run/x WATCHDOG=1', '/run/x STOPPING=1']);
    const silent = serviceManager({}, () => assert.fail('nobody is there'));
    silent.ready();
    silent.alive(0);
  });

  it('nobody of a watchdog that is meant for another process', () => {
    const told: string[] = [];
    const environment = { NOTIFY_SOCKET: '/run/x', WATCHDOG_USEC: '1000000', WATCHDOG_PID: '1' };
    const systemd = serviceManager(environment, (_, text) => told.push(text));
    systemd.alive(0);
    systemd.ready();
    assert.deepEqual(told, ['READY=1']);
  });

  it('over a real datagram socket, by its path', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-notify-'));
    const path = join(directory, 'notify');
    const libc = koffi.load(null);
    const socket = libc.func('int socket(int, int, int)') as unknown as (...args: readonly number[]) => number;
    const bind = libc.func('int bind(int, void *, uint32_t)') as unknown as (
      descriptor: number,
      address: Buffer,
      bytes: number,
    ) => number;
    const descriptor = socket(1, 2, 0);
    try {
      const address = Buffer.alloc(110);
      address.writeUInt16LE(1, 0);
      address.write(path, 2);
      assert.equal(bind(descriptor, address, 110), 0);
      serviceManager({ NOTIFY_SOCKET: path }).ready();
      const heard = Buffer.alloc(64);
      assert.equal(heard.toString('utf8', 0, readSync(descriptor, heard)), 'READY=1');
    } finally {
      closeSync(descriptor);
      await rm(directory, { recursive: true });
    }
    // Nobody there: nothing happens.
    serviceManager({ NOTIFY_SOCKET: path }).ready();
  });
});
