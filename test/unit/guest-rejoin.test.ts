import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import { readProcStat } from '../../src/base/proc-stat.ts';
import type { GuestAgent } from '../../src/guest/agent.ts';
import { Containers } from '../../src/guest/containers/containers.ts';
import type { ContainerHost } from '../../src/guest/containers/host.ts';
import type { Ports } from '../../src/guest/containers/port.ts';
import type { ProcessRecord } from '../../src/guest/containers/records.ts';
import type { GuestProcess } from '../../src/guest/containers/types.ts';
import { guestScript } from '../../src/guest/programs.ts';
import { shimFailure } from '../support/agent-pair.ts';

const INSTALL = guestScript('containers/install');
const LOOK = guestScript('containers/look');
const START = guestScript('containers/start');

/** A container that an earlier daemon has created, in a guest that says this of it. */
async function rejoined(
  lines: readonly string[],
): Promise<{ process: GuestProcess; start: Promise<number>; starts: () => number }> {
  const printed = new Map([
    [LOOK, ['uptime=10', ...lines]],
    [INSTALL, ['ready=1']],
    [START, ['started=1']],
  ]);
  let starts = 0;
  const exec = ({ args = [] }: { readonly args?: readonly string[] }): Promise<object> => {
    const script = args[1] ?? '';
    if (script === START) starts += 1;
    const stdout = Buffer.from(`${(printed.get(script) ?? []).join('\n')}\n`);
    return Promise.resolve({ exitCode: 0, stdout, stderr: Buffer.alloc(0), truncated: false, pid: 1 });
  };
  const port = { nr: 3, kind: 'output', outputPath: undefined, inputPath: undefined, ended: false };
  const host = {
    ...{ id: 's', log: silentLogger(), config: { container_timeout_ms: 1000, container_processes_max: 8 } },
    ...{ agent: { exec } as unknown as GuestAgent, agentReady: true, gone: new AbortController().signal },
    ports: { get: () => port, all: () => [port] } as unknown as Ports,
    ...{ commit: () => Promise.resolve(), commitSoon: () => undefined, inBackground: () => undefined },
  } as unknown as ContainerHost;
  const containers = new Containers(host);
  const created: ProcessRecord = {
    ...{ containerId: 'c', execId: undefined, state: 'created', paused: false, ran: false, pid: 7, token: 't' },
    streams: { terminal: false, stdin: false, stdout: false, stderr: false },
    ...{ ports: { stdin: 0, stdout: 0, stderr: 0, terminal: 0 }, process: undefined, exit: undefined },
  };
  containers.restore({ eventsPort: 3, processes: [created] });
  const asked = Promise.withResolvers<void>();
  const rejoining = containers.rejoin(asked.promise);
  const process = containers.find('c');
  assert.ok(process);
  // Before the guest has been asked, as the relay's repeat comes.
  const start = process.start();
  start.catch(() => undefined);
  asked.resolve();
  await Promise.allSettled([rejoining, start]);
  return { process, start, starts: () => starts };
}

describe('Start, repeated by a daemon that comes back', () => {
  it('a container that waits for it is started', async () => {
    const { process, start, starts } = await rejoined(['process=c 0 1 7 ']);
    assert.equal(await start, 7);
    assert.deepEqual([starts(), process.ran, process.state], [1, true, 'running']);
  });

  it('one that the daemon before has started is not started again, and it is no error', async () => {
    const { process, start, starts } = await rejoined(['process=c 1 1 7 ']);
    assert.equal(await start, 7);
    assert.deepEqual([starts(), process.ran, process.state], [0, true, 'running']);
    const ended = await rejoined(['process=c 1 0 7 5 9.50 0']);
    assert.equal(await ended.start, 7);
    assert.deepEqual([ended.starts(), ended.process.ran, ended.process.exit?.code], [0, true, 5]);
  });

  it('one that ended before it ran is refused', async () => {
    const { process, start, starts } = await rejoined(['process=c 0 0 0 137 9.50 0']);
    await assert.rejects(start, shimFailure('FAILED_PRECONDITION', 'CONTAINER_STATE'));
    assert.deepEqual([starts(), process.ran, process.exit?.code], [0, false, 137]);
    await assert.rejects(process.start(), shimFailure('FAILED_PRECONDITION', 'CONTAINER_STATE'));
  });
});

describe('what the guest says of a process, as its shell has it', () => {
  /** Runs the look over one process with these files. */
  async function look(files: Readonly<Record<string, string>>, fifos: readonly string[] = []): Promise<string> {
    await using cleanup = new AsyncDisposableStack();
    const root = await mkdtemp(join(tmpdir(), 'qshim-look-'));
    cleanup.defer(() => rm(root, { recursive: true }));
    const place = join(root, 'c/tty');
    await mkdir(place, { recursive: true });
    for (const [name, content] of Object.entries(files)) await writeFile(join(place, name), content);
    for (const name of fifos) await execa('mkfifo', [join(place, name)]);
    const { stdout } = await execa('/bin/sh', ['-c', LOOK.replaceAll('/run/qshim', root)]);
    return /^process=tty (.*)$/m.exec(stdout)?.[1] ?? '';
  }
  const pid = String(process.pid);

  it('a container with a terminal that its hook holds back is alive: its pid is in what crun told the hook', async () => {
    const ticks = String((await readProcStat(process.pid)).startTicks);
    const state = `{"ociVersion":"1.0","id":"tty","pid":${pid},"root":"/r","bundle":"/b","status":"created"}`;
    assert.equal(await look({ state, ticks }, ['go']), `0 1 ${pid} `);
    assert.match(await look({ state, ticks: `${ticks}1` }, ['go']), /^0 0 /);
    assert.match(await look({ state, ticks }), /^0 0 /);
    assert.equal(await look({ pid, ticks, started: '' }), `1 1 ${pid} `);
  });

  it('a start that crun has refused is none', async () => {
    assert.match(await look({ started: '', failed: '' }), /^0 0 /);
  });
});
