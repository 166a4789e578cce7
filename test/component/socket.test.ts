import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, link, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { Client, credentials, status, type ServiceError } from '@grpc/grpc-js';
import { execa } from 'execa';
import { service as health } from 'grpc-health-check';
import { ApiClient, TestDaemon, call, type DaemonOptions } from '../support/daemon.ts';
import { decodeRefusal } from '../support/errors.ts';
import { ReflectionClient } from '../support/reflection.ts';
import { until } from '../support/until.ts';

/**
 * The daemon's door: its socket, its options, its signals, its health, and what it tells of itself. No VM is needed.
 */

const MAIN = join(import.meta.dirname, '../../src/main.ts');
const LOCK_MAIN = join(import.meta.dirname, '../support/lock-main.ts');
/** Processes that start over one stale socket at once, and how often. */
const RIVALS = 8;
const ROUNDS = 10;
const EXIT_MAX_MS = 30_000;
const KVM_PROBE_MS = 50;
/** A daemon that has not ended by then is killed, and its test fails. */
const DAEMON_MAX_MS = 45_000;

/** Runs a daemon that must not start. */
async function failedStart(
  directory: string,
  options: { readonly flags?: readonly string[]; readonly env?: object } = {},
) {
  const flags = [
    `--socket=${join(directory, 'run/api.sock')}`,
    `--state-dir=${join(directory, 's')}`,
    `--cache-dir=${join(directory, 'cache')}`,
    `--kvm-probe-timeout-ms=${KVM_PROBE_MS}`,
    ...(options.flags ?? []),
  ];
  const result = await execa(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...flags], {
    reject: false,
    stdin: 'ignore',
    timeout: EXIT_MAX_MS,
    killSignal: 'SIGKILL',
    env: { ...options.env },
  });
  return { exitCode: result.exitCode, stderr: result.stderr };
}

/** A socket on which nobody listens any more, as a killed process leaves it. */
async function leaveStaleSocket(path: string): Promise<void> {
  await using server = createServer();
  server.listen(`${path}.first`);
  await once(server, 'listening');
  await link(`${path}.first`, path);
}

async function temporaryDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'qshim-s-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

async function modeOf(path: string): Promise<string> {
  return ((await stat(path)).mode & 0o777).toString(8);
}

/** Sends SIGTERM and answers with the exit code. The harness then has nothing left to end. */
async function terminate(daemon: TestDaemon): Promise<number | null> {
  await daemon.kill('SIGTERM');
  return daemon.child.exitCode;
}

/** A daemon whose directory goes with it, whatever the test did to the daemon; its KVM probe is cut short. */
async function withDaemon(options: DaemonOptions, act: (daemon: TestDaemon) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory();
  const daemon = await TestDaemon.start({
    config: { kvm_probe_timeout_ms: KVM_PROBE_MS, ...options.config },
    directory: directory.path,
  });
  const kill = setTimeout(() => daemon.child.kill('SIGKILL'), DAEMON_MAX_MS);
  try {
    await act(daemon);
  } finally {
    await daemon.kill('SIGTERM');
    clearTimeout(kill);
  }
}

async function daemonExit(daemon: TestDaemon): Promise<void> {
  if (daemon.child.exitCode === null && daemon.child.signalCode === null) await once(daemon.child, 'exit');
}

interface HealthAnswer {
  readonly status: string;
}

/** grpc.health.v1, by the definition of the package that serves it. */
class HealthClient implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  }

  async check(service: string): Promise<string> {
    const { path, requestSerialize, responseDeserialize } = method('Check');
    const answer = await call<object>((done) =>
      this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { service }, done),
    );
    return (answer as HealthAnswer).status;
  }

  /** A stream that the server does not end by itself. */
  watch(): { readonly first: Promise<unknown>; readonly end: Promise<unknown> } {
    const { path, requestSerialize, responseDeserialize } = method('Watch');
    const stream = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { service: '' });
    const { promise, resolve } = Promise.withResolvers<unknown>();
    stream.on('error', resolve);
    return { first: once(stream, 'data'), end: promise };
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function method(name: 'Check' | 'Watch') {
  const found = health[name];
  assert.ok(found);
  return found;
}

await describe('the socket', async () => {
  await it('is for its own user only, and so is everything beside it', async () => {
    await withDaemon({}, async (daemon) => {
      assert.equal(await modeOf(daemon.socket), '600');
      assert.equal(await modeOf(join(daemon.directory, 'run')), '700');
      assert.equal(await modeOf(daemon.stateDir), '700');
      for (const name of await readdir(daemon.stateDir)) {
        assert.match(await modeOf(join(daemon.stateDir, name)), /00$/, name);
      }
    });
  });

  await it('replaces the sockets that a killed daemon has left', async () => {
    await withDaemon({}, async (first) => {
      // Not before its probe has ended: a killed daemon removes nothing.
      await until('the probe has ended', async () => (await first.log()).includes('kvm probed'));
      await first.kill('SIGKILL');
      assert.ok((await stat(first.socket)).isSocket());
      const second = await TestDaemon.start({
        directory: first.directory,
        config: { kvm_probe_timeout_ms: KVM_PROBE_MS },
      });
      assert.deepEqual(await second.client.listSandboxes(), []);
      assert.equal(await terminate(second), 0);
    });
  });

  await it('is gone after an orderly end', async () => {
    await withDaemon({}, async (daemon) => {
      assert.equal(await terminate(daemon), 0);
      assert.deepEqual(await readdir(join(daemon.directory, 'run')), []);
      // The lock is free; its file stays, also to tell daemons of before that the directory is none of theirs.
      assert.ok((await stat(join(daemon.stateDir, 'lock.sock'))).isFile());
    });
  });

  await it('is left to a daemon that lives', async () => {
    await withDaemon({}, async (daemon) => {
      const result = await failedStart(daemon.directory, { flags: [`--state-dir=${daemon.directory}/other`] });
      assert.equal(result.exitCode, 1);
      assert.ok(result.stderr.includes(`another daemon listens on ${daemon.socket}`), result.stderr);
      assert.deepEqual(await daemon.client.listSandboxes(), []);
    });
  });

  await it('is left to a stranger that lives, and to what is no socket', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'run/api.sock');
    await mkdir(join(directory.path, 'run'), { mode: 0o700 });
    {
      await using stranger = createServer();
      stranger.listen(path);
      await once(stranger, 'listening');
      const result = await failedStart(directory.path);
      assert.equal(result.exitCode, 1);
      assert.match(result.stderr, /another daemon listens on/);
      assert.ok((await stat(path)).isSocket());
    }
    await writeFile(path, 'precious');
    const result = await failedStart(directory.path);
    assert.equal(result.exitCode, 1);
    assert.ok(result.stderr.includes(`${path} exists and is not a socket`), result.stderr);
    assert.equal(await readFile(path, 'utf8'), 'precious');
  });

  await it('in a directory that this user may not make: refused, with the option that names another', async () => {
    await using directory = await temporaryDirectory();
    // For root, too, nothing can be made below a file.
    await writeFile(join(directory.path, 'file'), '');
    const below = join(directory.path, 'file/below');
    for (const [flag, option, name] of [
      [`--state-dir=${below}`, 'state_dir', 'STATE_DIR'],
      [`--socket=${below}/api.sock`, 'socket', 'SOCKET'],
      [`--containerd-socket=${below}/c.sock`, 'containerd_socket', 'CONTAINERD_SOCKET'],
    ] as const) {
      const { exitCode, stderr } = await failedStart(directory.path, { flags: [flag] });
      assert.equal(exitCode, 1, stderr);
      assert.ok(stderr.includes(`the directory ${below} cannot be used: ENOTDIR`), stderr);
      assert.ok(stderr.includes(`the option ${option} (--${option.replace('_', '-')}, QSHIM_${name})`), stderr);
    }
  });

  await it('is not made in a directory that is open to others', async () => {
    await using directory = await temporaryDirectory();
    const run = join(directory.path, 'run');
    for (const [name, other] of [
      ['run', 's'],
      ['s', 'run'],
    ] as const) {
      await mkdir(join(directory.path, name), { recursive: true });
      for (const mode of [0o701, 0o710, 0o755, 0o777]) {
        await chmod(join(directory.path, name), mode);
        const result = await failedStart(directory.path);
        assert.equal(result.exitCode, 1);
        assert.ok(result.stderr.includes(`directory ${join(directory.path, name)} is open to others`), result.stderr);
        assert.match(result.stderr, /chmod 700 .*, or choose another place with the option (?:socket|state_dir) /);
        // Nobody's mode was changed on their behalf.
        assert.equal(await modeOf(join(directory.path, name)), mode.toString(8));
      }
      await chmod(join(directory.path, name), 0o700);
      if (process.geteuid?.() === 0) {
        await chown(join(directory.path, name), 65_534, 0);
        const result = await failedStart(directory.path);
        assert.equal(result.exitCode, 1);
        assert.ok(result.stderr.includes('belongs to another user (uid 65534); run: chown 0 '), result.stderr);
        await chown(join(directory.path, name), 0, 0);
      }
      await rm(join(directory.path, other), { recursive: true, force: true });
    }
    assert.ok(!(await readdir(directory.path)).includes('run') || (await readdir(run)).length === 0);
  });

  await it('that is stale has one heir, however many come at once, and the others hear who it is', async () => {
    await using stack = new AsyncDisposableStack();
    const directory = stack.use(await temporaryDirectory());
    const rivals = Array.from({ length: RIVALS }, () => {
      const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', LOCK_MAIN], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      const exit = once(child, 'exit');
      stack.defer(async () => {
        child.stdin.end();
        await exit;
      });
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
      return { child, next: async () => String((await lines.next()).value) };
    });
    for (const { next } of rivals) assert.equal(await next(), 'ready');
    for (let round = 0; round < ROUNDS; round += 1) {
      const stateDir = join(directory.path, String(round));
      await mkdir(stateDir, { mode: 0o700 });
      await leaveStaleSocket(join(stateDir, 'lock.sock'));
      for (const { child } of rivals) child.stdin.write(`${stateDir}\n`);
      const answers = await Promise.all(
        rivals.map(async ({ child, next }) => ({
          pid: child.pid,
          ...(JSON.parse(await next()) as { readonly won: boolean; readonly said: string }),
        })),
      );
      const winners = answers.filter(({ won }) => won);
      assert.equal(winners.length, 1, JSON.stringify(answers));
      const expected = `another daemon (pid ${winners[0]?.pid}) has the state directory: it holds the lock ${stateDir}/lock.sock`;
      for (const { won, said } of answers) assert.equal(said, won ? '' : expected);
    }
  });

  await it('of a second daemon does not help it to the state directory of the first', async () => {
    await withDaemon({}, async (daemon) => {
      const result = await failedStart(daemon.directory, { flags: [`--socket=${daemon.directory}/run/second.sock`] });
      assert.equal(result.exitCode, 1);
      const lock = join(daemon.stateDir, 'lock.sock');
      const said = `another daemon (pid ${daemon.child.pid}) has the state directory: it holds the lock ${lock}`;
      assert.ok(result.stderr.includes(said), result.stderr);
      assert.deepEqual(await readdir(join(daemon.directory, 'run')), ['api.sock']);
      assert.deepEqual(await daemon.client.listSandboxes(), []);
    });
  });
});

await describe('options of the daemon', async () => {
  const rows: readonly {
    readonly what: string;
    readonly flags?: readonly string[];
    readonly env?: object;
    readonly file?: string;
    readonly says: readonly string[];
  }[] = [
    { what: 'an unknown flag', flags: ['--colour=red'], says: ['--colour'] },
    { what: 'a flag that is no number', flags: ['--vcpus=many'], says: ['vcpus', '--vcpus'] },
    { what: 'a flag out of range', flags: ['--vcpus=0'], says: ['vcpus', '0', '--vcpus'] },
    { what: 'an empty number', flags: ['--vcpus='], says: ['vcpus', '--vcpus'] },
    { what: 'a relative path', flags: ['--cache-dir=cache'], says: ['cache_dir', '"cache"', '--cache-dir'] },
    { what: 'a socket path that is too long', flags: [`--socket=/${'s'.repeat(107)}`], says: ['socket', '107'] },
    { what: 'no root at all', flags: ['--allowed-roots='], says: ['allowed_roots', '--allowed-roots'] },
    { what: 'an environment out of range', env: { QSHIM_VCPUS: '256' }, says: ['vcpus', '256', 'QSHIM_VCPUS'] },
    { what: 'an unknown level', env: { QSHIM_LOG_LEVEL: 'loud' }, says: ['log_level', '"loud"', 'QSHIM_LOG_LEVEL'] },
    { what: 'an unknown name in the file', file: 'colour = "red"', says: ['colour', 'config.toml', 'not an option'] },
    { what: 'a wrong type in the file', file: 'vcpus = "two"', says: ['vcpus', '"two"', 'config.toml'] },
    { what: 'a file that is no TOML', file: 'vcpus = = 2', says: ['config.toml'] },
  ];
  for (const row of rows) {
    await it(`refuses ${row.what}, and names option and source`, async () => {
      await using directory = await temporaryDirectory();
      const flags = [...(row.flags ?? [])];
      if (row.file !== undefined) {
        await writeFile(join(directory.path, 'config.toml'), row.file);
        flags.push(`--config=${join(directory.path, 'config.toml')}`);
      }
      const { exitCode, stderr } = await failedStart(directory.path, { flags, env: row.env ?? {} });
      assert.equal(exitCode, 2, stderr);
      for (const text of row.says) assert.ok(stderr.includes(text), `${text} is not in: ${stderr}`);
      const left = await readdir(directory.path);
      assert.deepEqual(left, row.file === undefined ? [] : ['config.toml']);
    });
  }

  await it('refuses a file that is not there', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'nothing.toml');
    const { exitCode, stderr } = await failedStart(directory.path, { flags: [`--config=${path}`] });
    assert.equal(exitCode, 2);
    assert.ok(stderr.includes(path), stderr);
  });
});

await describe('SIGTERM', async () => {
  await it('ends held streams with UNAVAILABLE and the daemon with 0', async () => {
    await withDaemon({}, async (daemon) => {
      const { client } = daemon;
      const ends = [client.events.watch({}), client.volumes.watch({}), client.sandboxes.watch({})].map((stream) => {
        const { promise, resolve } = Promise.withResolvers<ServiceError>();
        stream.on('error', resolve);
        stream.on('data', () => undefined);
        return { open: once(stream, 'metadata'), end: promise };
      });
      await Promise.all(ends.map(({ open }) => open));
      daemon.child.kill('SIGTERM');
      for (const { end } of ends) {
        const { code, reason } = decodeRefusal(await end);
        assert.deepEqual({ code, reason }, { code: 'UNAVAILABLE', reason: 'DAEMON_STOPPING' });
      }
      await daemonExit(daemon);
      assert.equal(daemon.child.exitCode, 0);
      assert.doesNotMatch(await daemon.log(), /calls cut off/);
    });
  });

  await it('ends the daemon with 0 when streams do not end by themselves, after drain_timeout_ms', async () => {
    await withDaemon({ config: { drain_timeout_ms: 300 } }, async (daemon) => {
      using client = new HealthClient(daemon.socket);
      const watched = client.watch();
      await watched.first;
      daemon.child.kill('SIGTERM');
      await watched.end;
      await daemonExit(daemon);
      assert.equal(daemon.child.exitCode, 0);
    });
  });

  await it('is not held up by connections that say nothing, or nonsense', async () => {
    await withDaemon({ config: { drain_timeout_ms: 300 } }, async (daemon) => {
      const sockets: Socket[] = [];
      for (const text of ['', 'GET / HTTP/1.1\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']) {
        const socket = connect(daemon.socket);
        socket.on('error', () => undefined);
        await once(socket, 'connect');
        socket.write(text);
        sockets.push(socket);
      }
      assert.deepEqual(await daemon.client.listSandboxes(), []);
      daemon.child.kill('SIGTERM');
      await daemonExit(daemon);
      assert.equal(daemon.child.exitCode, 0);
      for (const socket of sockets) socket.destroy();
    });
  });
});

await describe('what the daemon tells of itself', async () => {
  await it('is its health, by service', async () => {
    await withDaemon({}, async (daemon) => {
      using client = new HealthClient(daemon.socket);
      for (const name of ['', 'qshim.v1.Sandboxes', 'qshim.v1.Volumes', 'qshim.v1.Events']) {
        assert.equal(await client.check(name), 'SERVING', name);
      }
      await assert.rejects(client.check('qshim.v1.Nothing'), { code: status.NOT_FOUND });
    });
  });

  await it('is nothing by reflection, unless that is configured', async () => {
    await withDaemon({}, async (daemon) => {
      using client = new ReflectionClient(daemon.socket);
      await assert.rejects(client.services(), { code: status.UNIMPLEMENTED });
    });
  });

  await it('is all that a client needs to call it, by reflection', async () => {
    await withDaemon({ config: { reflection: 'on' } }, async (daemon) => {
      using client = new ReflectionClient(daemon.socket);
      const services = await client.services();
      for (const name of ['qshim.v1.Events', 'qshim.v1.Sandboxes', 'qshim.v1.Volumes', 'grpc.health.v1.Health']) {
        assert.ok(services.includes(name), `${name} is not among ${services.join(', ')}`);
      }
      assert.deepEqual(await client.call('qshim.v1.Sandboxes', 'List', {}), { sandboxes: [] });
      const error: unknown = await client
        .call('qshim.v1.Volumes', 'Get', { sandbox_id: 'nobody', volume_id: 'v' })
        .catch((problem: unknown) => problem);
      const seen = decodeRefusal(error);
      assert.deepEqual({ code: seen.code, reason: seen.reason }, { code: 'NOT_FOUND', reason: 'SANDBOX_NOT_FOUND' });
      // The request has really carried the fields: the same id in another field is another error.
      assert.equal(seen.metadata['sandboxId'], 'nobody');
    });
  });

  await it('bounds the streams that may be open at once', async () => {
    await withDaemon({ config: { watchers_max: 1 } }, async (daemon) => {
      using second = new ApiClient(daemon.socket);
      const held = daemon.client.events.watch({});
      held.on('error', () => undefined);
      await once(held, 'metadata');
      const refused = second.events.watch({});
      const [error] = (await once(refused, 'error')) as readonly unknown[];
      const { code, reason, metadata } = decodeRefusal(error);
      assert.deepEqual({ code, reason }, { code: 'RESOURCE_EXHAUSTED', reason: 'TOO_MANY_CALLS' });
      assert.equal(metadata['max'], '1');
      held.cancel();
    });
  });
});
