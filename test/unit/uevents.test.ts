import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { silentLogger } from '../../src/base/log.ts';
import { DiskArrivals } from '../../src/guest/disk-arrivals.ts';
import { UeventSplitter, UeventStream, type Uevent } from '../../src/guest/uevents.ts';

const ADDRESS = '0000:01:1f.0';
const pathOf = (name: string, address = ADDRESS): string =>
  `/devices/pci0000:00/0000:00:10.0/${address}/virtio5/block/${name}`;

function message(action: string, path: string, variables: Readonly<Record<string, string>> = {}): Buffer {
  const all = { ACTION: action, DEVPATH: path, ...variables, SEQNUM: '17' };
  const strings = [`${action}@${path}`, ...Object.entries(all).map(([name, value]) => `${name}=${value}`)];
  return Buffer.from(strings.map((text) => `${text}\0`).join(''));
}

function uevent(action: string, path: string, variables: Readonly<Record<string, string>> = {}): Uevent {
  const [event] = new UeventSplitter().push(message(action, path, variables));
  assert.ok(event);
  return event;
}

describe('uevents as bytes', () => {
  it('messages come out whole, however the bytes are cut', () => {
    const bytes = Buffer.concat([
      message('add', pathOf('vda'), { SUBSYSTEM: 'block', DEVNAME: 'vda' }),
      message('remove', pathOf('vda')),
    ]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: bytes.length - 1 }), { maxLength: 8 }), (cuts) => {
        const splitter = new UeventSplitter();
        const edges = [0, ...cuts.toSorted((one, other) => one - other), bytes.length];
        const events = edges.flatMap((edge, index) => splitter.push(bytes.subarray(edge, edges[index + 1] ?? edge)));
        assert.deepEqual(
          events.map(({ action, path }) => [action, path]),
          [
            ['add', pathOf('vda')],
            ['remove', pathOf('vda')],
          ],
        );
        assert.equal(events[0]?.variables.get('DEVNAME'), 'vda');
      }),
    );
  });

  it('a message that was begun and not ended is passed over, and so is what belongs to none', () => {
    const splitter = new UeventSplitter();
    const half = message('add', pathOf('vda')).subarray(0, 90);
    const events = splitter.push(
      Buffer.concat([Buffer.from('SEQNUM=1\0x=y\0'), half, Buffer.from('\0'), message('add', pathOf('vdb'))]),
    );
    assert.deepEqual(
      events.map(({ path }) => path),
      [pathOf('vdb')],
    );
  });

  it('what no kernel sends is refused', () => {
    assert.throws(() => new UeventSplitter().push(Buffer.alloc(5000, 'x')), /a string of more than/);
    const many = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`N${index}`, '']));
    assert.throws(() => new UeventSplitter().push(message('add', '/devices/x', many)), /variables/);
  });

  it('random bytes never make it fail in another way', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (chunks) => {
        const splitter = new UeventSplitter();
        for (const chunk of chunks) splitter.push(Buffer.from(chunk));
      }),
    );
  });
});

describe('arrivals of disks', () => {
  function inSync(): DiskArrivals {
    const arrivals = new DiskArrivals();
    arrivals.synced(arrivals.mark());
    return arrivals;
  }

  it('an announcement names the disk that was expected at its address, and no other', async () => {
    const arrivals = inSync();
    const one = arrivals.expect(ADDRESS);
    const other = arrivals.expect('0000:02:01.0');
    arrivals.take(uevent('add', pathOf('vdb', '0000:02:01.0')));
    arrivals.take(uevent('add', pathOf('vda')));
    assert.deepEqual([await one.announced, await other.announced], ['/dev/vda', '/dev/vdb']);
    assert.deepEqual([one.certain, other.certain], [true, true]);
  });

  it('partitions, changes, other devices and repeats that somebody caused name nothing', async () => {
    const arrivals = inSync();
    const expected = arrivals.expect(ADDRESS);
    arrivals.take(uevent('add', `${pathOf('vda')}/vda1`));
    arrivals.take(uevent('change', pathOf('vda')));
    arrivals.take(uevent('add', '/devices/virtual/block/dm-0'));
    arrivals.take(uevent('add', pathOf('vdx'), { SYNTH_UUID: '0' }));
    arrivals.take(uevent('add', pathOf('../../etc')));
    arrivals.take(uevent('add', pathOf('vdc')));
    assert.equal(await expected.announced, '/dev/vdc');
  });

  it('before the stream is known to be whole nothing is certain', async () => {
    const arrivals = new DiskArrivals();
    const early = arrivals.expect(ADDRESS);
    assert.deepEqual([early.certain, await early.announced], [false, undefined]);
    // It came before the sync, and its announcement after: the next tenant must not take it for its own.
    arrivals.synced(arrivals.mark());
    early.end();
    const next = arrivals.expect(ADDRESS);
    assert.equal(next.certain, false);
    arrivals.take(uevent('add', pathOf('vda')));
    arrivals.take(uevent('remove', pathOf('vda')));
    arrivals.take(uevent('add', pathOf('vdb')));
    assert.equal(await next.announced, undefined);
  });

  it('an address is certain again once its last disk was seen to leave', async () => {
    const arrivals = inSync();
    const first = arrivals.expect(ADDRESS);
    arrivals.take(uevent('add', pathOf('vda')));
    first.end();
    // QEMU has shown it to be gone, the guest's word is still on its way.
    const second = arrivals.expect(ADDRESS);
    assert.equal(second.certain, false);
    arrivals.take(uevent('remove', pathOf('vda')));
    arrivals.take(uevent('add', pathOf('vdb')));
    arrivals.take(uevent('remove', pathOf('vdb')));
    second.end();
    const third = arrivals.expect(ADDRESS);
    assert.equal(third.certain, true);
    arrivals.take(uevent('add', pathOf('vdc')));
    assert.equal(await third.announced, '/dev/vdc');
  });

  it('late news of the disk before is never the name of the next', async () => {
    const arrivals = inSync();
    const first = arrivals.expect(ADDRESS);
    first.end();
    const second = arrivals.expect(ADDRESS);
    arrivals.take(uevent('add', pathOf('vda')));
    arrivals.take(uevent('remove', pathOf('vda')));
    arrivals.take(uevent('add', pathOf('vdb')));
    assert.deepEqual([second.certain, await second.announced], [false, undefined]);
  });

  it('a debt that is never paid is forgiven by a mark that was asked for later, and by no earlier one', () => {
    const arrivals = inSync();
    const earlier = arrivals.mark();
    // A device that QEMU refused, or that the guest's driver gave up on: nobody will ever announce it.
    arrivals.expect(ADDRESS).end();
    arrivals.synced(earlier);
    const uncertain = arrivals.expect(ADDRESS);
    assert.equal(uncertain.certain, false);
    uncertain.end();
    arrivals.synced(arrivals.mark());
    assert.equal(arrivals.expect(ADDRESS).certain, true);
  });

  it('a disk that was attached unseen and is seen to leave owes nothing', () => {
    const arrivals = new DiskArrivals();
    const early = arrivals.expect(ADDRESS);
    arrivals.synced(arrivals.mark());
    arrivals.take(uevent('remove', pathOf('vda')));
    early.end();
    assert.equal(arrivals.expect(ADDRESS).certain, true);
  });

  it('whatever order disks come, leave and are told of in: a certain name is the right one', async () => {
    // Disks at one address, one after the other; each is announced once and told to have left once, in order, at any
    // time later. The stream is doubted now and then; a mark goes through it like all other news.
    const step = fc.constantFrom('attach', 'detach', 'news', 'news', 'lost', 'mark');
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
        const arrivals = inSync();
        const news: (Uevent | number)[] = [];
        const tell = (next: Uevent | number | undefined): void => {
          if (typeof next === 'number') arrivals.synced(next);
          else if (next !== undefined) arrivals.take(next);
        };
        let count = 0;
        let present: { arrival: ReturnType<DiskArrivals['expect']>; name: string } | undefined;
        const all: { arrival: ReturnType<DiskArrivals['expect']>; name: string }[] = [];
        for (const step of steps) {
          if (step === 'attach' && present === undefined) {
            const name = `vd${String.fromCharCode(97 + (count % 26))}`;
            count += 1;
            present = { arrival: arrivals.expect(ADDRESS), name };
            all.push(present);
            news.push(uevent('add', pathOf(name)));
          } else if (step === 'detach' && present !== undefined) {
            news.push(uevent('remove', pathOf(present.name)));
            present.arrival.end();
            present = undefined;
          } else if (step === 'news') tell(news.shift());
          else if (step === 'lost') arrivals.lost();
          else if (step === 'mark') news.push(arrivals.mark());
        }
        for (const next of news) tell(next);
        for (const { arrival, name } of all) {
          const said = await Promise.race([arrival.announced, Promise.resolve('nothing yet')]);
          // Nobody waits for one that has ended, and no one that is doubted has to be told.
          if (arrival.certain && arrival === present?.arrival) assert.equal(said, `/dev/${name}`);
          else assert.ok([undefined, 'nothing yet', `/dev/${name}`].includes(said), `${String(said)} for ${name}`);
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('nothing is kept of addresses that nobody asked about', () => {
    const arrivals = inSync();
    for (let index = 0; index < 1000; index += 1) {
      arrivals.take(uevent('add', pathOf('vda', `${index.toString(16).padStart(8, '0')}:00:00.0`)));
    }
    const expected = arrivals.expect('00000001:00:00.0');
    assert.equal(expected.certain, true, 'what was said of it before was not remembered');
  });

  it('a reset or a broken stream ends all waiting, and what was announced counts no more', async () => {
    const arrivals = inSync();
    const waiting = arrivals.expect(ADDRESS);
    const known = arrivals.expect('0000:02:01.0');
    arrivals.take(uevent('add', pathOf('vda', '0000:02:01.0')));
    arrivals.lost();
    assert.equal(await waiting.announced, undefined);
    assert.deepEqual([waiting.certain, known.certain], [false, false]);
    assert.equal(arrivals.expect('0000:03:01.0').certain, false);
    // They are still there, so what comes after them has to wait for their leaving.
    arrivals.synced(arrivals.mark());
    known.end();
    assert.equal(arrivals.expect('0000:02:01.0').certain, false);
    arrivals.reset();
    arrivals.synced(arrivals.mark());
    assert.equal(arrivals.expect('0000:04:01.0').certain, true);
  });
});

describe('the stream', () => {
  async function pair(): Promise<
    AsyncDisposable & { stream: UeventStream; guest: Socket; events: Uevent[]; lost: Promise<void> }
  > {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-uevents-'));
    const path = join(directory, 'sock');
    const server = createServer();
    server.listen(path);
    await once(server, 'listening');
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const events: Uevent[] = [];
    const lost = Promise.withResolvers<void>();
    const listener = { event: (event: Uevent): unknown => events.push(event), lost: () => lost.resolve() };
    const stream = await UeventStream.connect(path, silentLogger(), listener);
    const [guest] = await accepted;
    guest.on('error', () => undefined);
    return {
      stream,
      guest,
      events,
      lost: lost.promise,
      [Symbol.asyncDispose]: async () => {
        await stream[Symbol.asyncDispose]();
        guest.destroy();
        server.close();
        await rm(directory, { recursive: true });
      },
    };
  }
  const limits = { milliseconds: 5000, signal: new AbortController().signal };

  it('a mark is seen by its own id', async () => {
    await using both = await pair();
    const marked = both.stream.marked('1-2', limits);
    const other = both.stream.marked('3-4', { ...limits, milliseconds: 50 });
    both.guest.write(message('change', '/devices/virtual/mem/null', { SYNTH_UUID: '1-2' }));
    assert.deepEqual([await marked, await other], [true, false]);
    assert.equal(both.events.length, 1);
  });

  it('a guest that sends what no kernel does loses the connection; whoever waits hears of it', async () => {
    await using both = await pair();
    const marked = both.stream.marked('1-2', limits);
    both.guest.write(Buffer.alloc(8000, 'x'));
    assert.equal(await marked, false);
    await both.lost;
    assert.equal(both.stream.open, false);
  });

  it('a guest that floods the port loses the connection', async () => {
    await using both = await pair();
    const flood = Buffer.concat(Array.from({ length: 400 }, () => message('change', '/devices/virtual/mem/null')));
    const write = (): void => {
      while (!both.guest.destroyed && both.guest.write(flood));
    };
    both.guest.on('drain', write);
    write();
    await both.lost;
    assert.equal(both.stream.open, false);
  });
});
