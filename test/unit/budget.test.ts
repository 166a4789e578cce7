import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import fc from 'fast-check';
import { HostBudget, TokenBucket, type BudgetRates } from '../../src/base/budget.ts';
import { Paced } from '../../src/base/paced.ts';

const RATES: BudgetRates = { bytes: 1000, lines: 100, streamBytes: 10_000 };
const PLENTY: BudgetRates = { bytes: 1e9, lines: 1e9, streamBytes: 1e9 };

/** A clock that only tests move. */
class Clock {
  ms = 1_000_000;
  readonly now = (): number => this.ms;
}

describe('a token bucket', () => {
  it('over any time gives its burst and its rate, never more, and is overdrawn by the last one only', () => {
    const steps = fc.array(fc.record({ pauseMs: fc.nat(500), amount: fc.integer({ min: 1, max: 300 }) }));
    fc.assert(
      fc.property(steps, (taken) => {
        const clock = new Clock();
        const bucket = new TokenBucket(100, 200, clock.now);
        const startMs = clock.ms;
        let sum = 0;
        for (const { pauseMs, amount } of taken) {
          clock.ms += pauseMs;
          // As a channel does: it takes when there is no debt.
          if (bucket.waitMs > 0) continue;
          bucket.take(amount);
          sum += amount;
          assert.ok(sum <= 200 + ((clock.ms - startMs) / 1000) * 100 + amount + 1e-6);
        }
      }),
    );
  });

  it('says how long until a debt is paid back', () => {
    const clock = new Clock();
    const bucket = new TokenBucket(100, 200, clock.now);
    bucket.take(250);
    const waits = [0, 499, 2].map((ms) => {
      clock.ms += ms;
      return Math.round(bucket.waitMs);
    });
    assert.deepEqual(waits, [500, 1, 0]);
  });
});

describe('the budget of a guest', () => {
  /** Charges as fast as the meter lets it, for so long. @returns what was charged */
  function flood(clock: Clock, charge: () => number, seconds: number): number {
    const endMs = clock.ms + seconds * 1000;
    let count = 0;
    while (clock.ms < endMs) {
      count += 1;
      clock.ms += charge();
    }
    return count;
  }

  it('bounds what is read of one guest in bytes and in lines, over all of its channels', () => {
    const clock = new Clock();
    const guest = new HostBudget({ guest: RATES, total: PLENTY }, clock.now).guest();
    const channels = [guest.control('agent'), guest.control('uevents'), guest.control('qmp')];
    let turn = 0;
    const reads = flood(clock, () => channels[(turn += 1) % 3]?.charge(1, 1) ?? 0, 60);
    assert.ok(reads >= 60 * 100 && reads <= 68 * 100 + 100, `${reads} reads of a byte in a minute`);
    clock.ms += 60_000;
    const bytes = 500 * flood(clock, () => guest.control('agent').charge(500, 1), 60);
    assert.ok(bytes >= 60 * 1000 && bytes <= 69 * 1000, `${bytes} bytes in a minute`);
    guest[Symbol.dispose]();
  });

  it('bounds what is read of all, and leaves each its own share', () => {
    const clock = new Clock();
    const host = new HostBudget({ guest: RATES, total: RATES }, clock.now);
    const loud = Array.from({ length: 10 }, () => host.guest().control('agent'));
    const quiet = host.guest().control('agent');
    let reads = 0;
    const untilMs = loud.map(() => clock.ms);
    for (let tick = 0; tick < 60_000; tick += 10) {
      for (const [index, meter] of loud.entries()) {
        while ((untilMs[index] ?? 0) <= clock.ms) {
          reads += 1;
          untilMs[index] = clock.ms + Math.max(1, meter.charge(1, 1));
        }
      }
      // Six lines a second are within a sixteenth of a hundred.
      if (tick % 200 === 0) assert.equal(quiet.charge(10, 1), 0, `after ${tick} ms`);
      clock.ms += 10;
    }
    const own = (10 * 100) / 16;
    assert.ok(reads <= 68 * (100 + own) + 100, `${reads} lines in a minute`);
  });

  it('what is only passed on is counted by itself, and is no reason to complain', () => {
    const clock = new Clock();
    const guest = new HostBudget({ guest: RATES, total: PLENTY }, clock.now).guest();
    const said: string[] = [];
    guest.listen({ over: (channel) => said.push(channel), calm: () => undefined });
    const bytes = 1000 * flood(clock, () => guest.stream.charge(1000, 1), 60);
    assert.ok(bytes >= 600_000 && bytes <= 690_000, `${bytes} bytes in a minute`);
    assert.deepEqual(said, []);
    assert.equal(guest.control('agent').charge(10, 1), 0);
  });

  it('tells once that it is over, and once that it is calm again', () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const clock = new Clock();
      const guest = new HostBudget({ guest: RATES, total: PLENTY }, clock.now).guest();
      const said: string[] = [];
      guest.listen({ over: (channel, what) => said.push(`${channel}: ${what}`), calm: () => said.push('calm') });
      flood(clock, () => guest.control('agent').charge(1, 1), 30);
      guest.over('uevents', 'no kernel');
      assert.deepEqual(said, ['agent: it sends more than the daemon takes from one guest']);
      mock.timers.tick(29_000);
      clock.ms += 29_000;
      guest.over('uevents', 'again');
      const pass = (ms: number): void => {
        clock.ms += ms;
        mock.timers.tick(ms);
      };
      pass(29_000);
      assert.equal(said.length, 1, 'it was over meanwhile');
      pass(2000);
      assert.deepEqual(said.slice(1), ['calm']);
      guest.over('qmp', 'anew');
      assert.deepEqual(said.slice(2), ['qmp: anew']);
      guest[Symbol.dispose]();
      pass(60_000);
      assert.equal(said.length, 3, 'nobody is told after the end');
    } finally {
      mock.timers.reset();
    }
  });
});

describe('work that a guest can cause', () => {
  it('is done at once, then at its rate, and the last one is never left out', () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const clock = new Clock();
      const end = new AbortController();
      let [caused, done, seen] = [0, 0, 0];
      const paced = new Paced(new TokenBucket(1, 5, clock.now), end.signal, () => {
        done += 1;
        seen = caused;
      });
      for (let step = 0; step < 1000; step += 1) {
        caused += 1;
        paced.ask();
        clock.ms += 10;
        mock.timers.tick(10);
      }
      assert.ok(done >= 14 && done <= 16, `${done} times in ten seconds`);
      clock.ms += 1000;
      mock.timers.tick(1000);
      assert.equal(seen, caused);
      paced.ask();
      end.abort();
      const before = done;
      clock.ms += 60_000;
      mock.timers.tick(60_000);
      assert.equal(done, before, 'nothing after the end');
    } finally {
      mock.timers.reset();
    }
  });
});
