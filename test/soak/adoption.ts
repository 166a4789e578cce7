import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { create, tell } from './answers.ts';
import { Figures } from './figures.ts';
import { BLOCK_BYTES, SandboxModel, makePlainFiles, type VolumeFile } from './model.ts';
import { Oracle, type Problem } from './oracle.ts';
import { Random } from './random.ts';
import { Rig, type DaemonView } from './rig.ts';
import { perform } from './work.ts';

export interface AdoptionOptions {
  readonly seed: number;
  readonly sandboxes: number;
  readonly volumes: number;
  readonly rounds: number;
  readonly limitMs: number;
  readonly say: (line: string) => void;
}

const MEMORY_MIB = 160;
/** Guests that boot at once. */
const BOOTING_MAX = 2;
const LOOK_PAUSE_MS = 20;
const CONFIRM_TIMEOUT_MS = 60_000;
const UNPLUG_TIMEOUT_MS = 20_000;

/**
 * Kills the daemon of many sandboxes with many volumes, and measures from the start of the next one to every sandbox
 * found and every volume's state confirmed. In every second round one volume of each sandbox is unplugged behind the
 * daemon's back while it is dead: only a daemon that has looked at QEMU can then say the right thing of all.
 */
export class Adoption {
  readonly #options: AdoptionOptions;
  readonly #figures = new Figures();
  readonly #rig: Rig;
  readonly #sandboxes: readonly SandboxModel[];
  readonly #files: readonly VolumeFile[];
  readonly #oracle: Oracle;

  private constructor(options: AdoptionOptions, rig: Rig, files: readonly VolumeFile[]) {
    this.#options = options;
    this.#rig = rig;
    this.#files = files;
    this.#sandboxes = Array.from({ length: options.sandboxes }, (_, index) => new SandboxModel(`a${index}`));
    this.#oracle = new Oracle(rig, this.#sandboxes, files);
  }

  static async run(options: AdoptionOptions): Promise<Figures> {
    const rig = await Rig.start();
    const files = await makePlainFiles(rig.volumeDirectory, options.sandboxes * options.volumes, BLOCK_BYTES);
    const adoption = new Adoption(options, rig, files);
    await adoption.#run();
    return adoption.#figures;
  }

  async #run(): Promise<void> {
    const { rounds, say, seed } = this.#options;
    const figures = this.#figures;
    await this.#attempt('start', () => this.#prepare());
    for (let round = 1; round <= rounds && figures.failed === 0; round += 1) {
      await this.#attempt(`round ${round}`, () => this.#round(round));
    }
    const end = async (): Promise<readonly Problem[]> =>
      (await this.#rig.dismantle()).map((text) => ({ kind: 'leaked', text }));
    if (figures.failed === 0) await this.#attempt('end', end);
    if (figures.failed === 0) await this.#rig.remove();
    else {
      await this.#rig.abandon();
      say(`FAILED with --seed ${seed}; logs and files are kept in ${this.#rig.directory}`);
    }
  }

  async #attempt(what: string, act: () => Promise<readonly Problem[]>): Promise<void> {
    let problems: readonly Problem[];
    try {
      problems = await act();
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      problems = [{ kind: 'wrong state', text }];
    }
    this.#figures.problems.push(...problems);
    if (problems.length === 0) this.#figures.passed += 1;
    else this.#figures.failed += 1;
    for (const problem of problems) this.#options.say(`${what}: ${problem.kind}: ${problem.text}`);
  }

  async #prepare(): Promise<readonly Problem[]> {
    const problems: Problem[] = [];
    const waiting = [...this.#sandboxes.entries()];
    const bootSome = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const [index, sandbox] = next;
        const answer = await create(this.#rig.client, {
          sandboxId: sandbox.id,
          spec: { memoryMib: MEMORY_MIB, volumeCapacity: this.#options.volumes + 1 },
        });
        if (answer.kind !== 'ok')
          problems.push({ kind: 'wrong answer', text: `create ${sandbox.id}: ${tell(answer)}` });
        sandbox.expected = new Set(['running']);
        problems.push(...(await this.#attachAll(sandbox, this.#filesOf(index))));
      }
    };
    await Promise.all(Array.from({ length: BOOTING_MAX }, bootSome));
    problems.push(...(await this.#oracle.check(await this.#rig.settle())));
    this.#options.say(`  ready after ${this.#figures.seconds.toFixed(0)} s`);
    return problems;
  }

  #filesOf(index: number): readonly VolumeFile[] {
    const { volumes } = this.#options;
    return this.#files.slice(index * volumes, (index + 1) * volumes);
  }

  async #attachAll(sandbox: SandboxModel, files: readonly VolumeFile[]): Promise<readonly Problem[]> {
    const works = files.map((file) =>
      perform(
        this.#rig,
        { kind: 'attach', sandbox, file, readOnly: false, patienceMs: undefined },
        this.#sandboxes,
        false,
      ),
    );
    return (await Promise.all(works)).flat();
  }

  async #round(round: number): Promise<readonly Problem[]> {
    const { seed, limitMs, say } = this.#options;
    const random = new Random(seed, `round ${round}`);
    const before = await this.#rig.settle();
    await this.#rig.endDaemon('SIGKILL');
    const vanished = this.#sandboxes.map((_, index) => this.#filesOf(index)[random.below(this.#options.volumes)]);
    const behind = round % 2 === 0;
    if (behind) await this.#unplugBehind(before, vanished);
    const gone = behind ? this.#sandboxes.length : 0;

    const started = performance.now();
    const answersMs = await this.#rig.startDaemon();
    const [confirmedMs, agentsMs] = await this.#untilConfirmed(started, gone);
    this.#figures.time('first answer', answersMs);
    this.#figures.time('confirmed', confirmedMs);
    this.#figures.time('agents', agentsMs);
    const how = behind ? `, ${gone} volumes unplugged meanwhile` : '';
    say(
      `  round ${round}: first answer ${answersMs.toFixed(0)} ms, all confirmed ${confirmedMs.toFixed(0)} ms, ` +
        `all agents ${agentsMs.toFixed(0)} ms${how}`,
    );
    const problems: Problem[] = [...(await this.#oracle.check(await this.#rig.settle()))];
    if (confirmedMs > limitMs) {
      problems.push({ kind: 'wrong answer', text: `${confirmedMs.toFixed(0)} ms are more than ${limitMs} ms` });
    }
    if (behind) {
      for (const [index, sandbox] of this.#sandboxes.entries()) {
        const file = vanished[index];
        if (file !== undefined) problems.push(...(await this.#attachAll(sandbox, [file])));
      }
    }
    return problems;
  }

  /**
   * Milliseconds from `started` until every sandbox and volume is as it must be, and until every agent has answered.
   */
  async #untilConfirmed(started: number, gone: number): Promise<readonly [confirmedMs: number, agentsMs: number]> {
    let confirmedMs: number | undefined;
    for (;;) {
      const view = await this.#rig.view();
      const nowMs = performance.now() - started;
      if (confirmedMs === undefined && this.#isConfirmed(view, gone)) confirmedMs = nowMs;
      if (confirmedMs !== undefined && view.sandboxes.every(({ agentReady }) => agentReady))
        return [confirmedMs, nowMs];
      if (nowMs > CONFIRM_TIMEOUT_MS) throw new Error(`not confirmed after ${nowMs.toFixed(0)} ms`);
      await sleep(LOOK_PAUSE_MS);
    }
  }

  #isConfirmed({ sandboxes, volumes }: DaemonView, gone: number): boolean {
    // The run state is not in the journal: whoever has one has been asked for it by this daemon.
    const found = sandboxes.filter((one) => one.state === 'SANDBOX_STATE_RUNNING' && one.runState === 'running');
    const attached = volumes.filter(({ state }) => state === 'VOLUME_STATE_ATTACHED');
    const removed = new Set(
      volumes.filter(({ state }) => state === 'VOLUME_STATE_REMOVED').map(({ volumeId }) => volumeId),
    );
    return (
      found.length === this.#sandboxes.length &&
      attached.length === this.#files.length - gone &&
      attached.length + removed.size === this.#files.length
    );
  }

  /** Has QEMU itself take one volume of each sandbox away, through the spare monitor. */
  async #unplugBehind(view: DaemonView, files: readonly (VolumeFile | undefined)[]): Promise<void> {
    await Promise.all(
      this.#sandboxes.map(async (model, index) => {
        const file = files[index];
        const sandbox = view.sandboxes.find(({ sandboxId }) => sandboxId === model.id);
        const volume = view.volumes.find(({ sandboxId, volumeId }) => sandboxId === model.id && volumeId === file?.id);
        const attachment = model.attachments.get(file?.id ?? '');
        if (sandbox === undefined || volume === undefined || attachment === undefined) return;
        const device = `vol-${volume.generation}-${volume.volumeId}`;
        await using qmp = await QmpClient.connect({ path: join(sandbox.stateDir, 'spare.sock'), log: silentLogger() });
        using deleted = qmp.listen('DEVICE_DELETED', (event) => event.data.device === device);
        await qmp.run('device_del', { id: device });
        await deleted.next({ timeoutMs: UNPLUG_TIMEOUT_MS });
        attachment.expected = new Set(['removed']);
      }),
    );
  }
}
