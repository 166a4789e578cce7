import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { HostBudget } from '../../src/base/budget.ts';
import { silentLogger } from '../../src/base/log.ts';
import { configWith, type Config } from '../../src/config.ts';
import { sandboxesDirectory } from '../../src/qemu/files.ts';
import { WarmPool } from '../../src/template/pool.ts';
import type { CloneVm, CloneVmOptions } from '../../src/template/clone.ts';
import { poolKind, type SandboxSpec } from '../../src/sandbox/spec.ts';
import type { FoundTemplate } from '../../src/template/templates.ts';
import { testLaunch } from '../support/template-vm.ts';
import { leftIn } from '../support/daemon.ts';
import { until } from '../support/until.ts';
import type { Cells } from '../../src/confine/cells.ts';
import { cellsFor } from '../support/cells.ts';

/** The warm pool's book-keeping, with VMs that are none. */

const spec: SandboxSpec = {
  vcpus: 1,
  memoryMib: 256,
  kernel: '/k',
  initrd: '/i',
  kernelParameters: '',
  accelerator: 'tcg',
  volumeCapacity: 31,
  iothreads: 0,
  labels: {},
  readyWhen: 'agent',
  template: 'auto',
};
const bigger = { ...spec, memoryMib: 512 };

/** What stands for QEMU: it ends when it is killed, or by itself. */
class FakeVm {
  readonly directory: string;
  readonly #exited = Promise.withResolvers<void>();
  ended = false;

  constructor(directory: string) {
    this.directory = directory;
  }

  end(): void {
    this.ended = true;
    this.#exited.resolve();
  }

  /** Of a clone's VM, only what the pool uses. */
  asVm(): CloneVm {
    const closed = { [Symbol.asyncDispose]: () => Promise.resolve() };
    const exited = this.#exited.promise;
    const qemu = {
      pid: 1,
      exited,
      kill: () => {
        this.end();
        return Promise.resolve();
      },
    };
    Object.defineProperty(qemu, 'exit', { get: () => (this.ended ? { code: 0 } : undefined) });
    const cell = { [Symbol.dispose]: () => undefined };
    return { qemu, qmp: { state: 'ready', ...closed }, cell, port: closed } as unknown as CloneVm;
  }
}

class Rig implements AsyncDisposable {
  readonly stateDir: string;
  readonly pool: WarmPool;
  readonly vms: FakeVm[] = [];
  templateKey: string | undefined = 'one';
  leases = 0;
  starting = 0;
  startingMost = 0;
  failStarts = false;

  private constructor(stateDir: string, cells: Cells, config: Partial<Config>) {
    this.stateDir = stateDir;
    const templates = {
      assertMemory: () => Promise.resolve(),
      find: () => Promise.resolve(this.#find()),
    };
    const all = configWith({ state_dir: stateDir, ...config });
    const holdImages = (): Promise<Disposable> => Promise.resolve(new DisposableStack());
    this.pool = new WarmPool(all, silentLogger(), templates, HostBudget.from(all), cells, holdImages, (options) =>
      this.#start(options),
    );
  }

  static async make(config: Partial<Config>): Promise<Rig> {
    const stateDir = await mkdtemp(join(tmpdir(), 'qshim-t-'));
    await mkdir(sandboxesDirectory(stateDir));
    return new Rig(stateDir, await cellsFor(), config);
  }

  #find(): FoundTemplate {
    if (this.templateKey === undefined) return { lease: undefined, reason: 'none yet' };
    this.leases += 1;
    const lease = { key: this.templateKey, stateFile: '', [Symbol.dispose]: () => (this.leases -= 1) };
    return { lease } as unknown as FoundTemplate;
  }

  async #start({ files }: CloneVmOptions): Promise<CloneVm> {
    this.starting += 1;
    this.startingMost = Math.max(this.startingMost, this.starting);
    await new Promise((resolve) => setTimeout(resolve, 5));
    this.starting -= 1;
    if (this.failStarts) throw new Error('no VM');
    const vm = new FakeVm(files.directory);
    this.vms.push(vm);
    return vm.asVm();
  }

  get alive(): readonly FakeVm[] {
    return this.vms.filter(({ ended }) => !ended);
  }

  refill(which: SandboxSpec): void {
    this.pool.refill(poolKind(which), { ...testLaunch, memoryMib: which.memoryMib });
  }

  /** Waits until so many VMs have been started, and their members are in the pool. */
  async started(count: number): Promise<void> {
    await until(`${count} members`, () => Promise.resolve(this.vms.length === count && this.starting === 0));
    await new Promise((resolve) => setImmediate(resolve));
  }

  async directories(count: number): Promise<void> {
    await until(`${count} directories`, async () => (await leftIn(this.stateDir)).length === count);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool[Symbol.asyncDispose]();
    const left = await leftIn(this.stateDir);
    await rm(this.stateDir, { recursive: true });
    assert.deepEqual([left, this.alive.length], [[], 0], 'the pool leaves nothing');
  }
}

describe('WarmPool', { timeout: 60_000 }, () => {
  it('keeps as many as asked for, made one at a time, and gives each away once', async () => {
    await using rig = await Rig.make({ pool_size: 2, pool_max: 8 });
    assert.equal(rig.pool.take(poolKind(spec)), undefined, 'nothing before somebody asked for such a sandbox');
    rig.refill(spec);
    rig.refill(bigger);
    await rig.started(4);
    assert.equal(rig.startingMost, 1);
    const taken = [
      rig.pool.take(poolKind(spec)),
      rig.pool.take(poolKind({ ...spec, labels: { a: 'b' }, template: 'required' })),
    ];
    assert.equal(new Set(taken.map((member) => member?.files.directory)).size, 2);
    assert.equal(new Set(taken.map((member) => member?.uuid)).size, 2);
    assert.equal(rig.pool.take(poolKind(spec)), undefined);
    assert.equal(rig.pool.take(poolKind({ ...spec, vcpus: 4 })), undefined, 'another kind of machine');
    for (const member of taken) if (member !== undefined) await rig.pool.endTaken(member);
    assert.equal(rig.alive.length, 2);
    assert.equal(rig.leases, 2, 'a template is held as long as its clones run');
  });

  it('is off by default', async () => {
    await using rig = await Rig.make({ pool_size: 0 });
    rig.refill(spec);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(rig.vms.length, 0);
  });

  it('a member that has died is not given away, and leaves nothing', async () => {
    await using rig = await Rig.make({ pool_size: 1, pool_max: 8 });
    rig.refill(spec);
    await rig.started(1);
    rig.vms[0]?.end();
    assert.equal(rig.pool.take(poolKind(spec)), undefined);
    await rig.directories(0);
    assert.equal(rig.leases, 0);
  });

  it('beyond pool_max those that were not used for longest make room', async () => {
    await using rig = await Rig.make({ pool_size: 2, pool_max: 2 });
    rig.refill(spec);
    await rig.started(2);
    rig.refill(bigger);
    await rig.started(4);
    assert.equal(rig.alive.length, 2);
    assert.equal(rig.pool.take(poolKind(spec)), undefined);
    const member = rig.pool.take(poolKind(bigger));
    assert.ok(member !== undefined);
    await rig.pool.endTaken(member);
  });

  it('members of a template that is out of date are ended', async () => {
    await using rig = await Rig.make({ pool_size: 1, pool_max: 8 });
    rig.refill(spec);
    await rig.started(1);
    rig.templateKey = 'two';
    rig.refill(bigger);
    await rig.started(2);
    rig.pool.forget('one');
    await rig.directories(1);
    assert.equal(rig.pool.take(poolKind(spec)), undefined);
    assert.ok(rig.alive.length === 1);
  });

  it('without a template none is made; a start that fails leaves nothing, and the next use tries again', async () => {
    await using rig = await Rig.make({ pool_size: 1, pool_max: 8 });
    rig.templateKey = undefined;
    rig.refill(spec);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(rig.vms.length, 0);
    rig.templateKey = 'one';
    rig.failStarts = true;
    rig.refill(spec);
    await until('a start', () => Promise.resolve(rig.startingMost === 1 && rig.leases === 0));
    await rig.directories(0);
    rig.failStarts = false;
    await until('a member', () => {
      rig.refill(spec);
      return Promise.resolve(rig.vms.length === 1);
    });
  });

  it('a pool that ends while a member is being made ends that one too', async () => {
    const rig = await Rig.make({ pool_size: 1, pool_max: 8 });
    rig.refill(spec);
    await until('a start', () => Promise.resolve(rig.startingMost === 1));
    await rig[Symbol.asyncDispose]();
    rig.refill(spec);
    assert.equal(rig.pool.take(poolKind(spec)), undefined);
  });
});
