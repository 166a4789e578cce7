import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Deadline } from '../../src/base/deadline.ts';
import { silentLogger } from '../../src/base/log.ts';
import { Fence, type FenceHost } from '../../src/volume/fence.ts';
import { FENCE_SEATS, SlotBook, type Slot } from '../../src/volume/model/slots.ts';
import { QmpError } from '../../src/qmp/errors.ts';
import { Unplugs } from '../../src/volume/unplugs.ts';
import { until } from '../support/until.ts';

/** A guest that lets go of everything at once, and the seats in which devices were plugged. */
interface Rig extends AsyncDisposable {
  readonly fence: Fence;
  readonly slots: SlotBook;
  readonly freed: Slot;
  readonly seats: readonly string[];
  readonly path: string;
  /** What QEMU has. */
  readonly devices: ReadonlySet<string>;
}

/** @param looks what QEMU's lists of devices fail with, one after the other; undefined: they are right */
async function rig(looks: (Error | undefined)[] = []): Promise<Rig> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-fence-'));
  const path = join(directory, 'fences.json');
  const devices = new Set(['fence']);
  const seats: string[] = [];
  const qmp = {
    run: (command: string, { id, addr = '' }: { readonly id: string; readonly addr?: string }) => {
      if (command === 'device_add') seats.push(addr);
      if (command === 'device_add') devices.add(id);
      else if (looks.length === 0) devices.delete(id);
      return Promise.resolve({});
    },
    listen: () => ({ next: () => Promise.resolve({ data: {} }), [Symbol.dispose]: () => undefined }),
  };
  const slots = new SlotBook(1);
  const freed = slots.take(1);
  assert.ok(freed !== undefined);
  slots.release(freed, 1);
  const gone = new AbortController().signal;
  const host = {
    ...{ id: 'vm', log: silentLogger(), gone, files: { fences: path }, volumes: slots },
    link: { ready: () => Promise.resolve(qmp) },
    config: { unplug_retry_ms: 1, unplug_retry_max_ms: 1 },
    inventory: {
      names: () => {
        const failure = looks.shift();
        return failure === undefined ? Promise.resolve(new Set(devices)) : Promise.reject(failure);
      },
    },
    unplugs: new Unplugs({ config: { unplug_retry_ms: 60_000, unplug_retry_max_ms: 60_000 }, gone }),
    inBackground: (_purpose: string, work: Promise<void>) => void work.catch(() => undefined),
  } as unknown as FenceHost;
  const fence = new Fence(host);
  return { fence, slots, freed, seats, path, devices, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

const soon = (): Deadline => Deadline.after(60_000);

describe('seats of fences', () => {
  it('are used in turn, and a slot that is settled needs none', async () => {
    await using vm = await rig();
    assert.equal(await vm.fence.untilSettled(vm.freed, soon()), true);
    assert.deepEqual(vm.seats, ['0x1', '0x2']);
    assert.equal(await vm.fence.untilSettled(vm.freed, soon()), false);
    assert.deepEqual(vm.seats, ['0x1', '0x2']);
  });

  it('go round for as long as fences pass', async () => {
    await using vm = await rig();
    for (let generation = 2; generation < FENCE_SEATS + 2; generation += 1) {
      await vm.fence.untilSettled(vm.freed, soon());
      vm.slots.take(generation);
      vm.slots.release(vm.freed, generation);
    }
    assert.equal(vm.seats.length, 2 * FENCE_SEATS);
    assert.deepEqual(vm.seats.slice(0, FENCE_SEATS), vm.seats.slice(FENCE_SEATS));
    assert.equal(new Set(vm.seats).size, FENCE_SEATS);
  });

  it('are not used while the guest may still have a request for them: daemons were killed in all fences since', async () => {
    await using vm = await rig();
    await writeFile(vm.path, JSON.stringify({ begun: 39, passed: 9, settled: 7 }));
    const refusal = { code: 'DEADLINE_EXCEEDED', reason: 'SLOT_NOT_SETTLED' };
    await assert.rejects(vm.fence.untilSettled(vm.freed, soon()), refusal);
    assert.deepEqual(vm.seats, []);
  });

  it('are used up to the last, and what has passed then is on disk', async () => {
    await using vm = await rig();
    await writeFile(vm.path, JSON.stringify({ begun: 38, passed: 9, settled: 7 }));
    await vm.fence.untilSettled(vm.freed, soon());
    assert.deepEqual(vm.seats, ['0x7', '0x8']);
    vm.slots.distrust();
    await vm.fence.untilSettled(vm.freed, soon());
    assert.deepEqual(JSON.parse(await readFile(vm.path, 'utf8')), { begun: 42, passed: 41, settled: 39 });
  });

  it('are not guessed when the file cannot be read', async () => {
    await using vm = await rig();
    await writeFile(vm.path, 'no json');
    await assert.rejects(vm.fence.untilSettled(vm.freed, soon()), SyntaxError);
    assert.deepEqual(vm.seats, []);
  });

  it('leave nothing behind whose going could not be looked at', async () => {
    const failure = new QmpError('qom-list', 'GenericError', 'no list');
    await using vm = await rig([undefined, failure]);
    await assert.rejects(vm.fence.untilSettled(vm.freed, soon()), failure);
    await until('the device has gone', () => !vm.devices.has('fence-1'));
    assert.equal(await vm.fence.untilSettled(vm.freed, soon()), true);
  });
});
