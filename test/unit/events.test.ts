import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { NewEvent, ShimEvent } from '../../src/store/event.ts';
import { EventLog, type EventLogLimits, type EventToken, type Watcher } from '../../src/store/events.ts';

const EVENT: NewEvent = {
  type: 'volume.pending',
  sandboxId: 's',
  volumeId: 'v',
  generation: 1,
  cause: undefined,
  timings: [],
  subject: undefined,
};

function logOf(limits: Partial<EventLogLimits> = {}): EventLog {
  return new EventLog({ retainedMax: 10, watchersMax: 10, watcherQueueMax: 10, ...limits });
}

function emit(log: EventLog, count: number): void {
  for (let turn = 0; turn < count; turn += 1) log.emit(EVENT);
}

/** Goes on behind a number, of whatever epoch. */
function watchAfter(log: EventLog, sequence: number): Watcher {
  return log.watch({ sequence, epoch: undefined });
}

const open = (): AbortSignal => new AbortController().signal;

/** The sequence numbers that are there to be taken. */
async function taken(watcher: Watcher): Promise<number[]> {
  return (await watcher.take(open())).map((event) => event.sequence);
}

describe('event log', () => {
  it('numbers follow each other without gaps, and every watcher sees them in order', async () => {
    const log = logOf();
    using one = log.watch();
    using two = log.watch();
    emit(log, 3);
    assert.deepEqual(await taken(one), [1, 2, 3]);
    emit(log, 1);
    assert.deepEqual(await taken(one), [4]);
    assert.deepEqual(await taken(two), [1, 2, 3, 4]);
    assert.equal(log.newest.sequence, 4);
  });

  it('a watcher begins with the next event unless it says otherwise', async () => {
    const log = logOf();
    emit(log, 2);
    using watcher = log.watch();
    emit(log, 1);
    assert.deepEqual(await taken(watcher), [3]);
  });

  it('events that are still on their way to the disk are older than a watcher that opens now', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-events-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const limits = { retainedMax: 10, watchersMax: 10, watcherQueueMax: 10 };
    const log = await EventLog.open(join(directory, 'events.jsonl'), limits, silentLogger());
    emit(log, 2);
    assert.equal(log.newest.sequence, 0, 'none is delivered yet');
    using late = log.watch();
    using early = watchAfter(log, 0);
    emit(log, 1);
    await log.flush();
    assert.deepEqual(await taken(late), [3]);
    assert.deepEqual(await taken(early), [1, 2, 3]);
  });

  it('all that is retained is to be had, also when the first events are not any more', async () => {
    const log = new EventLog({ retainedMax: 3, watchersMax: 10, watcherQueueMax: 10 });
    {
      using none = log.watch('retained');
      emit(log, 5);
      assert.deepEqual(await taken(none), [1, 2, 3, 4, 5]);
    }
    assert.throws(() => watchAfter(log, 1), { reason: 'EVENTS_LOST' });
    using all = log.watch('retained');
    emit(log, 1);
    assert.deepEqual(await taken(all), [3, 4, 5, 6]);
  });

  it('an event of another version, with a reason that this one does not know, is given as it was', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-events-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    const path = join(directory, 'events.jsonl');
    const cause = { reason: 'OF_ANOTHER_VERSION', message: 'because' };
    const event = {
      sequence: 1,
      timeMs: 1,
      type: 'sandbox.stopped',
      sandboxId: 's',
      generation: 0,
      cause,
      timings: [],
    };
    await writeFile(path, `${JSON.stringify(event)}\n`);
    const limits = { retainedMax: 10, watchersMax: 10, watcherQueueMax: 10 };
    const log = await EventLog.open(path, limits, silentLogger());
    assert.equal(log.newest.sequence, 1, 'it was read');
    using watcher = watchAfter(log, 0);
    const [first] = await watcher.take(open());
    assert.deepEqual(first?.cause, cause);
  });

  it('a waiting watcher is woken by the event that comes', async () => {
    const log = logOf();
    using watcher = log.watch();
    const next = taken(watcher);
    emit(log, 1);
    assert.deepEqual(await next, [1]);
  });

  it('what a watcher asks for afterwards is what it would have seen, or OUT_OF_RANGE', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(12), fc.integer({ min: 1, max: 6 }), fc.nat(14), async (count, retainedMax, after) => {
        const log = logOf({ retainedMax, watcherQueueMax: 100 });
        emit(log, count);
        const oldest = Math.max(1, count - retainedMax + 1);
        if (after + 1 < oldest || after > count) {
          assert.throws(() => watchAfter(log, after), { code: 'OUT_OF_RANGE', reason: 'EVENTS_LOST' });
          return;
        }
        using watcher = watchAfter(log, after);
        emit(log, 1);
        const expected = Array.from({ length: count + 1 - after }, (_, index) => after + 1 + index);
        assert.deepEqual(await taken(watcher), expected);
      }),
    );
  });

  it('OUT_OF_RANGE says which events there are', () => {
    const log = logOf({ retainedMax: 2 });
    emit(log, 5);
    assert.throws(
      () => watchAfter(log, 1),
      (error) => {
        assert.ok(error instanceof ShimError);
        assert.deepEqual(error.metadata, { oldest: '4', newest: '5', epoch: log.newest.epoch });
        return true;
      },
    );
  });

  it('a refused watcher takes no place', () => {
    const log = logOf({ watchersMax: 1 });
    assert.throws(() => watchAfter(log, 5), { code: 'OUT_OF_RANGE' });
    log.watch()[Symbol.dispose]();
  });

  it('what a watcher asks for afterwards does not count as lagging behind; what comes then does', async () => {
    const log = logOf({ retainedMax: 10, watcherQueueMax: 2 });
    emit(log, 10);
    using watcher = watchAfter(log, 3);
    emit(log, 2);
    assert.deepEqual(await taken(watcher), [4, 5, 6, 7, 8, 9, 10, 11, 12]);
    emit(log, 3);
    assert.deepEqual(await taken(watcher), [13, 14]);
    await assert.rejects(taken(watcher), { reason: 'WATCHER_TOO_SLOW' });
  });

  it('a slow watcher loses its own stream only, after what it could still take', async () => {
    const log = logOf({ watcherQueueMax: 3 });
    using slow = log.watch();
    using quick = log.watch();
    for (let turn = 1; turn <= 5; turn += 1) {
      emit(log, 1);
      assert.deepEqual(await taken(quick), [turn]);
    }
    assert.deepEqual(await taken(slow), [1, 2, 3]);
    await assert.rejects(slow.take(open()), {
      code: 'RESOURCE_EXHAUSTED',
      reason: 'WATCHER_TOO_SLOW',
      metadata: { lastSequence: '3', lastEpoch: log.newest.epoch },
    });
    emit(log, 1);
    await assert.rejects(slow.take(open()), { reason: 'WATCHER_TOO_SLOW' }, 'no events after the gap');
    assert.deepEqual(await taken(quick), [6]);
  });

  it('a queue that is exactly full is no overflow', async () => {
    const log = logOf({ watcherQueueMax: 3 });
    using watcher = log.watch();
    emit(log, 3);
    assert.deepEqual(await taken(watcher), [1, 2, 3]);
    emit(log, 3);
    assert.deepEqual(await taken(watcher), [4, 5, 6]);
  });

  it('watchers are bounded, and a place comes back when one is disposed of', () => {
    const log = logOf({ watchersMax: 2 });
    using _kept = log.watch();
    const other = log.watch();
    assert.throws(() => log.watch(), { code: 'RESOURCE_EXHAUSTED', reason: 'TOO_MANY_WATCHERS' });
    other[Symbol.dispose]();
    log.watch()[Symbol.dispose]();
  });

  it('close ends every stream with its cause, after what was queued', async () => {
    const log = logOf();
    using waiting = log.watch();
    using behind = log.watch();
    const cause = new ShimError('UNAVAILABLE', 'stopping', { reason: 'DAEMON_STOPPING' });
    const ended = assert.rejects(waiting.take(open()), cause);
    log.close(cause);
    await ended;
    emit(log, 1);
    await assert.rejects(behind.take(open()), cause);
    const log2 = logOf();
    using queued = log2.watch();
    emit(log2, 1);
    log2.close(cause);
    assert.deepEqual(await taken(queued), [1]);
    await assert.rejects(queued.take(open()), cause);
  });

  it('a wait ends with its signal, and the stream goes on', async () => {
    const log = logOf();
    using watcher = log.watch();
    const controller = new AbortController();
    const reason = new Error('enough');
    const wait = assert.rejects(watcher.take(controller.signal), reason);
    controller.abort(reason);
    await wait;
    await assert.rejects(watcher.take(controller.signal), reason);
    emit(log, 1);
    assert.deepEqual(await taken(watcher), [1]);
  });

  it('a disposed watcher ends whoever waits on it and gets nothing more', async () => {
    const log = logOf();
    const watcher = log.watch();
    const wait = assert.rejects(watcher.take(open()), { code: 'CANCELLED' });
    watcher[Symbol.dispose]();
    await wait;
    emit(log, 1);
    await assert.rejects(watcher.take(open()), { code: 'CANCELLED' });
  });
});

/** Event logs over one directory, one daemon after the other; while it is full, no file can be written in it. */
class Disk implements AsyncDisposable {
  readonly directory: string;
  /** All that any watcher of any daemon was told, in order. */
  readonly told: ShimEvent[] = [];
  log: EventLog;
  #watcher: Watcher;
  #emitted = 0;

  private constructor(directory: string, log: EventLog) {
    this.directory = directory;
    this.log = log;
    this.#watcher = log.watch();
  }

  static async make(): Promise<Disk> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-events-'));
    return new Disk(directory, await Disk.#open(directory));
  }

  static #open(directory: string): Promise<EventLog> {
    const limits = { retainedMax: 4, watchersMax: 10, watcherQueueMax: 100 };
    return EventLog.open(join(directory, 'events.jsonl'), limits, silentLogger());
  }

  async full(isFull: boolean): Promise<void> {
    const obstacle = join(this.directory, 'events.jsonl.new');
    if (isFull) await mkdir(obstacle, { recursive: true });
    else await rm(obstacle, { recursive: true, force: true });
  }

  /** Each event has a generation of its own, by which it is known. */
  async emit(count: number): Promise<void> {
    for (let turn = 0; turn < count; turn += 1) {
      this.#emitted += 1;
      this.log.emit({ ...EVENT, generation: this.#emitted });
    }
    while (this.told.length < this.#emitted) this.told.push(...(await this.#watcher.take(open())));
  }

  /** As when the daemon is killed, and another comes. */
  async restart(): Promise<void> {
    this.log = await Disk.#open(this.directory);
    this.#watcher = this.log.watch();
  }

  /** What a watcher hears that goes on behind an event: all that was told since, or that it is lost. */
  async behind(token: EventToken): Promise<readonly number[] | 'lost'> {
    try {
      using watcher = this.log.watch(token);
      // One more event, so that there is something to take.
      await this.emit(1);
      return (await watcher.take(open())).map(({ generation }) => generation);
    } catch (error) {
      assert.ok(error instanceof ShimError && error.reason === 'EVENTS_LOST', String(error));
      return 'lost';
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true });
  }
}

/** Fills the file so far that whatever comes next writes it anew. */
const TO_THE_BRIM = 8;

describe('events that cannot be kept', () => {
  it('are told in an epoch of their own, far above; no number comes twice, also from the next daemons', async () => {
    await using disk = await Disk.make();
    await disk.emit(TO_THE_BRIM);
    const kept = disk.log.newest;
    await disk.full(true);
    await disk.emit(3);
    const unkept = disk.log.newest;
    assert.notEqual(unkept.epoch, kept.epoch);
    assert.ok(unkept.sequence > 1e15);
    // The same daemon goes on from either.
    assert.deepEqual(await disk.behind(kept), [9, 10, 11, 12]);
    assert.deepEqual(await disk.behind(unkept), [12, 13]);
    await disk.restart();
    assert.deepEqual(await Promise.all([kept, unkept].map((token) => disk.behind(token))), ['lost', 'lost']);
    assert.equal(await disk.behind({ ...kept, epoch: undefined }), 'lost', 'a bare number');
    await disk.emit(2);
    await disk.restart();
    await disk.full(false);
    await disk.emit(2);
    const again = disk.log.newest;
    await disk.restart();
    assert.equal((await disk.behind(again)).length, 1);
    const numbers = disk.told.map(({ sequence }) => sequence);
    assert.equal(new Set(numbers).size, numbers.length, 'no number comes twice');
  });

  it('are on disk once there is room, and the epoch goes on: another daemon knows them', async () => {
    await using disk = await Disk.make();
    await disk.emit(TO_THE_BRIM);
    await disk.full(true);
    await disk.emit(2);
    const unkept = disk.log.newest;
    await disk.full(false);
    await disk.log.flush();
    await disk.restart();
    assert.deepEqual(await disk.behind(unkept), [11]);
    assert.equal(disk.log.newest.epoch, unkept.epoch);
    assert.equal(disk.log.newest.sequence, unkept.sequence + 1);
  });

  it('a write that was cut short is taken out of the file, and what comes next is not lost with it', async () => {
    await using disk = await Disk.make();
    await disk.emit(2);
    const path = join(disk.directory, 'events.jsonl');
    await writeFile(path, `${await readFile(path, 'utf8')}{"sequence":3,"ti`);
    await disk.restart();
    assert.deepEqual(await disk.behind(disk.log.newest), [3]);
    await disk.restart();
    assert.deepEqual(
      disk.told.map(({ sequence }) => sequence),
      [1, 2, 3],
    );
    assert.equal(disk.log.newest.sequence, 3);
  });

  it('events of versions without epochs have one, that of what comes next', async () => {
    await using disk = await Disk.make();
    await disk.emit(2);
    const path = join(disk.directory, 'events.jsonl');
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replaceAll(/"epoch":"[0-9a-f]+",/g, ''));
    await disk.restart();
    const { epoch } = disk.log.newest;
    await disk.emit(1);
    await disk.restart();
    assert.equal(disk.log.newest.epoch, epoch);
    assert.deepEqual(await disk.behind({ epoch, sequence: 1 }), [2, 3, 4]);
  });

  it('a daemon that comes within the same millisecond gives none of the numbers of the one before', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() });
    await using disk = await Disk.make();
    await disk.emit(TO_THE_BRIM);
    await disk.full(true);
    await disk.emit(3);
    await disk.restart();
    await disk.emit(3);
    const numbers = disk.told.map(({ sequence }) => sequence);
    assert.equal(new Set(numbers).size, numbers.length);
  });

  it('whatever happens: no number comes twice, and who goes on hears all that was told since, or that it is lost', async () => {
    const step = fc.oneof(
      fc.nat({ max: 12 }).map((count) => ({ kind: 'emit', count }) as const),
      fc.constantFrom({ kind: 'full' } as const, { kind: 'room' } as const, { kind: 'restart' } as const),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), fc.nat(), async (steps, which) => {
        await using disk = await Disk.make();
        for (const one of steps) {
          if (one.kind === 'emit') await disk.emit(one.count);
          else if (one.kind === 'restart') await disk.restart();
          else await disk.full(one.kind === 'full');
        }
        const numbers = disk.told.map(({ sequence }) => sequence);
        assert.equal(new Set(numbers).size, numbers.length);
        const token = disk.told[which % Math.max(1, disk.told.length)];
        if (token === undefined) return;
        const heard = await disk.behind(token);
        if (heard === 'lost') return;
        const since = disk.told.filter(({ generation }) => generation > token.generation);
        assert.deepEqual(
          heard,
          since.map(({ generation }) => generation),
        );
      }),
      { numRuns: 150 },
    );
  });
});
