import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KeySlots__Output } from '../../src/grpc/generated/qshim/v1/KeySlots.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { markSlot, writeLuks1 } from '../support/fake-luks1.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';
import { serveAmend, type Amend } from '../support/fake-amend.ts';

/** Changes of the keys of an attached volume, by a QEMU that does half of it, or takes its time. */

const MIB = 1024 * 1024;
const TARGET = { attached: { sandboxId: 'one', volumeId: 'a' } };

class Rig implements AsyncDisposable {
  readonly rig: FakeVmRig;
  readonly vm: FakeVm;
  readonly path: string;

  private constructor(rig: FakeVmRig, vm: FakeVm, path: string) {
    this.rig = rig;
    this.vm = vm;
    this.path = path;
  }

  /** With a volume whose image has one key, and with a QEMU that changes its keys as `amend` does. */
  static async start(amend: (path: string) => Amend): Promise<Rig> {
    await using stack = new AsyncDisposableStack();
    const rig = stack.use(await FakeVmRig.start());
    const vm = await rig.sandbox();
    const path = await rig.daemon.rawFile('a', 8 * MIB);
    await writeLuks1(path);
    for (const name of ['first', 'second', 'third']) await rig.daemon.keyFile(name, `the ${name} key`);
    await rig.daemon.keyFile('same', 'the first key');
    serveAmend(vm.qmp, amend(path));
    const key = { file: `${rig.daemon.keyDir}/first` };
    const spec = { rawFile: { path }, encryption: { hostLuks: { key } } };
    await rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
    stack.move();
    return new Rig(rig, vm, path);
  }

  add(fresh: string): Promise<KeySlots__Output> {
    const request = { target: TARGET, key: this.#key('first'), newKey: this.#key(fresh) };
    return call((done) => this.rig.client.volumes.addKey(request, done));
  }

  change(fresh: string): Promise<KeySlots__Output> {
    const request = { target: TARGET, key: this.#key('first'), newKey: this.#key(fresh) };
    return call((done) => this.rig.client.volumes.changeKey(request, done));
  }

  /** What Get tells. */
  async told(): Promise<number | undefined> {
    return (await this.rig.volume('a')).encryption?.keySlots;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig[Symbol.asyncDispose]();
  }

  #key(name: string): { readonly file: string } {
    return { file: `${this.rig.daemon.keyDir}/${name}` };
  }
}

/** A QEMU that is at a change until it is let go on, and then has added a key. */
function heldAmend(): {
  readonly amend: (path: string) => Amend;
  readonly came: Promise<void>;
  readonly released: () => void;
} {
  const came = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  const amend = (path: string): Amend => {
    return async () => {
      came.resolve();
      await released.promise;
      await markSlot(path, 1, true);
      return undefined;
    };
  };
  return { amend, came: came.promise, released: () => released.resolve() };
}

describe('changes of keys', { timeout: 120_000 }, () => {
  it('a second one of the same kind is refused while the first is under way, and both are answered', async () => {
    const { amend, came, released } = heldAmend();
    await using one = await Rig.start(amend);
    const first = one.add('second');
    await came;
    const second = refusal(one.add('third'));
    // Calls are begun in their order: the second has fetched its keys or has not, and is answered all the same.
    await one.rig.volume('a');
    const { code, reason, metadata } = await second;
    assert.deepEqual(
      [code, reason, metadata['operation']],
      ['FAILED_PRECONDITION', 'OPERATION_IN_PROGRESS', 'change-keys'],
    );
    released();
    assert.deepEqual((await first).used.slice(0, 3), [true, true, false]);
    assert.equal(one.vm.qmp.receivedOf('x-blockdev-amend').length, 1);
    assert.equal(await one.told(), 2);
  });

  it('one that fails half-way says which slots are in use now, and so does Get', async () => {
    await using one = await Rig.start((path) => async ({ state }) => {
      // As QEMU says it when all slots would go.
      if (state === 'inactive') return 'All the active keyslots match the old password, erase refused';
      await markSlot(path, 1, true);
      return undefined;
    });
    const seen = await refusal(one.change('second'));
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'KEY_SLOT_FAILED']);
    assert.match(seen.message, /key slots 0 were in use, and 0, 1 are now/);
    assert.equal(await one.told(), 2);
  });

  it('one that fails before it has changed anything keeps its own reason', async () => {
    await using one = await Rig.start(() => () => Promise.resolve('No keyslots match given (old) password'));
    assert.equal((await refusal(one.change('second'))).reason, 'LUKS_WRONG_KEY');
    assert.equal(await one.told(), 1);
  });

  it('a key is not changed into itself, however it is named', async () => {
    await using one = await Rig.start((path) => async () => {
      await markSlot(path, 1, true);
      return undefined;
    });
    for (const name of ['first', 'same']) {
      const seen = await refusal(one.change(name));
      assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'SAME_KEY']);
    }
    assert.equal(one.vm.qmp.receivedOf('x-blockdev-amend').length, 0);
    assert.equal(await one.told(), 1);
  });

  it('one whose answer was lost with the connection is looked at again: Get tells what is in the header', async () => {
    const { amend, came, released } = heldAmend();
    await using one = await Rig.start(amend);
    const lost = refusal(one.add('second'));
    await came;
    one.vm.qmp.drop();
    assert.equal((await lost).reason, 'QMP_LOST');
    assert.equal((await refusal(one.add('third'))).reason, 'OPERATION_IN_PROGRESS', 'QEMU may be at it still');
    released();
    await until('what came of it is told', async () => ((await one.told()) === 2 ? true : undefined));
  });
});
