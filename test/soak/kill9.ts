import { setTimeout as sleep } from 'node:timers/promises';
import { Figures, percentile } from './figures.ts';
import { BLOCK_BYTES, SandboxModel, makeFiles, type VolumeFile } from './model.ts';
import { Oracle, attachedIn, type Problem } from './oracle.ts';
import { Random } from './random.ts';
import { Rig } from './rig.ts';
import { perform, performCreate, writeBlock, type VolumeWork } from './work.ts';

export interface Kill9Options {
  readonly seed: number;
  readonly kills: number;
  readonly verbose: boolean;
  readonly say: (line: string) => void;
}

const SANDBOXES = 2;
const FILES_EACH = 4;
const PLAIN_BYTES = 4 * BLOCK_BYTES;
const WARM_UP_ROUNDS = 4;
const AT_ONCE_MAX = 4;
/** How often the daemon that has just come back is killed as well, in the midst of its recovery. */
const AGAIN = 0.25;
const AGAIN_WITHIN_MS = 400;
const WRITE = 0.3;
const PROGRESS_KILLS = 25;

/** One volume that is asked about, and the sandbox that it is at home in. */
interface Home {
  readonly sandbox: SandboxModel;
  readonly file: VolumeFile;
}

/**
 * Kills the daemon again and again in the midst of attaches and detaches of two VMs that live through all of it. Which
 * volumes, when, and whether twice follow from the seed; whether a volume is attached or detached follows from where it
 * is.
 */
export class Kill9 {
  readonly #options: Kill9Options;
  readonly #figures = new Figures();
  readonly #rig: Rig;
  readonly #homes: readonly Home[];
  readonly #sandboxes: readonly SandboxModel[];
  readonly #oracle: Oracle;
  /** Milliseconds within which 95 of 100 operations of a kind end when nothing is killed. */
  readonly #p95Ms = new Map<string, number>();

  private constructor(options: Kill9Options, rig: Rig, sandboxes: readonly SandboxModel[], homes: readonly Home[]) {
    this.#options = options;
    this.#rig = rig;
    this.#sandboxes = sandboxes;
    this.#homes = homes;
    this.#oracle = new Oracle(
      rig,
      sandboxes,
      homes.map(({ file }) => file),
    );
  }

  static async run(options: Kill9Options): Promise<Figures> {
    const rig = await Rig.start();
    const sandboxes = Array.from({ length: SANDBOXES }, (_, index) => new SandboxModel(`k${index}`));
    const files = await makeFiles(rig.volumeDirectory, SANDBOXES * FILES_EACH, PLAIN_BYTES);
    const homes = sandboxes.flatMap((sandbox, index) =>
      files.slice(index * FILES_EACH, (index + 1) * FILES_EACH).map((file) => ({ sandbox, file })),
    );
    const run = new Kill9(options, rig, sandboxes, homes);
    await run.#run();
    return run.#figures;
  }

  async #run(): Promise<void> {
    const { kills, seed, say } = this.#options;
    const figures = this.#figures;
    await this.#attempt('start', () => this.#warmUp());
    for (const [kind, milliseconds] of this.#p95Ms) say(`  undisturbed ${kind}: p95 ${milliseconds.toFixed(0)} ms`);
    for (let round = 1; figures.failed === 0 && figures.counted('kills') < kills; round += 1) {
      await this.#attempt(`round ${round}`, () => this.#round(round));
      if (round % PROGRESS_KILLS !== 0) continue;
      say(`  ${figures.counted('kills')} kills in ${figures.seconds.toFixed(0)} s, no problem so far`);
    }
    if (figures.failed === 0) await this.#attempt('end', () => this.#end());
    if (figures.failed === 0) await this.#rig.remove();
    else {
      await this.#rig.abandon();
      say(`FAILED with --seed ${seed}; logs and files are kept in ${this.#rig.directory}`);
    }
  }

  async #attempt(what: string, act: () => Promise<readonly Problem[]>): Promise<void> {
    const figures = this.#figures;
    let problems: readonly Problem[];
    try {
      problems = await act();
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      problems = [{ kind: 'wrong state', text }];
    }
    figures.problems.push(...problems);
    if (problems.length === 0) figures.passed += 1;
    else figures.failed += 1;
    for (const problem of problems) {
      this.#options.say(`${new Date().toISOString()} ${what}: ${problem.kind}: ${problem.text}`);
    }
  }

  /** Boots the VMs and measures all volumes at once, undisturbed; file systems are made here. */
  async #warmUp(): Promise<readonly Problem[]> {
    const problems: Problem[] = [];
    for (const sandbox of this.#sandboxes) {
      problems.push(...(await performCreate(this.#rig, sandbox, FILES_EACH + 1, false)));
    }
    const samples = new Map<string, number[]>();
    for (let round = 0; round < 2 * WARM_UP_ROUNDS; round += 1) {
      await Promise.all(
        this.#homes.map(async (home) => {
          const work = toggle(home);
          const started = performance.now();
          problems.push(...(await perform(this.#rig, work, this.#sandboxes, false)));
          // The first attach of a mounted one formats it, which no later one does.
          if (round > 1) samples.set(kindOf(work), [...(samples.get(kindOf(work)) ?? []), performance.now() - started]);
        }),
      );
    }
    for (const [kind, all] of samples) this.#p95Ms.set(kind, percentile(all, 0.95));
    problems.push(...(await this.#oracle.check(await this.#rig.settle())));
    return problems;
  }

  async #round(round: number): Promise<readonly Problem[]> {
    const random = new Random(this.#options.seed, `round ${round}`);
    const chosen = random.distinct(1 + random.below(AT_ONCE_MAX), this.#homes.length);
    const [share, againShare] = [random.fraction(), random.fraction()];
    const [again, write] = [random.chance(AGAIN), random.chance(WRITE)];
    const problems: Problem[] = [];
    if (write) problems.push(...(await this.#write(random)));
    const works = chosen.map((index) => toggle(this.#home(index)));
    const delayMs = share * Math.max(...works.map((work) => this.#p95Ms.get(kindOf(work)) ?? 0));
    this.#tell(round, works, delayMs, again);
    const calls = Promise.all(works.map((work) => perform(this.#rig, work, this.#sandboxes, true)));
    await sleep(delayMs);
    await this.#rig.endDaemon('SIGKILL');
    this.#figures.count('kills');
    problems.push(...(await calls).flat());
    const hit = works.filter(({ sandbox, file }) => sandbox.attachments.get(file.id)?.expected.size === 2);
    if (hit.length > 0) this.#figures.count('kills in the midst');
    if (again) {
      await this.#rig.startDaemon();
      await sleep(againShare * AGAIN_WITHIN_MS);
      await this.#rig.endDaemon('SIGKILL');
      this.#figures.count('kills');
      this.#figures.count('kills in the recovery');
    }
    const began = performance.now();
    this.#figures.time('restart', await this.#rig.startDaemon());
    const view = await this.#rig.settle();
    this.#figures.time('recovery', performance.now() - began);
    problems.push(...(await this.#oracle.check(view)));
    for (const { kind, sandbox, file } of hit) {
      const went = sandbox.isAttached(file) === (kind === 'attach');
      this.#figures.count(`${kind} ${went ? 'finished' : 'undone'}`);
    }
    this.#figures.time('round', performance.now() - began);
    return problems;
  }

  #home(index: number): Home {
    const home = this.#homes[index];
    if (home === undefined) throw new Error('no such volume');
    return home;
  }

  #tell(round: number, works: readonly VolumeWork[], delayMs: number, again: boolean): void {
    if (!this.#options.verbose) return;
    const asked = works.map(({ kind, sandbox, file }) => `${kind} ${sandbox.id}/${file.id}`).join(', ');
    const twice = again ? ', and again in its recovery' : '';
    this.#options.say(`  round ${round}: ${asked}; killed after ${delayMs.toFixed(0)} ms${twice}`);
  }

  async #write(random: Random): Promise<readonly Problem[]> {
    const { sandbox, file } = this.#home(random.below(this.#homes.length));
    return await writeBlock(this.#rig, sandbox, file, random.below(64), random.bytes(BLOCK_BYTES));
  }

  /** Everything is detached and attached once more, so that a slot, a claim or a lock that is left shows. */
  async #end(): Promise<readonly Problem[]> {
    const problems: Problem[] = [];
    for (const kind of ['detach', 'attach', 'detach'] as const) {
      const works = this.#homes.map((home): VolumeWork => ({ ...toggle(home), kind }));
      for (const work of works) problems.push(...(await perform(this.#rig, work, this.#sandboxes, false)));
    }
    problems.push(...(await this.#oracle.check(await this.#rig.settle())));
    const left = this.#sandboxes.flatMap((sandbox) => attachedIn(sandbox));
    if (left.length > 0) problems.push({ kind: 'wrong state', text: `${left.length} volumes are left attached` });
    const leaks = await this.#rig.dismantle();
    return [...problems, ...leaks.map((text): Problem => ({ kind: 'leaked', text }))];
  }
}

function toggle({ sandbox, file }: Home): VolumeWork {
  const kind = sandbox.isAttached(file) ? 'detach' : 'attach';
  return { kind, sandbox, file, readOnly: false, patienceMs: undefined };
}

function kindOf({ kind, file }: VolumeWork): string {
  return file.mountPoint === undefined ? kind : `${kind} with mount`;
}
