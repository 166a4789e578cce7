import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GroupFiles } from '../../src/confine/cgroup.ts';
import { Scopes, type Systemd } from '../../src/confine/scope.ts';
import { until } from './until.ts';

type Times = Partial<Pick<Systemd, 'callMs' | 'lookMs'>>;

/** A cgroup2 of plain files, and a systemd of which the test says what it answers and does. */
export class MadeUpSystemd implements AsyncDisposable {
  readonly mount: string;
  readonly mountinfo: string;
  readonly systemd: Systemd;
  readonly #directory: string;

  private constructor(directory: string, { callMs = 30_000, lookMs = 30_000 }: Times) {
    this.#directory = directory;
    this.mount = join(directory, 'cgroup');
    this.mountinfo = `30 1 0:26 / ${this.mount} rw - cgroup2 cgroup2 rw`;
    const main = join(import.meta.dirname, 'fake-busctl-main.ts');
    this.systemd = { booted: directory, busctl: [process.execPath, main, directory], callMs, lookMs };
  }

  /** @param answers of its calls in their order, the last one for all others: '' is good, 'hang' none, else it fails */
  static async make(answers: readonly string[], times: Times = {}): Promise<MadeUpSystemd> {
    const made = new MadeUpSystemd(await mkdtemp(join(tmpdir(), 'qshim-systemd-')), times);
    await mkdir(made.mount);
    await writeFile(join(made.mount, 'cgroup.controllers'), 'cpu io memory pids\n');
    await writeFile(join(made.#directory, 'answers.json'), JSON.stringify(answers));
    return made;
  }

  get scopes(): Scopes {
    return new Scopes(this.mount, this.systemd);
  }

  /** Each call's method and its arguments. */
  async calls(): Promise<readonly (readonly string[])[]> {
    const text = await readFile(join(this.#directory, 'calls'), 'utf8').catch(() => '');
    const lines = text.split('\n').filter((line) => line !== '');
    return lines.map((line) => (JSON.parse(line) as string[]).slice(7));
  }

  /** @returns the calls, once there are so many */
  async called(count: number): Promise<readonly (readonly string[])[]> {
    return await until(`call ${count}`, async () => {
      const calls = await this.calls();
      return calls.length >= count && calls;
    });
  }

  /** What a kernel would show of a group. */
  async group(directory: string, files: GroupFiles, pids: readonly number[]): Promise<void> {
    await mkdir(directory, { recursive: true });
    for (const [file, text] of files) await writeFile(join(directory, file), `${text}\n`);
    await writeFile(join(directory, 'cgroup.procs'), pids.map((pid) => `${pid}\n`).join(''));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true });
  }
}
