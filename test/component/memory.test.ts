import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { it } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { ClientReadableStream } from '@grpc/grpc-js';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import { ApiClient } from '../support/daemon.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/**
 * Whether the daemon's memory stays flat under load: calls of all kinds, refused ones too, and watchers that stay or
 * come and go.
 */

const GAUGE = pathToFileURL(join(import.meta.dirname, '../support/memory-gauge-main.ts')).href;
const MIB = 1024 * 1024;
const CALLS = 10_000;
const WINDOWS = 10;
/** Before the first window that counts: what is made once and kept, and what is kept up to a bound. */
const WARM_UP_WINDOWS = 4;
/** Windows at either end of which the median is taken. */
const COMPARED = 3;
const CALLERS = 20;
const WATCHERS = 200;
const WATCHERS_PASSING = 20;
const CYCLES = 4;
/** 100 bytes that are left behind by each call are more. */
const HEAP_GROWTH_MAX_BYTES = 0.75 * MIB;
/** The heap's pages come and go with its collections; 2 KB that are left behind by each call are more. */
const RSS_GROWTH_MAX_BYTES = 12 * MIB;

interface Usage {
  readonly rss: number;
  readonly heapUsed: number;
}

it('10,000 calls beside 200 watchers leave nothing behind', { timeout: 300_000 }, async (context) => {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-gauge-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true }));
  // A small young generation: its size changes by steps that are no leak.
  const gauge = join(directory, 'gauge.sock');
  const nodeArguments = [
    '--max-semi-space-size=2',
    '--expose-gc',
    '--import',
    `${GAUGE}?listen=${encodeURIComponent(gauge)}`,
  ];
  // What is retained on purpose is full after the warm-up.
  const settings = {
    log_level: 'info',
    removed_retained: 2,
    events_retained: 32,
    caller_watchers_max: 2 * WATCHERS,
  } as const;
  await using rig = await FakeVmRig.start(settings, nodeArguments);
  await rig.sandbox();
  await rig.attach('stays');
  using watching = new Watching(rig);
  await watching.open(WATCHERS);

  const samples: Usage[] = [];
  for (let window = 0; window < WARM_UP_WINDOWS + WINDOWS; window += 1) {
    await load(rig, CALLS / WINDOWS);
    await watching.comeAndGo(WATCHERS_PASSING);
    await watching.caughtUp();
    if (window >= WARM_UP_WINDOWS) samples.push(await measure(gauge));
  }

  const growth = (of: (usage: Usage) => number): number =>
    median(samples.slice(-COMPARED).map(of)) - median(samples.slice(0, COMPARED).map(of));
  const [heap, rss] = [growth(({ heapUsed }) => heapUsed), growth((usage) => usage.rss)];
  const told = samples.map((usage) => `${mib(usage.heapUsed)}/${mib(usage.rss)}`).join(' ');
  context.diagnostic(`heap/rss in MiB: ${told}; grown by ${mib(heap)}/${mib(rss)}`);
  assert.ok(heap < HEAP_GROWTH_MAX_BYTES, `the heap has grown by ${mib(heap)} MiB: ${told}`);
  assert.ok(rss < RSS_GROWTH_MAX_BYTES, `the process has grown by ${mib(rss)} MiB: ${told}`);
});

/** So many calls, `CALLERS` at once: looks, repeats, refusals, and a few volumes that come and go. */
async function load(rig: FakeVmRig, calls: number): Promise<void> {
  const { client } = rig;
  const kinds: readonly (() => Promise<unknown>)[] = [
    () => client.getVolume('one', 'stays'),
    () => client.listVolumes(),
    () => client.getSandbox('one'),
    () => client.listSandboxes(),
    () => rig.attach('stays'),
    () => client.getVolume('one', 'never').catch(() => undefined),
    () => client.attach({ sandboxId: 'one', volumeId: 'stays', spec: {} }).catch(() => undefined),
    () => {
      client.volumes.list({}, () => undefined).cancel();
      return Promise.resolve();
    },
  ];
  let left = calls - 2 * CYCLES;
  const caller = async (): Promise<void> => {
    for (let next = left--; next > 0; next = left--) await kinds[next % kinds.length]?.();
  };
  const cycle = async (): Promise<void> => {
    for (let count = 0; count < CYCLES; count += 1) {
      await rig.attach('goes');
      await rig.detach('goes');
    }
  };
  await Promise.all([cycle(), ...Array.from({ length: CALLERS }, caller)]);
}

/** Watchers of all events, over a few connections. */
class Watching implements Disposable {
  readonly #rig: FakeVmRig;
  readonly #clients: readonly ApiClient[];
  readonly #streams: ClientReadableStream<Event__Output>[] = [];
  readonly #newest: number[] = [];

  constructor(rig: FakeVmRig) {
    this.#rig = rig;
    this.#clients = Array.from({ length: 4 }, () => new ApiClient(rig.daemon.socket));
  }

  async open(count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, () => this.#open()));
  }

  /** Watchers that stay only for a moment. */
  async comeAndGo(count: number): Promise<void> {
    const stay = this.#streams.length;
    await this.open(count);
    for (const stream of this.#streams.splice(stay)) stream.cancel();
    this.#newest.splice(stay);
  }

  /** Waits until all that stay have the newest event. */
  async caughtUp(): Promise<void> {
    await this.#rig.attach('goes');
    const gone = await this.#rig.detach('goes');
    await until('every watcher has the newest event', () =>
      this.#newest.every((generation) => generation === gone.generation) ? true : undefined,
    );
  }

  [Symbol.dispose](): void {
    for (const stream of this.#streams) stream.cancel();
    for (const client of this.#clients) client[Symbol.dispose]();
  }

  async #open(): Promise<void> {
    const index = this.#streams.length;
    const stream = this.#clients[index % this.#clients.length]?.events.watch({});
    assert.ok(stream !== undefined);
    this.#streams.push(stream);
    this.#newest.push(0);
    stream.on('error', () => undefined);
    stream.on('data', ({ type, generation }: Event__Output) => {
      if (type === 'volume.removed' && index < this.#newest.length) this.#newest[index] = generation;
    });
    await once(stream, 'metadata');
  }
}

async function measure(gauge: string): Promise<Usage> {
  return JSON.parse(await text(createConnection(gauge))) as Usage;
}

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? 0;
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}
