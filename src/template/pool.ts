import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { sleep } from '../base/deadline.ts';
import type { HostBudget } from '../base/budget.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { BoundedMutex } from '../base/mutex.ts';
import type { Config } from '../config.ts';
import type { Cells } from '../confine/cells.ts';
import { agentFor, type GuestAgent } from '../guest/agent.ts';
import type { TemplateLease } from './store.ts';
import { startCloneVm, type CloneVm } from './clone.ts';
import { sandboxFiles, sandboxesDirectory, type SandboxFiles } from '../qemu/files.ts';
import { hostnameOf } from '../sandbox/spec.ts';
import { Stopwatch } from '../base/stopwatch.ts';
import type { HoldImages, TemplateLaunch } from './vm.ts';
import type { Templates } from './templates.ts';

/** No other sandbox's directory is named like this: hashes hold no "+", as ids did not, which were names once. */
export const POOL_DIRECTORY_PREFIX = 'pool+';

/** Where a member that became a sandbox has its id: the journal may be lost, and QEMU's command line does not tell. */
export const SANDBOX_ID_FILE = 'sandbox-id';

/** A clone that waits for a sandbox: a whole machine, which only has to be told who it is. */
export interface PoolMember {
  readonly vm: CloneVm;
  readonly agent: GuestAgent;
  readonly files: SandboxFiles;
  readonly lease: TemplateLease;
  /** Keeps what it boots from being changed, until it becomes a sandbox, which has a hold of its own, or ends. */
  readonly images: Disposable;
  /** QEMU was started with it, so it stays. */
  readonly uuid: string;
}

/** The members for one kind of sandbox. */
interface Shelf {
  readonly launch: TemplateLaunch;
  readonly members: Set<PoolMember>;
  /** Counts up with every use. */
  usedAt: number;
}

/** A sandbox that was just made keeps the CPUs for itself for so long. */
const REFILL_PAUSE_MS = 200;

/**
 * The warm pool: clones that were started ahead of time, `pool_size` of them for each kind of sandbox that was asked
 * for lately, `pool_max` in all.
 *
 * INVARIANTS: one member is made at a time. A member belongs to the pool until `take` hands it out, and whoever has it
 * ends it. A member's directory has no journal until it has become a sandbox: a daemon that comes back ends what has
 * none.
 */
export class WarmPool implements AsyncDisposable {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #templates: Pick<Templates, 'find' | 'assertMemory'>;
  readonly #budgets: HostBudget;
  readonly #cells: Cells;
  readonly #holdImages: HoldImages;
  readonly #startVm: typeof startCloneVm;
  readonly #shelves = new Map<string, Shelf>();
  readonly #making = new BoundedMutex('the making of pool members', 1);
  readonly #refills = new Map<string, Promise<void>>();
  readonly #ends = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #uses = 0;

  /** @param startVm starts a member's VM; tests have none */
  constructor(
    config: Config,
    log: Logger,
    templates: Pick<Templates, 'find' | 'assertMemory'>,
    budgets: HostBudget,
    cells: Cells,
    holdImages: HoldImages,
    startVm: typeof startCloneVm = startCloneVm,
  ) {
    this.#holdImages = holdImages;
    this.#startVm = startVm;
    this.#config = config;
    this.#log = log;
    this.#templates = templates;
    this.#budgets = budgets;
    this.#cells = cells;
  }

  /** A member for a sandbox of this kind, now the caller's; undefined when there is none. */
  take(kind: string): PoolMember | undefined {
    const shelf = this.#shelves.get(kind);
    if (shelf === undefined) return undefined;
    for (const member of shelf.members) {
      shelf.members.delete(member);
      if (member.vm.qemu.exit === undefined && member.vm.qmp.state === 'ready') return member;
      void this.#end(member, member.agent);
    }
    return undefined;
  }

  /** Has members made for further sandboxes of this kind, in the background. Does nothing where the pool is off. */
  refill(kind: string, launch: TemplateLaunch): void {
    if (this.#config.pool_size === 0 || this.#closing.signal.aborted) return;
    const shelf = this.#shelves.get(kind) ?? { launch, members: new Set(), usedAt: 0 };
    this.#uses += 1;
    shelf.usedAt = this.#uses;
    this.#shelves.set(kind, shelf);
    if (this.#refills.has(kind)) return;
    const work = this.#fill(shelf)
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#log.warn({ problem: messageOf(error) }, 'pool not filled');
      })
      .finally(() => this.#refills.delete(kind));
    this.#refills.set(kind, work);
  }

  /**
   * Ends a member that was taken and will not do, and removes its directory. Never rejects. The client of its agent is
   * the sandbox's by now, and stays.
   */
  endTaken(member: PoolMember): Promise<void> {
    return this.#end(member, undefined);
  }

  /** Ends the members of a template that is out of date. */
  forget(templateId: string): void {
    for (const { members } of this.#shelves.values()) {
      for (const member of [...members].filter(({ lease }) => lease.key === templateId)) {
        members.delete(member);
        void this.#end(member, member.agent);
      }
    }
  }

  /** Ends every member. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.#refills.values());
    for (const { members } of this.#shelves.values())
      for (const member of members) void this.#end(member, member.agent);
    await Promise.all(this.#ends);
  }

  #end(member: PoolMember, agent: GuestAgent | undefined): Promise<void> {
    const work = endMember(member, agent)
      .catch((error: unknown) => this.#log.warn({ problem: messageOf(error) }, 'pool member not ended'))
      .finally(() => this.#ends.delete(work));
    this.#ends.add(work);
    return work;
  }

  async #fill(shelf: Shelf): Promise<void> {
    const { pool_size: size, pool_max: max } = this.#config;
    const { signal } = this.#closing;
    while (shelf.members.size < Math.min(size, max)) {
      await sleep(REFILL_PAUSE_MS, signal);
      using _turn = await this.#making.acquire();
      if (!this.#makeRoom(shelf)) return;
      const member = await this.#make(shelf.launch);
      if (member === undefined) return;
      shelf.members.add(member);
      void member.vm.qemu.exited.then(() => {
        if (shelf.members.delete(member)) void this.#end(member, member.agent);
      });
    }
  }

  /** Room for one more: at the cost of the shelf that was not used for longest. */
  #makeRoom(shelf: Shelf): boolean {
    const shelves = [...this.#shelves.values()];
    const total = shelves.reduce((sum, { members }) => sum + members.size, 0);
    if (total < this.#config.pool_max) return true;
    const [oldest] = shelves
      .filter((other) => other.members.size > 0 && other.usedAt < shelf.usedAt)
      .sort((one, other) => one.usedAt - other.usedAt);
    const [victim] = oldest?.members ?? [];
    if (oldest === undefined || victim === undefined) return false;
    oldest.members.delete(victim);
    void this.#end(victim, victim.agent);
    return true;
  }

  async #make(launch: TemplateLaunch): Promise<PoolMember | undefined> {
    const { signal } = this.#closing;
    const log = this.#log;
    const config = this.#config;
    await this.#templates.assertMemory(launch.memoryMib);
    const { lease } = await this.#templates.find(launch, 'auto', signal);
    if (lease === undefined) return undefined;
    await using undo = new AsyncDisposableStack();
    undo.use(lease);
    // Short: sockets lie below it, and their paths may have 107 bytes.
    const name = `${POOL_DIRECTORY_PREFIX}${randomBytes(4).toString('hex')}`;
    const images = undo.use(await this.#holdImages(launch, `pool member ${name}, which boots it`));
    const files = sandboxFiles(join(sandboxesDirectory(config.state_dir), name));
    await mkdir(files.directory, { mode: 0o700 });
    undo.defer(() => rm(files.directory, { recursive: true, force: true }));
    const agent = undo.use(agentFor(files.agentSocket, config, log, this.#budgets.guest()));
    const identity = { sandboxId: name, uuid: randomUUID(), hostname: hostnameOf('pool', launch.kernelParameters) };
    const options = {
      config,
      cells: this.#cells,
      log,
      launch,
      lease,
      identity,
      files,
      agent,
      watch: new Stopwatch(),
      signal,
    };
    const vm = await this.#startVm(options);
    undo.move();
    log.info({ pid: vm.qemu.pid, templateId: lease.key }, 'pool member ready');
    return { vm, agent, files, lease, images, uuid: identity.uuid };
  }
}

/** Ends a clone that no sandbox has, and removes its directory. */
async function endMember({ vm, files, lease, images }: PoolMember, agent: GuestAgent | undefined): Promise<void> {
  await vm.qemu.kill('SIGKILL');
  await vm.qemu.exited;
  vm.cell[Symbol.dispose]();
  lease[Symbol.dispose]();
  images[Symbol.dispose]();
  await Promise.all([vm.port, vm.qmp].map((one) => one[Symbol.asyncDispose]()));
  await agent?.[Symbol.asyncDispose]();
  await rm(files.directory, { recursive: true, force: true });
}
