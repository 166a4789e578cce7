import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { PlacementBook, capacityLimit, interruptMode, vectorBudget } from '../../src/volume/model/placement.ts';
import { VOLUME_CAPACITY_MAX } from '../../src/volume/model/slots.ts';

const machine = (vcpus: number, capacity: number, iothreads = 0) => new PlacementBook({ vcpus, capacity, iothreads });

/** The interrupt modes of volumes that come one after the other. */
function modesOf(book: PlacementBook, count: number, queues: number): string[] {
  return Array.from({ length: count }, (_, index) => interruptMode(book.take(index + 1, queues, false), queues));
}

describe('interrupt vectors', () => {
  it('two vCPUs: a vector for each queue first, then shared ones, and never a line for 155 volumes', () => {
    const modes = modesOf(machine(2, 155), 155, 2);
    const shared = modes.indexOf('shared');
    assert.ok(shared > 40, `the first ${shared} have vectors of their own`);
    assert.ok(modes.slice(0, shared).every((mode) => mode === 'per-queue'));
    assert.ok(modes.slice(shared).every((mode) => mode === 'shared'));
  });

  it('one vCPU: lines once the vectors are used up', () => {
    const modes = modesOf(machine(1, 155), 155, 1);
    const line = modes.indexOf('line');
    assert.equal(line, vectorBudget(1) / 2);
    assert.ok(modes.slice(line).every((mode) => mode === 'line'));
  });

  it('what is taken is given back', () => {
    const book = machine(1, 155);
    modesOf(book, 155, 1);
    const full = book.vectorsInUse;
    book.release(1);
    assert.equal(book.vectorsInUse, full - 2);
    assert.equal(interruptMode(book.take(156, 1, false), 1), 'per-queue');
  });

  it('a copy is tried out without effect', () => {
    const book = machine(1, 155);
    modesOf(book.copy(), 50, 1);
    assert.equal(book.vectorsInUse, 0);
  });

  it('the budget holds whatever comes and goes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: VOLUME_CAPACITY_MAX }),
        fc.array(fc.record({ queues: fc.integer({ min: 1, max: 16 }), leaves: fc.boolean() }), { maxLength: 400 }),
        (vcpus, capacity, comings) => {
          const book = machine(vcpus, capacity);
          const present: number[] = [];
          for (const [generation, { queues, leaves }] of comings.entries()) {
            const gone = leaves ? present.shift() : undefined;
            if (gone !== undefined) book.release(gone);
            if (present.length === capacity) continue;
            book.take(generation, queues, false);
            present.push(generation);
            assert.ok(book.vectorsInUse <= book.vectors);
          }
        },
      ),
    );
  });

  it('the limit is told: slots, and from when on lines are shared', () => {
    assert.match(capacityLimit({ vcpus: 2, volumeCapacity: 155 }), /^5 bridges of 31 slots.*217 is the most$/);
    assert.match(capacityLimit({ vcpus: 1, volumeCapacity: 155 }), /vectors for 88 volumes, the rest share/);
  });
});

describe('iothreads', () => {
  const names = (book: PlacementBook, generation: number, queues: number, mapping: boolean) =>
    book.take(generation, queues, mapping).iothreads;

  it('none: the main loop', () => {
    assert.deepEqual(names(machine(2, 31), 1, 2, true), []);
  });

  it('without mapping each volume has the least used one', () => {
    const book = machine(2, 31, 3);
    const given = [1, 2, 3, 4].map((generation) => names(book, generation, 2, false));
    assert.deepEqual(given, [['iothread0'], ['iothread1'], ['iothread2'], ['iothread0']]);
    book.release(2);
    assert.deepEqual(names(book, 5, 2, false), ['iothread1']);
  });

  it('with mapping the queues are spread, over no more threads than there are queues', () => {
    const book = machine(4, 31, 4);
    assert.deepEqual(names(book, 1, 2, true), ['iothread0', 'iothread1']);
    assert.deepEqual(names(book, 2, 2, true), ['iothread2', 'iothread3']);
    assert.equal(names(book, 3, 8, true).length, 4);
  });
});
