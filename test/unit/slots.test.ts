import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  BRIDGES_MAX,
  FIRST_BRIDGE_ADDRESS,
  SLOTS_PER_BRIDGE,
  SlotBook,
  VOLUME_CAPACITY_MAX,
  bridgesFor,
  pciPath,
  qemuAddress,
  slotAt,
  slotIndex,
  type Slot,
} from '../../src/volume/model/slots.ts';

const anyIndex = fc.integer({ min: 0, max: VOLUME_CAPACITY_MAX - 1 });

function taken(book: SlotBook, generation: number): Slot {
  const slot = book.take(generation);
  assert.ok(slot !== undefined, 'a slot was free');
  return slot;
}

describe('slot addresses', () => {
  it('slotIndex is the inverse of slotAt, and every slot has a place of its own', () => {
    const places = new Set<string>();
    for (let index = 0; index < VOLUME_CAPACITY_MAX; index += 1) {
      const slot = slotAt(index);
      assert.equal(slotIndex(slot), index);
      assert.ok(slot.device >= 1 && slot.device <= 31, 'device 0 of a bridge is the bridge controller itself');
      places.add(pciPath(slot));
    }
    assert.equal(places.size, VOLUME_CAPACITY_MAX);
  });

  it('the first and last slots are where they should be', () => {
    assert.deepEqual(slotAt(0), { bridge: { id: 'bridge0', address: 0x10 }, device: 1 });
    assert.deepEqual(slotAt(30), { bridge: { id: 'bridge0', address: 0x10 }, device: 31 });
    assert.deepEqual(slotAt(31), { bridge: { id: 'bridge1', address: 0x11 }, device: 1 });
    assert.deepEqual(slotAt(216), { bridge: { id: 'bridge6', address: 0x16 }, device: 31 });
  });

  it('every slot of a capacity lies on a bridge that the sandbox is launched with, and none is superfluous', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: VOLUME_CAPACITY_MAX }), (capacity) => {
        const bridges = bridgesFor(capacity);
        assert.ok(bridges.length <= BRIDGES_MAX);
        assert.equal(bridges.length, Math.ceil(capacity / SLOTS_PER_BRIDGE));
        assert.deepEqual(slotAt(capacity - 1).bridge, bridges.at(-1));
        assert.deepEqual(slotAt(0).bridge, bridges[0]);
        for (const [index, bridge] of bridges.entries()) assert.equal(bridge.address, FIRST_BRIDGE_ADDRESS + index);
      }),
    );
  });

  it('addresses are hexadecimal: QEMU reads "10" as 16', () => {
    assert.equal(qemuAddress(1), '0x1');
    assert.equal(qemuAddress(10), '0xa');
    assert.equal(qemuAddress(31), '0x1f');
    for (let device = 1; device <= 31; device += 1) assert.equal(Number.parseInt(qemuAddress(device), 16), device);
  });

  it('PCI paths are two hexadecimal digits each', () => {
    assert.equal(pciPath(slotAt(0)), '10/01');
    assert.equal(pciPath(slotAt(VOLUME_CAPACITY_MAX - 1)), '16/1f');
    fc.assert(
      fc.property(anyIndex, (index) => {
        assert.match(pciPath(slotAt(index)), /^[0-9a-f]{2}\/[0-9a-f]{2}$/);
      }),
    );
  });
});

describe('slot book', () => {
  it('never two holders: against a plain model, for any order of takes, claims and releases', () => {
    const step = fc.oneof(
      fc.constant({ act: 'take' as const, pick: 0 }),
      fc.record({ act: fc.constantFrom('release' as const, 'steal' as const, 'claim' as const), pick: fc.nat(40) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.array(step, { maxLength: 60 }), (capacity, steps) => {
        const book = new SlotBook(capacity);
        const holders = new Map<number, number>();
        for (const [order, { act, pick }] of steps.entries()) {
          const generation = order + 1;
          const index = pick % capacity;
          const holder = holders.get(index);
          switch (act) {
            case 'take': {
              const slot = book.take(generation);
              assert.equal(slot === undefined, holders.size === capacity, 'refused only when all are taken');
              if (slot === undefined) break;
              assert.ok(!holders.has(slotIndex(slot)), 'the slot was free');
              assert.ok(slotIndex(slot) < capacity);
              holders.set(slotIndex(slot), generation);
              break;
            }
            case 'claim':
              assert.equal(book.claim(slotAt(index), generation), holder === undefined);
              if (holder === undefined) holders.set(index, generation);
              break;
            case 'release':
              book.release(slotAt(index), holder ?? generation);
              holders.delete(index);
              break;
            case 'steal':
              book.release(slotAt(index), generation);
              break;
          }
          assert.equal(book.inUse, holders.size);
        }
      }),
    );
  });

  it('release by another generation has no effect', () => {
    const book = new SlotBook(1);
    const slot = taken(book, 7);
    book.release(slot, 6);
    book.release(slot, 8);
    assert.equal(book.take(8), undefined);
    book.release(slot, 7);
    assert.deepEqual(book.take(8), slot);
  });

  it('a claim may be repeated by its own generation only', () => {
    const book = new SlotBook(2);
    assert.equal(book.claim(slotAt(1), 5), true);
    assert.equal(book.claim(slotAt(1), 5), true);
    assert.equal(book.claim(slotAt(1), 6), false);
    assert.equal(book.inUse, 1);
    assert.deepEqual(book.take(9), slotAt(0));
    assert.equal(book.take(10), undefined);
  });

  it('round robin: a slot that was just freed is taken again last', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 40 }), fc.nat(100), (capacity, warmUp) => {
        const book = new SlotBook(capacity);
        for (let turn = 0; turn < warmUp; turn += 1) book.release(taken(book, turn), turn);
        const first = taken(book, 1000);
        book.release(first, 1000);
        for (let turn = 1; turn < capacity; turn += 1) assert.notDeepEqual(taken(book, 1000 + turn), first);
        assert.deepEqual(taken(book, 5000), first);
      }),
    );
  });

  it('a slot is settled by two that go one after the other, the first asked for after it was free', () => {
    const book = new SlotBook(2);
    const [one, two] = [taken(book, 1), taken(book, 2)];
    assert.ok(book.isSettled(one) && book.isSettled(two), 'nothing was ever there');
    const before = book.asking();
    book.release(one, 1);
    assert.ok(!book.isSettled(one));
    book.passed(before);
    book.passed(before);
    assert.ok(!book.isSettled(one), 'that was asked for before');
    const [first, meanwhile] = [book.asking(), book.asking()];
    book.release(two, 2);
    book.passed(first);
    book.passed(meanwhile);
    assert.ok(!book.isSettled(one), 'the second was asked for before the first had gone');
    book.passed(book.asking());
    assert.ok(book.isSettled(one) && !book.isSettled(two));
    assert.deepEqual(book.preview(2), [one, two]);
    book.passed(first);
    assert.deepEqual(taken(book, 3), one, 'the settled one first; what is known stays known');
    book.passed(book.asking());
    assert.ok(book.isSettled(two));
    book.distrust();
    assert.ok(!book.isSettled(one) && !book.isSettled(two), 'held or free, an earlier daemon may have asked for it');
  });

  it('takes settled slots first, then those that were freed first, and preview says the same', () => {
    const act = fc.constantFrom('take' as const, 'release' as const, 'pass' as const);
    const step = fc.record({ act, pick: fc.nat(40) });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.array(step, { maxLength: 60 }), (capacity, steps) => {
        const book = new SlotBook(capacity);
        const held = new Map<number, number>();
        /** Indexes of slots in the order in which they were freed, and how many of them two passes have settled. */
        const freed: number[] = [];
        const passes = [0, 0];
        const lastFreed = (index: number): number => freed.lastIndexOf(index);
        for (const [generation, { act, pick }] of steps.entries()) {
          const [index, holder] = [...held][pick % Math.max(1, held.size)] ?? [];
          if (act === 'pass') {
            book.passed(book.asking());
            passes.unshift(freed.length);
          } else if (act === 'release' && index !== undefined && holder !== undefined) {
            book.release(slotAt(index), holder);
            held.delete(index);
            freed.push(index);
          } else if (act === 'take' && held.size < capacity) {
            const [next] = book.preview(1);
            const slot = taken(book, generation);
            assert.deepEqual(slot, next);
            const settled = lastFreed(slotIndex(slot)) < (passes[1] ?? 0);
            assert.equal(book.isSettled(slot), settled);
            const others = Array.from({ length: capacity }, (_, other) => other).filter((other) => !held.has(other));
            if (!settled) for (const other of others) assert.ok(lastFreed(other) >= lastFreed(slotIndex(slot)));
            held.set(slotIndex(slot), generation);
          }
        }
      }),
    );
  });
});
