import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Coalesced } from '../base/coalesce.ts';
import { waitFor } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { BoundedMutex } from '../base/mutex.ts';
import { run } from '../base/run.ts';
import type { Config } from '../config.ts';
import type { Cells } from '../confine/cells.ts';
import { removeLeftGroup } from '../confine/groups.ts';
import { findProgram, identifyFile } from '../qemu/file-identity.ts';
import { templateKey } from './key.ts';
import { bootOfHost } from './memory.ts';
import { TemplateStore, type TemplateLease } from './store.ts';
import { sandboxFiles } from '../qemu/files.ts';
import { endQemuOf } from '../qemu/find.ts';
import { VM_DIRECTORY, makeTemplate, type HoldImages, type TemplateLaunch } from './vm.ts';

/**
 * Templates, from the making of one to a sandbox:
 *
 *     templates.ts ─ key.ts: its name ─▶ store.ts ─ is it there? ─▶ lease ─▶ clone.ts ─▶ a VM of its own identity
 *          │                                ▲                                  ▲
 *          └─ missing ─▶ vm.ts: boot, save ─┘          pool.ts: clones made ahead of time
 *                        (migrate.ts, memory.ts, record.ts)
 */

const MIB = 1_048_576;
/** Templates that may wait to be made. */
const WAITING_MAX = 16;
const VERSION_TIMEOUT_MS = 10_000;
const VERSIONS_MAX = 16;

/** A template to start from, or in words why there is none. */
export type FoundTemplate = { readonly lease: TemplateLease } | { readonly lease: undefined; readonly reason: string };

/**
 * The daemon's templates: which one fits a sandbox, and the making of those that are missing.
 *
 * INVARIANTS: at most one template's VM runs at a time. It dies with the daemon where the host can see to that; where
 * it cannot, the next daemon ends it before it serves.
 */
export class Templates implements AsyncDisposable {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #cells: Cells;
  readonly #holdImages: HoldImages;
  #store: TemplateStore | undefined;
  /** Why there is no store. */
  #problem = '';
  readonly #opening = new Coalesced(() => this.#open());
  readonly #making = new BoundedMutex('the making of templates', WAITING_MAX);
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #background = new Set<Promise<void>>();
  readonly #versions = new Map<string, string>();
  readonly #closing = new AbortController();
  /** Constant while the host runs and qshim is not replaced; read once. */
  #constants: Promise<{ readonly hostBoot: string; readonly qshimVersion: string }> | undefined;

  private constructor(config: Config, log: Logger, cells: Cells, holdImages: HoldImages) {
    this.#config = config;
    this.#cells = cells;
    this.#holdImages = holdImages;
    this.#log = log;
  }

  /**
   * Opens the store. A directory that will not do is no reason not to serve: then every sandbox boots, and says why;
   * and each looks again, for somebody may have put it right.
   */
  static async open(config: Config, log: Logger, cells: Cells, holdImages: HoldImages): Promise<Templates> {
    const templates = new Templates(config, log, cells, holdImages);
    await templates.#opening.run();
    return templates;
  }

  /** The store, opened by now if it can be. Never rejects. */
  async #open(): Promise<TemplateStore | undefined> {
    if (this.#store !== undefined || this.#closing.signal.aborted) return this.#store;
    try {
      this.#store = await openStore(this.#config, this.#log);
    } catch (error) {
      const problem = messageOf(error);
      if (problem !== this.#problem) this.#log.warn({ directory: this.#config.templates_dir, problem }, 'no templates');
      this.#problem = problem;
    }
    return this.#store;
  }

  /**
   * The template for a launch, to be disposed of when its clone has ended. With `required`, makes it when there is
   * none.
   * @param signal ends the waiting for one that is being made
   * @throws with `required` only: what the making throws (TemplateStore.build); ShimError FAILED_PRECONDITION /
   *   TEMPLATE_UNAVAILABLE when this host has no templates
   */
  async find(launch: TemplateLaunch, use: 'auto' | 'required', signal: AbortSignal): Promise<FoundTemplate> {
    const store = await this.#opening.run();
    if (store === undefined) {
      if (use === 'auto') return { lease: undefined, reason: `there are no templates here: ${this.#problem}` };
      throw unavailable(`there are no templates on this host: ${this.#problem}`);
    }
    let key: string;
    let lease: TemplateLease | undefined;
    try {
      key = await this.keyOf(launch);
      lease = await store.lookup(key);
    } catch (error) {
      if (use === 'required') throw error;
      return { lease: undefined, reason: `which template is its own is not known: ${messageOf(error)}` };
    }
    if (lease !== undefined) return { lease };
    if (use === 'auto') return { lease: undefined, reason: whyNone(store, key) };
    await waitFor(this.#make(store, key, launch), { signal });
    const made = await store.lookup(key);
    if (made !== undefined) return { lease: made };
    throw unavailable('the template was made, and was evicted before it could be used');
  }

  /** Has the template for a launch made in the background, some time after this. Does nothing when there is one. */
  makeSoon(launch: TemplateLaunch): void {
    this.#inBackground(async () => {
      const store = await this.#opening.run();
      if (store === undefined) return;
      const key = await this.keyOf(launch);
      const known = store.building(key) || store.failure(key) !== undefined || this.#timers.has(key);
      if (known || this.#timers.size >= WAITING_MAX || this.#closing.signal.aborted) return;
      const timer = setTimeout(() => {
        this.#timers.delete(key);
        this.#inBackground(() => this.#make(store, key, launch));
      }, this.#config.template_delay_ms);
      this.#timers.set(key, timer.unref());
    });
  }

  /** Counts a clone of an earlier daemon among the users of its template; undefined when that is gone. */
  async hold(templateId: string): Promise<TemplateLease | undefined> {
    try {
      return await this.#store?.lookup(templateId);
    } catch (error) {
      this.#log.warn({ templateId, problem: messageOf(error) }, 'template of an adopted clone not looked at');
      return undefined;
    }
  }

  /** Every clone of an earlier daemon is counted by now: what is too much may go. */
  async trim(): Promise<void> {
    await this.#store?.trim();
  }

  /**
   * Refuses to begin one more VM that nobody waits for when the host would be left with too little memory.
   * @throws ShimError RESOURCE_EXHAUSTED / TEMPLATE_NO_MEMORY
   */
  async assertMemory(memoryMib: number): Promise<void> {
    const neededMib = memoryMib + this.#config.template_free_mib;
    const text = await readFile('/proc/meminfo', 'utf8');
    const availableMib = Math.floor(Number(/^MemAvailable:\s+([0-9]+) kB$/m.exec(text)?.[1]) / 1024);
    if (availableMib >= neededMib) return;
    throw new ShimError(
      'RESOURCE_EXHAUSTED',
      `a further VM needs ${neededMib} MiB of available memory, the host has ${availableMib}`,
      {
        reason: 'TEMPLATE_NO_MEMORY',
        metadata: { neededMib: String(neededMib), availableMib: String(availableMib) },
      },
    );
  }

  /** Takes note that a clone could not be started: its template is made anew, after a while. */
  async clonedBadly(templateId: string, cause: unknown): Promise<void> {
    await this.#store?.discard(templateId, cause);
  }

  /** Ends what is being made; what is finished stays for the next daemon. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#opening.run();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await this.#store?.[Symbol.asyncDispose]();
    await Promise.all(this.#background);
  }

  #inBackground(work: () => Promise<void>): void {
    const kept = work()
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#log.warn({ problem: messageOf(error) }, 'template not made');
      })
      .finally(() => this.#background.delete(kept));
    this.#background.add(kept);
  }

  #make(store: TemplateStore, key: string, launch: TemplateLaunch): Promise<void> {
    return store.build({
      key,
      keyNow: () => this.keyOf(launch),
      memoryBytes: launch.memoryMib * MIB,
      make: async (target) => {
        using _turn = await this.#making.acquire();
        target.signal.throwIfAborted();
        await this.assertMemory(launch.memoryMib);
        using _images = await this.#holdImages(launch, `template ${key}, which boots it`);
        this.#log.info({ key }, 'making a template');
        const { template_timeout_ms: timeoutMs } = this.#config;
        return await makeTemplate(target, { cells: this.#cells, launch, log: this.#log, timeoutMs });
      },
    });
  }

  /** The template's key for a launch, by the files as they are now: a template of others is not found. */
  async keyOf(launch: TemplateLaunch): Promise<string> {
    const [qemu, kernel, initrd] = await Promise.all([
      findProgram(this.#config.qemu_binary).then(identifyFile),
      identifyFile(launch.kernel),
      identifyFile(launch.initrd),
    ]);
    // A failure (no descriptor left) is not remembered.
    this.#constants ??= readConstants().catch((error: unknown) => {
      this.#constants = undefined;
      throw error;
    });
    // Both at once: one that fails while the other is awaited would have nobody to hear of it.
    const [qemuVersion, constants] = await Promise.all([
      this.#versionOf(JSON.stringify(qemu), qemu.path),
      this.#constants,
    ]);
    return templateKey({ launch, qemu, qemuVersion, kernel, initrd, ...constants });
  }

  /** What a binary calls itself; asked once for each identity of the file. */
  async #versionOf(identity: string, path: string): Promise<string> {
    const known = this.#versions.get(identity);
    if (known !== undefined) return known;
    const { stdout } = await run(path, ['--version'], { timeout: VERSION_TIMEOUT_MS, stdin: 'ignore' });
    if (this.#versions.size >= VERSIONS_MAX) this.#versions.clear();
    this.#versions.set(identity, stdout);
    return stdout;
  }
}

async function openStore(config: Config, log: Logger): Promise<TemplateStore> {
  const { templates_dir: directory, templates_bytes_max: bytesMax } = config;
  const abandoned = (left: string): Promise<void> => endTemplateVm(left, log);
  return await TemplateStore.open({ directory, bytesMax, log, abandoned });
}

async function readConstants(): Promise<{ readonly hostBoot: string; readonly qshimVersion: string }> {
  const [hostBoot, manifest] = await Promise.all([
    bootOfHost(),
    readFile(join(import.meta.dirname, '../../package.json'), 'utf8'),
  ]);
  return {
    hostBoot,
    qshimVersion: z.object({ version: z.string() }).parse(JSON.parse(manifest)).version,
  };
}

/** Ends the VM that a daemon which was killed has left in the directory of a template that it was making. */
async function endTemplateVm(directory: string, log: Logger): Promise<void> {
  const files = sandboxFiles(join(directory, VM_DIRECTORY));
  const pid = await endQemuOf(files.qmpSocket);
  await removeLeftGroup(files.directory, log);
  if (pid !== undefined) log.warn({ pid, directory }, 'vm of an unfinished template ended');
}

function whyNone(store: TemplateStore, key: string): string {
  if (store.building(key)) return 'its template is still being made';
  const failure = store.failure(key);
  if (failure !== undefined) return `its template could not be made: ${failure.message}`;
  return 'there was no template for it yet; one is made in the background';
}

function unavailable(message: string): ShimError {
  return new ShimError('FAILED_PRECONDITION', message, { reason: 'TEMPLATE_UNAVAILABLE' });
}
