/** A qshimd whose standard output takes nothing. No VM is needed. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { ApiClient } from '../support/daemon.ts';
import { until } from '../support/until.ts';

const ROOT = join(import.meta.dirname, '../..');
/** A daemon that is held up is ended, so that the test says so. */
const HELD_UP_MS = 60_000;

/** Runs until `stdout` has failed it: started, asked twice, told to end. */
async function lifeOf(directory: string, stdout: number, logLevel = 'trace'): Promise<unknown> {
  await mkdir(join(directory, 'volumes'));
  const socket = join(directory, 'api.sock');
  const options = {
    ...{ socket, 'state-dir': join(directory, 's'), 'cache-dir': join(directory, 'cache'), template: 'off' },
    ...{ 'allowed-roots': join(directory, 'volumes'), 'log-level': logLevel, 'templates-dir': join(directory, 't') },
  };
  const flags = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const args = ['--disable-warning=ExperimentalWarning', join(ROOT, 'src/main.ts'), ...flags];
  const child = spawn(process.execPath, args, {
    ...{ stdio: ['ignore', stdout, stdout], timeout: HELD_UP_MS, killSignal: 'SIGKILL' },
  });
  const exited = once(child, 'exit');
  try {
    await until('its socket', () => stat(socket).then(Boolean, () => child.exitCode !== null));
    using client = new ApiClient(socket);
    assert.deepEqual(await client.listSandboxes(), []);
    const error = await client.getSandbox('typo').catch((problem: unknown) => problem);
    assert.match(String(error), /there is no sandbox typo/);
  } finally {
    child.kill('SIGTERM');
  }
  return await exited;
}

describe('a log that cannot be written', () => {
  it('on a full disk: the daemon starts, answers and ends in time', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-t-'));
    await using full = await open('/dev/full', 'w');
    assert.deepEqual(await lifeOf(directory, full.fd), [0, null]);
    await rm(directory, { recursive: true });
  });

  it('into a pipe that nobody reads: the same', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-t-'));
    const pipe = join(directory, 'log');
    await execa('mkfifo', [pipe]);
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
    const writer = openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
    // Full, but for less than a line.
    const fill = await open(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
    for (let more = true; more;) more = await fill.write(Buffer.alloc(4096)).then(Boolean, () => false);
    await fill.close();
    // The daemon's own descriptor blocks, as a service manager's does.
    const blocking = openSync(pipe, constants.O_WRONLY);
    assert.deepEqual(await lifeOf(directory, blocking), [0, null]);
    for (const fd of [reader, writer, blocking]) closeSync(fd);
    await rm(directory, { recursive: true });
  });

  it('for a while: what was dropped is counted, and said with the next line', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-t-'));
    const mounted = await execa('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'log', directory], { reject: false });
    if (mounted.exitCode !== 0) {
      await rm(directory, { recursive: true });
      t.skip(`no file system of 8 KiB: ${mounted.stderr}`);
      return;
    }
    try {
      const path = join(directory, 'log');
      const program = `
        import { createLogger, logOutput } from '${join(ROOT, 'src/base/log.ts')}';
        import { rmSync } from 'node:fs';
        const log = createLogger('info', logOutput());
        for (let n = 0; n < 200; n += 1) log.info({ n }, 'some line');
        rmSync('${join(directory, 'ballast')}');
        log.info('room again');`;
      await using ballast = await open(join(directory, 'ballast'), 'w');
      await ballast.write(Buffer.alloc(4096));
      await ballast.close();
      await using log = await open(path, 'a');
      const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
        ...{ stdio: ['ignore', log.fd, 'inherit'], timeout: HELD_UP_MS, killSignal: 'SIGKILL' },
      });
      assert.deepEqual(await once(child, 'exit'), [0, null]);
      const lines = (await readFile(path, 'utf8')).trimEnd().split('\n');
      const [notice = {}, last = {}] = lines.slice(-2).map((line) => JSON.parse(line) as Record<string, unknown>);
      const whole = lines.slice(0, -2).filter((line) => line.endsWith('"msg":"some line"}'));
      assert.equal(notice['msg'], 'log lines dropped');
      assert.equal(notice['dropped'], 200 - whole.length);
      assert.match(String(notice['problem']), /ENOSPC/);
      assert.equal(last['msg'], 'room again');
    } finally {
      await execa('umount', [directory]);
      await rm(directory, { recursive: true });
    }
  });
});
