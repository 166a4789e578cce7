import { randomBytes } from 'node:crypto';
import { lstat, mkdir, readdir, realpath, rename, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { monotonicMs } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { identify } from '../qemu/process.ts';
import { NewMemory, endMemory, openMemory } from './memory.ts';
import {
  readAnyRecord,
  readRecord,
  recordProblem,
  stateBytes,
  stateFileIn,
  writeRecord,
  type TemplateNotes,
  type TemplateRecord,
} from './record.ts';

export interface TemplateStoreOptions {
  /** Made when it is missing. One directory may serve several daemons of one user. */
  readonly directory: string;
  /** What all templates together may take. Those in use stay even beyond it. */
  readonly bytesMax: number;
  readonly log: Logger;
  /** How long after a failure the same template is not tried again. Default 60 s. */
  readonly retryAfterMs?: number;
  /** Ends what a maker that died has left running in its directory; called before that is removed. */
  readonly abandoned?: (directory: string) => Promise<void>;
}

/** A template that stays while this is held. Dispose it when the clone has ended: until then its pages are in use. */
export interface TemplateLease extends Disposable {
  readonly key: string;
  readonly stateFile: string;
  readonly notes: TemplateNotes;
  /**
   * Opens its memory for a clone's QEMU, which inherits it: sealed, and seen to be so.
   * @throws ShimError FAILED_PRECONDITION / TEMPLATE_UNAVAILABLE; the system error
   */
  openMemory(): Promise<FileHandle>;
}

export interface TemplateBuild {
  readonly key: string;
  /** The key of the inputs as they are now: what changes while the template is made must not be in it. */
  readonly keyNow: () => Promise<string>;
  /** Size of the guest's memory. */
  readonly memoryBytes: number;
  /** Makes the state file, and writes the memory. Whatever it starts has ended when it settles. */
  readonly make: (into: TemplateTarget) => Promise<TemplateNotes>;
}

export interface TemplateTarget {
  /** For sockets and the like; removed with all that is in it when the making fails. */
  readonly directory: string;
  /** A descriptor of this process's, for QEMU to inherit; nobody writes to it any more once the making has settled. */
  readonly memory: number;
  readonly stateFile: string;
  /** Aborted when the store is closed. */
  readonly signal: AbortSignal;
}

interface Entry {
  readonly record: TemplateRecord;
  leases: number;
  /** Counts up with every use. */
  usedAt: number;
}

const KEY = /^[0-9a-f]{64}$/;
const UNFINISHED = /^(?:building|removing)-(\d+)-(\d+)-/;
const FAILURES_MAX = 64;
const ELSEWHERE = 'the option templates_dir names another';

/**
 * The templates of this host, each in a directory named by its key.
 *
 * INVARIANTS: a directory named by a key is complete: it came there by one rename. Whatever is unfinished carries its
 * maker's pid and start time in its name, so that the next store to be opened knows what nobody will finish. A template
 * is handed out only right after its state was seen to be what was published, and its memory to be sealed. The process
 * that holds the memory ends with the template's directory, whoever removes that.
 */
export class TemplateStore implements AsyncDisposable {
  readonly #directory: string;
  readonly #options: TemplateStoreOptions;
  readonly #owner: string;
  readonly #entries = new Map<string, Entry>();
  readonly #builds = new Map<string, Promise<void>>();
  readonly #removals = new Map<string, Promise<void>>();
  readonly #failures = new Map<string, { readonly error: Error; readonly atMs: number }>();
  readonly #trims = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #uses = 0;

  private constructor(directory: string, owner: string, options: TemplateStoreOptions) {
    this.#directory = directory;
    this.#owner = owner;
    this.#options = options;
  }

  /**
   * Opens the directory: keeps the templates that are whole, removes those that are not and what makers that died left.
   * Files with other names are left alone.
   * @throws ShimError FAILED_PRECONDITION / TEMPLATE_DIR_UNSAFE when others could write there; system errors
   */
  static async open(options: TemplateStoreOptions): Promise<TemplateStore> {
    await makeDirectory(options.directory);
    const self = await identify(process.pid);
    const owner = `${process.pid}-${self?.startTicks ?? 0}`;
    const store = new TemplateStore(await realpath(options.directory), owner, options);
    await store.#readAll();
    return store;
  }

  /** Bytes that all templates take. */
  get bytes(): number {
    return [...this.#entries.values()].reduce((sum, { record }) => sum + record.bytes, 0);
  }

  /** What is there, least recently used first. */
  list(): readonly { readonly key: string; readonly bytes: number; readonly leases: number }[] {
    const entries = [...this.#entries.values()].sort((one, other) => one.usedAt - other.usedAt);
    return entries.map(({ record, leases }) => ({ key: record.key, bytes: record.bytes, leases }));
  }

  /**
   * The template of this key, or undefined when there is none, or when it is not as it was published.
   * @throws the system error when it could not be looked at: it stays
   */
  async lookup(key: string): Promise<TemplateLease | undefined> {
    await this.#removals.get(key);
    const entry = this.#entries.get(key) ?? (await this.#read(key));
    if (entry === undefined) return undefined;
    // Counted before it is checked, so that it is not evicted in between.
    const lease = this.#lease(entry);
    const problem = await recordProblem(entry.record).catch((error: unknown) => {
      lease[Symbol.dispose]();
      throw error;
    });
    if (problem === undefined) return lease;
    lease[Symbol.dispose]();
    this.#options.log.warn({ key, problem }, 'template dropped');
    await this.#remove(key);
    return undefined;
  }

  /**
   * Makes the template unless it is there, and the store's directory when somebody has removed that meanwhile. Callers
   * that ask for one that is being made wait for that.
   * @throws what `open` throws of the directory; ShimError RESOURCE_EXHAUSTED / TEMPLATE_TOO_LARGE; ABORTED /
   *   TEMPLATE_INPUTS_CHANGED; FAILED_PRECONDITION / TEMPLATE_UNAVAILABLE: its memory cannot be sealed; what `make`
   *   throws; and for retryAfterMs after a failure, the same again
   */
  async build(build: TemplateBuild): Promise<void> {
    const { key } = build;
    const running = this.#builds.get(key);
    if (running !== undefined) return running;
    const failure = this.failure(key);
    if (failure !== undefined) throw failure;
    const work = this.#build(build)
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#fail(key, error);
        throw error;
      })
      .finally(() => this.#builds.delete(key));
    this.#builds.set(key, work);
    return work;
  }

  /** Evicts what is too much. Opening does not: who was using them is known only later. */
  async trim(): Promise<void> {
    while (this.bytes > this.#options.bytesMax && (await this.#evictOne()));
  }

  /** True while the template of this key is being made. */
  building(key: string): boolean {
    return this.#builds.has(key);
  }

  /** Why the template of this key is not tried again for now; undefined when it may be. */
  failure(key: string): Error | undefined {
    const failure = this.#failures.get(key);
    const recent = failure !== undefined && monotonicMs() - failure.atMs < (this.#options.retryAfterMs ?? 60_000);
    return recent ? failure.error : undefined;
  }

  /** Removes a template from which a clone could not be started. It is not made again for a while. */
  async discard(key: string, cause: unknown): Promise<void> {
    this.#fail(key, cause);
    await this.#remove(key);
  }

  /** Ends what is being made. Finished templates stay for the next store. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(
      new ShimError('UNAVAILABLE', 'the template store is closed', { reason: 'TEMPLATE_STORE_CLOSED' }),
    );
    await Promise.allSettled([...this.#builds.values(), ...this.#trims, ...this.#removals.values()]);
  }

  async #build({ key, keyNow, memoryBytes, make }: TemplateBuild): Promise<void> {
    const { signal } = this.#closing;
    signal.throwIfAborted();
    using present = await this.lookup(key);
    if (present !== undefined) return;
    const anew = await makeDirectory(this.#directory);
    // Somebody has cleared it away, with all that was in it.
    if (anew) await Promise.all([...this.#entries.keys()].map((other) => this.#remove(other)));
    const directory = this.#unfinished('building');
    await using undo = new AsyncDisposableStack();
    undo.defer(() => rm(directory, { recursive: true, force: true }));
    await mkdir(directory, { mode: 0o700 });
    signal.throwIfAborted();
    const memory = undo.use(NewMemory.create(key, memoryBytes));
    const stateFile = stateFileIn(directory);
    const notes = await make({ directory, memory: memory.descriptor, stateFile, signal });
    await memory.seal();
    if ((await keyNow()) !== key) {
      throw new ShimError('ABORTED', 'what the template was made of has changed meanwhile', {
        reason: 'TEMPLATE_INPUTS_CHANGED',
      });
    }
    await this.#publish(directory, key, memory, notes);
  }

  async #publish(directory: string, key: string, memory: NewMemory, notes: TemplateNotes): Promise<void> {
    const { bytesMax, log } = this.#options;
    const bytes = memory.bytes + (await stateBytes(directory));
    if (bytes > bytesMax) {
      throw new ShimError(
        'RESOURCE_EXHAUSTED',
        `the template takes ${bytes} bytes, all templates may take ${bytesMax}`,
        { reason: 'TEMPLATE_TOO_LARGE', metadata: { bytes: String(bytes), max: String(bytesMax) } },
      );
    }
    const final = join(this.#directory, key);
    // Another one for every template: a holder must not take the place of its own for that of a later one.
    const mark = join(final, `held-${randomBytes(4).toString('hex')}`);
    await writeFile(join(directory, basename(mark)), '', { mode: 0o600 });
    const held = await memory.hold(mark);
    await using unpublished = new AsyncDisposableStack();
    unpublished.defer(() => endMemory(held));
    const record = await writeRecord(directory, final, { key, memory: held, bytes, notes });
    try {
      await rename(directory, final);
      unpublished.move();
      this.#add(record);
      log.info({ key, bytes, holder: held.pid }, 'template made');
    } catch (error) {
      // Another daemon was quicker: its template is as good.
      if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw error;
    }
    while (this.bytes > bytesMax && (await this.#evictOne(key)));
  }

  /** Removes the least recently used template that nobody uses; false when there is none. */
  async #evictOne(except?: string): Promise<boolean> {
    const victim = this.list().find(({ key, leases }) => leases === 0 && key !== except);
    if (victim === undefined) return false;
    this.#options.log.info({ key: victim.key, bytes: victim.bytes }, 'template evicted');
    await this.#remove(victim.key);
    return true;
  }

  async #remove(key: string): Promise<void> {
    const record = this.#entries.get(key)?.record;
    this.#entries.delete(key);
    const running = this.#removals.get(key);
    if (running !== undefined) return running;
    const removal = this.#takeAway(key, record).finally(() => this.#removals.delete(key));
    this.#removals.set(key, removal);
    return removal;
  }

  /** @param known what is gone from the directory already may still be held */
  async #takeAway(name: string, known?: TemplateRecord): Promise<void> {
    const aside = this.#unfinished('removing');
    try {
      if (known !== undefined) await endMemory(known.memory);
      await rename(join(this.#directory, name), aside);
      // Those of an unfinished one, and of other formats, end by themselves.
      const record = await readAnyRecord(aside).catch(() => undefined);
      if (record !== undefined) await endMemory(record.memory);
      await rm(aside, { recursive: true, force: true });
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') {
        this.#options.log.warn({ name, problem: messageOf(error) }, 'template not removed');
      }
    }
  }

  async #readAll(): Promise<void> {
    const found: Entry[] = [];
    for (const name of await readdir(this.#directory)) {
      const [, pid, startTicks] = UNFINISHED.exec(name) ?? [];
      if (pid !== undefined) {
        const maker = await identify(Number(pid));
        if (String(maker?.startTicks) === startTicks) continue;
        await this.#options.abandoned?.(join(this.#directory, name));
        await this.#takeAway(name);
      } else if (KEY.test(name)) {
        const entry = await this.#read(name);
        const problem = entry === undefined ? 'it has no record' : await recordProblem(entry.record);
        if (entry !== undefined && problem === undefined) found.push(entry);
        else await this.#remove(name);
      } else {
        this.#options.log.warn({ name }, 'file that is no template left alone');
      }
    }
    found.sort((one, other) => one.record.createdAtMs - other.record.createdAtMs);
    for (const entry of found) this.#touch(entry);
  }

  async #read(key: string): Promise<Entry | undefined> {
    try {
      const record = await readRecord(join(this.#directory, key), key);
      // Another reader may have been quicker: its leases count.
      return this.#entries.get(key) ?? this.#add(record);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') {
        this.#options.log.warn({ key, problem: messageOf(error) }, 'template record not readable');
      }
      return undefined;
    }
  }

  #add(record: TemplateRecord): Entry {
    const entry = { record, leases: 0, usedAt: 0 };
    this.#entries.set(record.key, entry);
    this.#touch(entry);
    return entry;
  }

  #touch(entry: Entry): void {
    this.#uses += 1;
    entry.usedAt = this.#uses;
  }

  #lease(entry: Entry): TemplateLease {
    const { key, memory, state, notes } = entry.record;
    this.#touch(entry);
    entry.leases += 1;
    let held = true;
    return {
      key,
      stateFile: state.path,
      notes,
      openMemory: () => openMemory(memory),
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        entry.leases -= 1;
        if (entry.leases === 0 && this.bytes > this.#options.bytesMax) this.#trimSoon();
      },
    };
  }

  #trimSoon(): void {
    const work = this.trim()
      .catch((error: unknown) => this.#options.log.warn({ problem: messageOf(error) }, 'templates not trimmed'))
      .finally(() => this.#trims.delete(work));
    this.#trims.add(work);
  }

  #fail(key: string, error: unknown): void {
    this.#failures.delete(key);
    const kept = error instanceof Error ? error : new Error(messageOf(error), { cause: error });
    this.#failures.set(key, { error: kept, atMs: monotonicMs() });
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > FAILURES_MAX && oldest !== undefined) this.#failures.delete(oldest);
  }

  #unfinished(what: 'building' | 'removing'): string {
    // Short: sockets lie below it, and their paths may have 107 bytes.
    return join(this.#directory, `${what}-${this.#owner}-${randomBytes(4).toString('hex')}`);
  }
}

/**
 * Makes a store's directory when it is missing, and sees that it will do.
 * @returns true when it was missing
 * @throws as TemplateStore.open
 */
async function makeDirectory(directory: string): Promise<boolean> {
  const made = await mkdir(directory, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw new ShimError('FAILED_PRECONDITION', `${messageOf(cause)}; ${ELSEWHERE}`, {
      reason: 'TEMPLATE_DIR_UNSAFE',
      metadata: { path: directory },
      cause,
    });
  });
  const stats = await lstat(directory);
  if (!stats.isDirectory() || stats.uid !== process.getuid?.() || (stats.mode & 0o077) !== 0) {
    throw new ShimError(
      'FAILED_PRECONDITION',
      `${directory} must be a directory that belongs to this user and nobody else may enter; ${ELSEWHERE}`,
      { reason: 'TEMPLATE_DIR_UNSAFE', metadata: { path: directory } },
    );
  }
  return made !== undefined;
}
