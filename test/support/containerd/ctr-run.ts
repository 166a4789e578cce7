import { spawn, type ChildProcess } from 'node:child_process';
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { IMAGE } from './image.ts';
import type { ContainerdRig, CtrResult } from './rig.ts';

const NAMESPACE = 'default';

/** `ctr run` and what goes with it, under the runtime of qshim: a VM for each container. */
export class CtrRun {
  readonly #rig: ContainerdRig;

  constructor(rig: ContainerdRig) {
    this.#rig = rig;
  }

  /** The command line of `ctr run`. @param more its flags */
  async command(
    id: string,
    args: readonly string[],
    more: readonly string[] = ['--rm'],
  ): Promise<readonly [string, ...string[]]> {
    const flags = [
      '--runtime',
      'io.containerd.qshim.v2',
      '--snapshotter',
      'blockfile',
      ...(await this.#fifos()),
      ...more,
    ];
    return this.#rig.ctrCommand(['run', ...flags, IMAGE, id, ...args], NAMESPACE);
  }

  async run(id: string, args: readonly string[], more?: readonly string[], input?: Buffer): Promise<CtrResult> {
    const [, , , , , ...rest] = await this.command(id, args, more);
    return await this.#rig.ctr(rest, { namespace: NAMESPACE, ...(input === undefined ? {} : { input }) });
  }

  /** Starts `ctr run` and leaves its standard output to the caller. */
  async spawn(id: string, args: readonly string[], more?: readonly string[]): Promise<ChildProcess> {
    const [file, ...rest] = await this.command(id, args, more);
    return spawn(file, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
  }

  async exec(id: string, execId: string, args: readonly string[]): Promise<CtrResult> {
    return await this.tasks('exec', ...(await this.#fifos()), '--exec-id', execId, id, ...args);
  }

  /** A subcommand of `ctr tasks`. */
  async tasks(...args: readonly string[]): Promise<CtrResult> {
    return await this.#rig.ctr(['tasks', ...args], { namespace: NAMESPACE });
  }

  /** The status of a task, as `ctr tasks ls` shows it; undefined when there is none. */
  async status(id: string): Promise<string | undefined> {
    const lines = (await this.tasks('ls')).stdout.toString().split('\n');
    return lines.map((line) => line.split(/\s+/)).find(([name]) => name === id)?.[2];
  }

  /** Kills a detached container and removes it, task and all. @returns the result of `ctr tasks rm` */
  async remove(id: string): Promise<CtrResult> {
    assert.equal((await this.tasks('kill', '-s', 'SIGKILL', id)).exitCode, 0);
    await this.#rig.until(async () => (await this.status(id)) === 'STOPPED');
    const removed = await this.tasks('rm', id);
    await this.forget(id);
    return removed;
  }

  /** Removes containerd's own record of a container without a task. */
  async forget(id: string): Promise<void> {
    await this.#rig.ctr(['containers', 'rm', id], { namespace: NAMESPACE });
  }

  /** No VM, no task. */
  async nothingIsLeft(): Promise<void> {
    assert.deepEqual(await this.#rig.daemon.client.listSandboxes(), []);
    assert.equal((await this.tasks('ls', '-q')).stdout.toString(), '');
  }

  /** ctr's FIFOs, in the rig's directory and not in the host's /run. */
  async #fifos(): Promise<readonly string[]> {
    const directory = join(this.#rig.directory, 'fifo');
    await mkdir(directory, { recursive: true });
    return ['--fifo-dir', directory];
  }
}
