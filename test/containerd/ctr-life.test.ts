import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { waitFor } from '../../src/base/deadline.ts';
import { CtrRun } from '../support/containerd/ctr-run.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';
import { until } from '../support/until.ts';

const END_MS = 60_000;

/** What a terminal shows, and its other end. */
class Terminal {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown[]>;
  shown = '';

  /** Runs a command line under script(1), which gives it a terminal of 24 lines and 80 columns. */
  constructor(command: readonly string[]) {
    const quoted = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
    const args = ['-q', '-e', '-f', '-c', `stty rows 24 cols 80; exec ${quoted}`, '/dev/null'];
    this.#child = spawn('script', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#ended = once(this.#child, 'exit');
    this.#child.stdout?.on('data', (bytes: Buffer) => (this.shown += bytes.toString()));
  }

  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** As a terminal emulator does whose window has another size. */
  async resize(rows: number, columns: number): Promise<void> {
    const device = await terminalOf(this.#child.pid ?? 0);
    await execa('stty', ['-F', device, 'rows', String(rows), 'cols', String(columns)]);
  }

  /** Waits until it shows this. */
  async until(pattern: RegExp): Promise<void> {
    await until(`${String(pattern)} on the terminal`, () => Promise.resolve(pattern.test(this.shown)));
  }

  async exitCode(): Promise<unknown> {
    return (await waitFor(this.#ended, { milliseconds: END_MS }))[0];
  }
}

/** The terminal that a child of this process has as its standard input. */
async function terminalOf(parent: number): Promise<string> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    if (Number(/^PPid:\s+(\d+)$/m.exec(status)?.[1]) === parent) return await readlink(`/proc/${pid}/fd/0`);
  }
  throw new Error(`process ${parent} has no child`);
}

describe('the life of a container, by ctr 2.1', () => {
  let rig: ContainerdRig;
  let ctr: CtrRun;
  before(async () => {
    rig = await ContainerdRig.start('2.1');
    ctr = new CtrRun(rig);
  });
  after(() => rig[Symbol.asyncDispose]());

  const sized = (size: string): string =>
    `until [ "$(stty size)" = "${size}" ]; do sleep 0.05; done; echo size ${size}`;
  const WATCHING = `${sized('24 80')}; ${sized('50 133')}; tty; read line; echo "got $line"; exit 5`;

  async function conversation(terminal: Terminal): Promise<void> {
    await terminal.until(/size 24 80\r/);
    await terminal.resize(50, 133);
    await terminal.until(/size 50 133\r+\n\/dev\/(pts\/\d+|console)\r/);
    terminal.type('hello\n');
    await terminal.until(/got hello\r/);
    assert.equal(await terminal.exitCode(), 5);
  }

  it('ctr run -t: a terminal with its size, a resize, input, Ctrl-C and the exit code', async () => {
    await conversation(new Terminal(await ctr.command('terminal', ['/bin/sh', '-c', WATCHING], ['--rm', '-t'])));
    const interrupted = new Terminal(
      await ctr.command(
        'interrupted',
        ['/bin/sh', '-c', 'trap "exit 130" INT; echo on; while :; do sleep 0.05; done'],
        ['--rm', '-t'],
      ),
    );
    await interrupted.until(/on\r/);
    interrupted.type('\x03');
    assert.equal(await interrupted.exitCode(), 130);
    await ctr.nothingIsLeft();
  });

  it('exec -t: the same for a further process; pause, resume, and every event', async () => {
    const events = spawn(...commandOf(rig.ctrCommand(['events'], 'default')), { stdio: ['ignore', 'pipe', 'inherit'] });
    let told = '';
    events.stdout.on('data', (bytes: Buffer) => (told += bytes.toString()));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => void events.kill());
    const count = 'n=0; while :; do n=$((n+1)); echo $n > /count; sleep 0.05; done';
    assert.equal((await ctr.run('main', ['/bin/sh', '-c', count], ['-d'])).exitCode, 0);

    const exec = ['tasks', 'exec', '-t', '--exec-id', 'shell', 'main', '/bin/sh', '-c', WATCHING];
    await conversation(new Terminal(rig.ctrCommand(exec, 'default')));

    assert.equal((await ctr.tasks('pause', 'main')).exitCode, 0);
    assert.equal(await ctr.status('main'), 'PAUSED');
    const counted = (): Promise<string> =>
      rig.daemon.client.guest('default.main', 'cat /run/qshim/volumes/rootfs-*/count');
    const before = await counted();
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(await counted(), before);
    assert.equal((await ctr.tasks('resume', 'main')).exitCode, 0);
    await rig.until(async () => (await counted()) !== before);
    assert.equal(await ctr.status('main'), 'RUNNING');

    assert.match((await ctr.remove('main')).stderr, /exit code 137/);
    const topics = ['create', 'start', 'exec-added', 'exec-started', 'paused', 'resumed', 'exit', 'delete'];
    for (const topic of topics) await rig.until(() => Promise.resolve(told.includes(`/tasks/${topic} `)));
    await ctr.nothingIsLeft();
  });
});

function commandOf([file, ...args]: readonly [string, ...string[]]): [string, string[]] {
  return [file, args];
}
