import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { answerOf, detach, tell } from './answers.ts';
import { Figures } from './figures.ts';
import { BLOCK_BYTES, SandboxModel, makeFiles, type VolumeFile } from './model.ts';
import { Oracle, attachedIn, type Problem } from './oracle.ts';
import { FAULTS, planStep, type StepKind, type StepPlan } from './plan.ts';
import { Rig } from './rig.ts';
import { perform, performCreate, writeBlock, type VolumeWork } from './work.ts';

export interface SoakOptions {
  readonly seed: number;
  readonly minutes: number;
  readonly sandboxes: number;
  readonly volumes: number;
  /** Cut journals short while the daemon is dead. */
  readonly journalCuts: boolean;
  readonly verbose: boolean;
  readonly say: (line: string) => void;
}

const PLAIN_BYTES = 1024 * 1024;
const PROGRESS_MS = 20_000;
const BOOT_ID = 'cat /proc/sys/kernel/random/boot_id';
const AGENT_PID = 'pidof qemu-ga';
const AGENT_BACK_MS = 60_000;
const REBOOT_MS = 120_000;
const NOTICE_MS = 5000;
const STOP_STEP_MS = 8000;
const LAST_STEPS = 8;

/** Random operations and faults on several sandboxes of one directory; ends at the first step that finds a problem. */
export class Soak {
  readonly #options: SoakOptions;
  readonly #figures = new Figures();
  readonly #rig: Rig;
  readonly #sandboxes: readonly SandboxModel[];
  readonly #files: readonly VolumeFile[];
  readonly #oracle: Oracle;
  readonly #last: string[] = [];

  private constructor(options: SoakOptions, rig: Rig, files: readonly VolumeFile[]) {
    this.#options = options;
    this.#rig = rig;
    this.#files = files;
    this.#sandboxes = Array.from({ length: options.sandboxes }, (_, index) => new SandboxModel(`s${index}`));
    this.#oracle = new Oracle(rig, this.#sandboxes, files);
  }

  /** Runs to the end of its time or to the first problem; the figures tell which. */
  static async run(options: SoakOptions): Promise<Figures> {
    const rig = await Rig.start();
    const files = await makeFiles(rig.volumeDirectory, options.sandboxes * options.volumes, PLAIN_BYTES);
    const soak = new Soak(options, rig, files);
    await soak.#run();
    return soak.#figures;
  }

  async #run(): Promise<void> {
    const { minutes, say } = this.#options;
    const figures = this.#figures;
    const end = performance.now() + minutes * 60_000;
    let toldMs = performance.now();
    await this.#attempt('start', () => this.#createAll());
    for (let step = 1; performance.now() < end && figures.failed === 0; step += 1) {
      await this.#attempt(`step ${step}`, () => this.#step(step));
      if (performance.now() - toldMs < PROGRESS_MS) continue;
      toldMs = performance.now();
      say(
        `  ${(figures.seconds / 60).toFixed(1)} min: ${step} steps, ${figures.total('fault ')} faults, no problem so far`,
      );
    }
    if (figures.failed === 0) await this.#attempt('end', () => this.#end());
    if (figures.failed > 0) {
      await this.#rig.abandon();
      say(`FAILED with --seed ${this.#options.seed}; logs and files are kept in ${this.#rig.directory}`);
      say(`last steps:\n${this.#last.map((line) => `  ${line}`).join('\n')}`);
    } else await this.#rig.remove();
  }

  /** Carries out one numbered part; every problem, and everything thrown, is one failure. */
  async #attempt(what: string, act: () => Promise<readonly Problem[]>): Promise<void> {
    const figures = this.#figures;
    let problems: readonly Problem[];
    try {
      problems = await act();
    } catch (error) {
      problems = [
        { kind: 'wrong state', text: error instanceof Error ? (error.stack ?? error.message) : String(error) },
      ];
    }
    figures.problems.push(...problems);
    if (problems.length === 0) figures.passed += 1;
    else figures.failed += 1;
    for (const problem of problems) this.#options.say(`${what}: ${problem.kind}: ${problem.text}`);
  }

  async #createAll(): Promise<readonly Problem[]> {
    const problems: Problem[] = [];
    for (const sandbox of this.#sandboxes) problems.push(...(await this.#create(sandbox, false)));
    problems.push(...(await this.#oracle.check(await this.#rig.settle())));
    return problems;
  }

  #create(sandbox: SandboxModel, disturbed: boolean): Promise<readonly Problem[]> {
    return performCreate(this.#rig, sandbox, this.#files.length + 2, disturbed);
  }

  async #step(step: number): Promise<readonly Problem[]> {
    const plan = planStep(this.#options.seed, step, { sandboxes: this.#sandboxes.length, files: this.#files.length });
    const sandbox = this.#sandboxes[plan.sandbox];
    if (sandbox === undefined) throw new Error('the plan names no sandbox');
    const kind = plan.kind === 'journal-cut' && !this.#options.journalCuts ? 'daemon-kill' : plan.kind;
    this.#note(step, kind, plan);
    this.#figures.count(`${isFault(kind) ? 'fault' : 'operation'} ${kind}`);
    const works = kind === 'write' ? [] : plan.volumes.map((one) => this.#work(one));
    const missing = this.#sandboxes.find((one) => !one.runs);
    const recreated = plan.recreate && missing !== sandbox && kind !== 'write' ? missing : undefined;
    const disturbed = (one: SandboxModel): boolean =>
      kind.startsWith('daemon') ||
      kind === 'journal-cut' ||
      one === recreated ||
      (kind !== 'volumes' && one === sandbox);
    for (const work of works) this.#figures.count(`operation ${work.kind}`);
    const results = await Promise.all([
      ...works.map((work) => perform(this.#rig, work, this.#sandboxes, disturbed(work.sandbox))),
      recreated === undefined ? [] : this.#recreate(recreated, disturbed(recreated)),
      this.#act(kind, plan, sandbox),
    ]);
    this.#afterwards(kind, sandbox);
    const began = this.#actedMs;
    const view = await this.#rig.settle();
    if (isFault(kind)) this.#figures.time(`recovery from ${kind}`, performance.now() - began);
    return [...results.flat(), ...(await this.#oracle.check(view))];
  }

  /** When the fault of the step was done and recovery began. */
  #actedMs = 0;

  #note(step: number, kind: StepKind, plan: StepPlan): void {
    const asked = plan.volumes.map(
      (one) =>
        `${one.kind} s${one.sandbox}/${this.#files[one.file]?.id ?? ''}${one.readOnly ? ' ro' : ''}${one.patienceMs === undefined ? '' : ` within ${one.patienceMs} ms`}`,
    );
    const line = `step ${step}: ${kind} s${plan.sandbox} after ${plan.delayMs} ms [${asked.join(', ')}]`;
    this.#last.push(`${new Date().toISOString()} ${line}`);
    if (this.#last.length > LAST_STEPS) this.#last.shift();
    if (this.#options.verbose) this.#options.say(`  ${line}`);
  }

  #work(one: StepPlan['volumes'][number]): VolumeWork {
    const [sandbox, file] = [this.#sandboxes[one.sandbox], this.#files[one.file]];
    if (sandbox === undefined || file === undefined) throw new Error('the plan names no volume');
    // A read-only mount of a file system that may have a journal to replay is refused by the guest, rightly.
    const readOnly = one.readOnly && file.mountPoint === undefined;
    return { kind: one.kind, sandbox, file, readOnly, patienceMs: one.patienceMs };
  }

  async #recreate(sandbox: SandboxModel, disturbed: boolean): Promise<readonly Problem[]> {
    this.#figures.count('operation create');
    const { client } = this.#rig;
    if (sandbox.expected.has('stopped')) {
      const answer = await answerOf(client.deleteSandbox(sandbox.id, false));
      if (answer.kind === 'unknown') sandbox.vmEnds(['absent', 'stopped']);
      if (answer.kind !== 'ok') {
        return disturbed ? [] : [{ kind: 'wrong answer', text: `delete ${sandbox.id}: ${tell(answer)}` }];
      }
      sandbox.vmEnds(['absent']);
    }
    // The step's fault may have ended the daemon meanwhile.
    if (!this.#rig.isServedBy(client)) return [];
    return await this.#create(sandbox, true);
  }

  /** What the step itself does, beside what callers ask for. */
  async #act(kind: StepKind, plan: StepPlan, sandbox: SandboxModel): Promise<readonly Problem[]> {
    const problems = await this.#actNow(kind, plan, sandbox);
    this.#actedMs ||= performance.now();
    return problems;
  }

  async #actNow(kind: StepKind, plan: StepPlan, sandbox: SandboxModel): Promise<readonly Problem[]> {
    this.#actedMs = 0;
    switch (kind) {
      case 'volumes':
        return [];
      case 'write':
        return await this.#write(plan);
      case 'create':
        return await this.#create(sandbox, true);
      case 'daemon-kill':
      case 'daemon-term':
      case 'journal-cut':
        await sleep(plan.delayMs);
        return await this.#replaceDaemon(kind, sandbox, plan);
      default:
        await sleep(plan.delayMs);
        // What the model knows now decides: there may be no VM to do it to.
        return sandbox.runs ? await this.#actOnVm(kind, plan, sandbox) : [];
    }
  }

  async #actOnVm(
    kind: Exclude<StepKind, 'volumes' | 'write' | 'create' | 'daemon-kill' | 'daemon-term' | 'journal-cut'>,
    plan: StepPlan,
    sandbox: SandboxModel,
  ): Promise<readonly Problem[]> {
    const { client } = this.#rig;
    const { id, pid } = sandbox;
    if (pid === undefined) return [];
    switch (kind) {
      case 'exec': {
        const said = await client.guest(id, `echo ${plan.delayMs}; uname -s`);
        const right = said === `${plan.delayMs}\nLinux\n`;
        return right ? [] : [{ kind: 'wrong answer', text: `exec in ${id} said ${JSON.stringify(said)}` }];
      }
      case 'stop':
        await client.stopSandbox({ sandboxId: id, gracefulTimeoutMs: STOP_STEP_MS });
        return [];
      case 'delete':
        await client.deleteSandbox(id);
        return [];
      case 'reboot':
        await this.#parting(id, 'reboot -f');
        return await this.#untilGuest(id, REBOOT_MS, (boot) => boot !== sandbox.bootId);
      case 'busy':
        return await this.#busyDetach(sandbox);
      case 'qemu-pause':
        process.kill(pid, 'SIGSTOP');
        await sleep(plan.lengthMs);
        process.kill(pid, 'SIGCONT');
        return [];
      case 'qemu-kill':
        process.kill(pid, 'SIGKILL');
        this.#actedMs = performance.now();
        return await this.#untilStopped(id);
      case 'agent-kill': {
        const before = await client.guest(id, AGENT_PID);
        await this.#parting(id, 'killall -9 qemu-ga');
        this.#actedMs = performance.now();
        return await this.#untilGuest(id, AGENT_BACK_MS, (pid) => pid !== before.trim(), AGENT_PID);
      }
    }
  }

  /**
   * Runs what ends the agent. A busy guest may come to it before the agent has told how the call went: that is no
   * problem.
   */
  async #parting(id: string, command: string): Promise<void> {
    const answer = await answerOf(this.#rig.client.exec(id, `(sleep 0.1; ${command}) > /dev/null 2>&1 &`));
    if (answer.kind === 'ok' || answer.code === 'UNAVAILABLE') return;
    throw new Error(`${command} in ${id}: ${tell(answer)}`);
  }

  /** Waits until the daemon has noticed that a VM is gone; it looks after adopted processes several times a second. */
  async #untilStopped(id: string): Promise<readonly Problem[]> {
    const end = performance.now() + NOTICE_MS;
    while (performance.now() < end) {
      if ((await this.#rig.client.getSandbox(id)).state === 'SANDBOX_STATE_STOPPED') return [];
      await sleep(10);
    }
    return [{ kind: 'wrong state', text: `the end of QEMU of ${id} was not noticed within ${NOTICE_MS} ms` }];
  }

  /** Waits until the guest answers a script (by default: which boot is this?) as is right. */
  async #untilGuest(
    id: string,
    limitMs: number,
    right: (said: string) => boolean,
    script = BOOT_ID,
  ): Promise<readonly Problem[]> {
    const end = performance.now() + limitMs;
    let last = '';
    while (performance.now() < end) {
      const answer = await answerOf(this.#rig.client.exec(id, script));
      if (answer.kind === 'ok' && right(answer.value.standardOutput.toString().trim())) return [];
      last = tell(answer);
      await sleep(50);
    }
    return [{ kind: 'VM harmed', text: `the guest agent of ${id} did not come back within ${limitMs} ms: ${last}` }];
  }

  /** A mounted volume that a process uses is not taken away, and stays as it is. */
  async #busyDetach(sandbox: SandboxModel): Promise<readonly Problem[]> {
    const held = attachedIn(sandbox).find(({ file, mounted }) => file.mountPoint !== undefined && mounted);
    if (held === undefined) return [];
    const { client } = this.#rig;
    const start = `cd ${held.file.mountPoint ?? ''} || exit 0; sleep 600 > /dev/null 2>&1 & echo $!`;
    const holder = (await client.guest(sandbox.id, start)).trim();
    // Another caller of this step may have taken it already: then there is nothing to hold.
    const answer = await detach(client, { sandboxId: sandbox.id, volumeId: held.file.id });
    if (holder !== '') await client.guest(sandbox.id, `kill ${holder}; true`);
    if (answer.kind === 'refused' || !sandbox.isAttached(held.file)) return [];
    const asked = held.expected.has('removed');
    return asked ? [] : [{ kind: 'wrong answer', text: `detach of busy ${held.file.id}: ${tell(answer)}` }];
  }

  async #write(plan: StepPlan): Promise<readonly Problem[]> {
    const results = await Promise.all(
      plan.volumes.map(async ({ file: index }) => {
        const file = this.#files[index];
        const holder = this.#sandboxes.find((one) => file !== undefined && one.isAttached(file));
        if (file === undefined || holder === undefined) return [];
        return await writeBlock(this.#rig, holder, file, plan.random.below(64), plan.random.bytes(BLOCK_BYTES));
      }),
    );
    return results.flat();
  }

  async #replaceDaemon(
    kind: 'daemon-kill' | 'daemon-term' | 'journal-cut',
    sandbox: SandboxModel,
    plan: StepPlan,
  ): Promise<readonly Problem[]> {
    const directory = this.#rig.daemon.directoryOf(sandbox.id);
    await this.#rig.endDaemon(kind === 'daemon-term' ? 'SIGTERM' : 'SIGKILL');
    if (kind === 'journal-cut' && sandbox.runs) await cutShort(join(directory, 'state.json'), plan.random.fraction());
    this.#actedMs = performance.now();
    this.#figures.time('restart', await this.#rig.startDaemon());
    return [];
  }

  /** What the step's own act has made certain, once all calls of the step have ended. */
  #afterwards(kind: StepKind, sandbox: SandboxModel): void {
    if (!sandbox.runs) return;
    if (kind === 'stop' || kind === 'qemu-kill') sandbox.vmEnds(['stopped']);
    if (kind === 'delete') sandbox.vmEnds(['absent']);
    if (kind === 'reboot') sandbox.guestReboots();
  }

  /** Everything is detached, attached once more (no claim is left), deleted; and then nothing may be left. */
  async #end(): Promise<readonly Problem[]> {
    const problems: Problem[] = [];
    for (const sandbox of this.#sandboxes) {
      if (!sandbox.runs) problems.push(...(await this.#recreate(sandbox, false)));
    }
    for (const kind of ['detach', 'attach', 'detach'] as const) {
      for (const [index, file] of this.#files.entries()) {
        const holder = this.#sandboxes.find((one) => one.isAttached(file));
        const sandbox = holder ?? this.#sandboxes[index % this.#sandboxes.length];
        if (sandbox === undefined) continue;
        const work: VolumeWork = { kind, sandbox, file, readOnly: false, patienceMs: undefined };
        problems.push(...(await perform(this.#rig, work, this.#sandboxes, false)));
      }
    }
    problems.push(...(await this.#oracle.check(await this.#rig.settle())));
    const leaks = await this.#rig.dismantle();
    return [...problems, ...leaks.map((text): Problem => ({ kind: 'leaked', text }))];
  }
}

function isFault(kind: StepKind): boolean {
  return (FAULTS as readonly string[]).includes(kind);
}

async function cutShort(path: string, share: number): Promise<void> {
  const { length } = await readFile(path);
  await using file = await open(path, 'r+');
  await file.truncate(Math.floor(length * share));
}
