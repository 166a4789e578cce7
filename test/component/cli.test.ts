/** bin/qshim as a process of its own against a daemon with canned answers. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { FakeApi } from '../support/fake-api.ts';
import { QSHIM, record, run, runJson, start } from '../support/run-qshim.ts';

describe('sandbox commands', () => {
  it('create sends what was given, and only that', async () => {
    await using api = await FakeApi.start();
    const { exitCode, stdout, stderr } = await run(
      ['sandbox', 'create', 'sb1', '--vcpus', '2', '--label', 'a=1', '--label', 'b=x=y', '--kernel', 'k/vmlinuz'],
      { socket: api.socketPath, cwd: tmpdir() },
    );
    assert.equal(exitCode, 0, stderr);
    assert.equal(stderr, '', 'no progress when stderr is no terminal');
    assert.match(stdout.toString(), /^sb1: running, guest agent ready, tcg, QEMU 7\.2\.22 as process 4242/);
    const { spec } = record(api.lastRequest);
    assert.partialDeepStrictEqual(spec, {
      vcpus: 2,
      memoryMib: 0,
      kernel: join(tmpdir(), 'k/vmlinuz'),
      initrd: '',
      labels: { a: '1', b: 'x=y' },
    });
  });

  it('get shows a sheet with state, cause and timings, and JSON with numbers and RFC 3339 times', async () => {
    await using api = await FakeApi.start();
    const { stdout } = await run(['sandbox', 'get', 'sb1'], { socket: api.socketPath });
    const sheet = stdout.toString();
    assert.match(sheet, /^sandbox +sb1$/m);
    assert.match(sheet, /^state +running$/m);
    assert.match(sheet, /^cause +-$/m);
    assert.match(sheet, /^spawn +41\.5 ms$/m);
    const document = record(await runJson(api, 'sandbox', 'get', 'sb1'));
    assert.partialDeepStrictEqual(document, {
      sandboxId: 'sb1',
      state: 'SANDBOX_STATE_RUNNING',
      createdAt: '2026-01-02T03:04:05.678Z',
      qemuPid: 4242,
      cause: null,
      timings: [{ phase: 'spawn', milliseconds: 41.5 }],
    });
  });

  it('list, stop and delete', async () => {
    await using api = await FakeApi.start();
    const listed = await run(['sandbox', 'list', '--label', 'team=storage'], { socket: api.socketPath });
    assert.match(listed.stdout.toString(), /^SANDBOX +STATE.*\nsb1 +running +ready +2 +512 MiB +1\/62 /);
    assert.deepEqual(record(api.lastRequest)['labels'], { team: 'storage' });
    assert.equal((record(await runJson(api, 'sandbox', 'list'))['sandboxes'] as unknown[]).length, 1);
    const stopped = await run(['sb', 'stop', 'sb1', '--graceful-timeout', '1500'], { socket: api.socketPath });
    assert.equal(stopped.stdout.toString(), 'sb1: stopped\n');
    assert.deepEqual({ ...record(api.lastRequest) }, { sandboxId: 'sb1', gracefulTimeoutMs: 1500, force: false });
    const deleted = await run(['sandbox', 'delete', 'sb1', '--force'], { socket: api.socketPath });
    assert.equal(deleted.stdout.toString(), 'sb1: deleted\n');
    assert.deepEqual(await runJson(api, 'sandbox', 'delete', 'sb1'), { notFound: false });
  });

  it('console shows control characters; with --raw and in JSON it has the bytes', async () => {
    await using api = await FakeApi.start();
    const drives = '\u001b]0;title\u0007\u009b31m\u202egnp.exe\r\n\tboot\rlie';
    // Cut in the middle of a character.
    const bytes = Buffer.from(drives);
    api.chunks.push(bytes.subarray(0, 14), bytes.subarray(14), Buffer.from([0xff, 0x0d]));
    const shown = await run(['sandbox', 'console', 'sb1', '--follow'], { socket: api.socketPath });
    assert.equal(shown.exitCode, 0);
    assert.equal(
      shown.stdout.toString(),
      '\\u{1b}]0;title\\u{7}\\u{9b}31m\\u{202e}gnp.exe\n\tboot\\u{d}lie\ufffd\\u{d}',
    );
    assert.deepEqual({ ...record(api.lastRequest) }, { sandboxId: 'sb1', follow: true });
    const raw = await run(['sandbox', 'console', 'sb1', '--raw'], { socket: api.socketPath });
    assert.deepEqual(raw.stdout, Buffer.concat(api.chunks));
    const json = await run(['sandbox', 'console', 'sb1', '--json'], { socket: api.socketPath });
    const chunks = json.stdout.toString().trim().split('\n');
    const data = chunks.map((line) => Buffer.from((JSON.parse(line) as { data: string }).data, 'base64'));
    assert.deepEqual(Buffer.concat(data), Buffer.concat(api.chunks));
  });
});

describe('exec', () => {
  const everyByte = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

  it('passes bytes both ways, arguments that look like options, and the exit code', async () => {
    await using api = await FakeApi.start();
    api.answer('Sandboxes.Exec', (request) => ({
      exitCode: 42,
      standardOutput: record(request)['standardInput'],
      standardError: Buffer.from([0xfe, 0x00]),
    }));
    const { exitCode, stdout, stderr } = await run(
      ['sandbox', 'exec', 'sb1', '--stdin', '--env', 'A=1', '--env', 'B=2', '--', '/bin/cat', '--json', '--', '-x'],
      { socket: api.socketPath, input: everyByte },
    );
    assert.equal(exitCode, 42);
    assert.deepEqual(stdout, everyByte);
    assert.equal(stderr, Buffer.from([0xfe, 0x00]).toString('utf8'));
    assert.partialDeepStrictEqual(record(api.lastRequest), {
      path: '/bin/cat',
      arguments: ['--json', '--', '-x'],
      environment: ['A=1', 'B=2'],
    });
  });

  it('output of some megabytes arrives whole', async () => {
    await using api = await FakeApi.start();
    const standardOutput = Buffer.alloc(8 * 1024 * 1024, everyByte);
    api.answer('Sandboxes.Exec', () => ({ exitCode: 0, standardOutput, truncated: true }));
    const { exitCode, stdout, stderr } = await run(['sandbox', 'exec', 'sb1', '--', '/bin/x'], {
      socket: api.socketPath,
    });
    assert.equal(exitCode, 0);
    assert.ok(stdout.equals(standardOutput));
    assert.match(stderr, /not complete/);
  });

  it('a signal is 128 + its number, and JSON carries the output in base64', async () => {
    await using api = await FakeApi.start();
    api.answer('Sandboxes.Exec', () => ({ signal: 9, standardOutput: everyByte }));
    const { exitCode, stdout } = await run(['--json', 'sandbox', 'exec', 'sb1', '/bin/x'], { socket: api.socketPath });
    assert.equal(exitCode, 137);
    assert.partialDeepStrictEqual(record(JSON.parse(stdout.toString())), {
      signal: 9,
      standardOutput: everyByte.toString('base64'),
      truncated: false,
    });
  });
});

describe('volume commands', () => {
  it('attach makes paths absolute and prints what was seen', async () => {
    await using api = await FakeApi.start();
    const { stdout, exitCode } = await run(
      ['volume', 'attach', 'sb1', 'vol1', '--raw', './d/../data.img', '--cache', 'none', '--timeout', '900'],
      { socket: api.socketPath, cwd: tmpdir() },
    );
    assert.equal(exitCode, 0);
    assert.match(stdout.toString(), /^vol1 of sb1: attached, as \/dev\/vdb, .*seen by virtio-status and guest-agent/);
    assert.partialDeepStrictEqual(record(api.lastRequest), {
      sandboxId: 'sb1',
      volumeId: 'vol1',
      timeoutMs: 900,
      spec: { rawFile: { path: join(tmpdir(), 'data.img') }, cache: 'CACHE_MODE_NONE', source: 'rawFile' },
    });
  });

  it('get and list in both shapes; 64-bit integers are numbers', async () => {
    await using api = await FakeApi.start();
    const sheet = (await run(['volume', 'get', 'sb1', 'vol1'], { socket: api.socketPath })).stdout.toString();
    assert.match(sheet, /^evidence +virtio-status, guest-agent$/m);
    assert.match(sheet, /^attached +2026-01-02T03:04:06\.000001Z$/m);
    assert.match(sheet, /^driver +87\.3 ms$/m);
    const document = record(await runJson(api, 'volume', 'get', 'sb1', 'vol1'));
    assert.equal(document['sizeBytes'], 9_007_199_254_740_991);
    assert.equal(document['removedAt'], null);
    const listed = await run(['volume', 'list', 'sb1'], { socket: api.socketPath });
    assert.match(listed.stdout.toString(), /^SANDBOX +VOLUME .*\nsb1 +vol1 +attached +\/dev\/vdb /);
    assert.equal(record(api.lastRequest)['sandboxId'], 'sb1');
    assert.equal((record(await runJson(api, 'volume', 'list'))['volumes'] as unknown[]).length, 1);
    assert.equal(record(api.lastRequest)['sandboxId'], '');
  });

  it('resize takes sizes of more than 32 bits, relative ones, and what the source has', async () => {
    await using api = await FakeApi.start();
    const GIB = 1024 ** 3;
    api.answer('Volumes.Get', () => ({ sandboxId: 'sb1', volumeId: 'vol1', sizeBytes: 6 * GIB }));
    for (const [given, sent] of [
      ['8589934592', 8 * GIB],
      ['5G', 5 * GIB],
      ['+1.5G', 7.5 * GIB],
      ['max', 0],
    ] as const) {
      const { exitCode, stderr, stdout } = await run(['volume', 'resize', 'sb1', 'vol1', given], {
        socket: api.socketPath,
      });
      assert.doesNotMatch(stdout.toString(), / ms/, 'the phases of the attach are no news');
      assert.equal(exitCode, 0, stderr);
      assert.equal(record(api.lastRequest)['sizeBytes'], sent, given);
    }
    const wrong = await run(['volume', 'resize', 'sb1', 'vol1', '5GB'], { socket: api.socketPath });
    assert.equal(wrong.exitCode, 2);
    assert.match(wrong.stderr, /powers of 1024/);
  });

  it('detach that the guest refuses exits with 5 and says how to look again', async () => {
    await using api = await FakeApi.start();
    api.fail('Volumes.Detach', {
      code: 'DEADLINE_EXCEEDED',
      message: 'the guest has not let go of vol1 yet',
      reason: 'GUEST_HOLDS_VOLUME',
    });
    const { exitCode, stderr } = await run(['volume', 'detach', 'sb1', 'vol1', '--force'], { socket: api.socketPath });
    assert.equal(exitCode, 5);
    assert.match(
      stderr,
      /^qshim: the guest has not let go of vol1 yet \(GUEST_HOLDS_VOLUME\)\nhint: .*qshim volume get sb1 vol1/,
    );
    assert.equal(record(api.lastRequest)['force'], true);
  });
});

describe('watch', () => {
  it('prints a line for each event and passes the filter on', async () => {
    await using api = await FakeApi.start();
    const { stdout, exitCode } = await run(['watch', '--sandbox', 'sb1', '--after', '6'], { socket: api.socketPath });
    assert.equal(exitCode, 0);
    const lines = stdout.toString().trimEnd().split('\n');
    assert.equal(lines.length, 2);
    assert.match(lines[0] ?? '', /^2026-01-02T03:04:05\.000Z +7 {2}sb1 +sandbox\.running$/);
    assert.match(lines[1] ?? '', / 8 {2}sb1\/vol1#3 +volume\.attached +\[driver 87\.3 ms\]$/);
    assert.deepEqual(
      { ...record(api.lastRequest) },
      {
        ...{ sandboxId: 'sb1', afterSequence: 6, afterEpoch: '', allRetained: false },
      },
    );
    await run(['watch', '--all'], { socket: api.socketPath });
    assert.deepEqual(
      { ...record(api.lastRequest) },
      {
        ...{ sandboxId: '', afterSequence: 0, afterEpoch: '', allRetained: true },
      },
    );
    await run(['watch', '--after', '6', '--epoch', 'e1'], { socket: api.socketPath });
    assert.deepEqual([record(api.lastRequest)['afterSequence'], record(api.lastRequest)['afterEpoch']], [6, 'e1']);
    const both = await run(['watch', '--all', '--after', '6'], { socket: api.socketPath });
    assert.equal(both.exitCode, 2);
  });

  it('--json prints one document a line', async () => {
    await using api = await FakeApi.start();
    const { stdout } = await run(['watch', '--json'], { socket: api.socketPath });
    const events = stdout
      .toString()
      .trimEnd()
      .split('\n')
      .map((line) => record(JSON.parse(line)));
    assert.deepEqual(
      events.map(({ sequence }) => sequence),
      [7, 8],
    );
    assert.equal(events[1]?.['time'], '2026-01-02T03:04:06.005Z');
  });

  it('Ctrl-C ends it with 130', async () => {
    await using api = await FakeApi.start();
    api.keepStreamsOpen = true;
    const child = start(['--socket', api.socketPath, 'watch']);
    await once(child.stdout, 'data');
    child.kill('SIGINT');
    assert.equal((await child).exitCode, 130);
  });

  it('a reader that leaves ends it quietly', async () => {
    await using api = await FakeApi.start();
    api.answer('Sandboxes.Exec', () => ({ exitCode: 0, standardOutput: Buffer.alloc(4 * 1024 * 1024) }));
    const child = start(['--socket', api.socketPath, 'sandbox', 'exec', 'sb1', '/bin/yes']);
    child.stdout.once('data', () => child.stdout.destroy());
    const { exitCode, stderr } = await child;
    assert.equal(exitCode, 141);
    assert.equal(stderr, '');
  });
});

describe('around the commands', () => {
  it('doctor reports each check and the daemon', async () => {
    await using api = await FakeApi.start();
    const { exitCode, stdout } = await run(['doctor', '--json'], { socket: api.socketPath });
    const findings = record(JSON.parse(stdout.toString()))['findings'] as { check: string; status: string }[];
    for (const check of ['configuration', 'qemu', 'guest kernel', 'state folder', 'memory', 'loop devices']) {
      assert.ok(
        findings.some((finding) => finding.check === check),
        check,
      );
    }
    assert.deepEqual(
      findings.filter(({ check }) => check === 'daemon').map(({ status }) => status),
      ['ok'],
    );
    assert.equal(exitCode, findings.some(({ status }) => status === 'failure') ? 1 : 0);
  });

  it('health says what the daemon says of itself, and its exit code is for supervisors', async () => {
    await using api = await FakeApi.start();
    const well = await run(['health'], { socket: api.socketPath });
    assert.deepEqual([well.exitCode, well.stdout.toString(), well.stderr], [0, 'SERVING\n', '']);
    api.health.setStatus('', 'NOT_SERVING');
    const ill = await run(['health', '--json'], { socket: api.socketPath });
    assert.deepEqual([ill.exitCode, JSON.parse(ill.stdout.toString())], [1, { status: 'NOT_SERVING' }]);
    const nobody = await run(['health'], { socket: `${api.socketPath}.none` });
    assert.equal(nobody.exitCode, 6);
  });

  it('__complete offers commands, options, values and ids', async () => {
    await using api = await FakeApi.start();
    const offered = async (...words: string[]): Promise<string[]> => {
      const { stdout } = await run(['__complete', ...words], { socket: api.socketPath });
      return stdout.toString().split('\n').slice(0, -1);
    };
    assert.deepEqual(await offered('sandbox', 's'), ['start', 'stop']);
    assert.deepEqual(await offered('volume', 'attach', 'sb1', 'v', '--aio', 'n'), ['native']);
    assert.deepEqual(await offered('volume', 'detach', ''), ['sb1']);
    assert.deepEqual(await offered('volume', 'detach', 'sb1', 'v'), ['vol1']);
  });

  it('the launcher works through symbolic links', async () => {
    await using cleanup = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'qshim cli '));
    cleanup.defer(() => rm(directory, { recursive: true, force: true }));
    await symlink(QSHIM, join(directory, 'first'));
    await symlink('first', join(directory, 'second'));
    const { stdout } = await execa(join(directory, 'second'), ['--version']);
    assert.match(stdout, /^\d+\.\d+\.\d+$/);
  });

  it('the launchers say what they need where there is no Node 24', async () => {
    await using cleanup = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'qshim-cli-'));
    cleanup.defer(() => rm(directory, { recursive: true, force: true }));
    const tools = join(directory, 'tools');
    await mkdir(tools);
    for (const tool of ['dirname', 'basename', 'readlink']) await symlink(join('/usr/bin', tool), join(tools, tool));
    await writeFile(join(tools, 'node'), '#!/bin/sh\necho v20.19.0\n', { mode: 0o755 });
    await mkdir(join(directory, 'bin'));
    for (const name of ['qshim', 'qshimd']) {
      const launcher = join(directory, 'bin', name);
      await copyFile(join(QSHIM, '..', name), launcher);
      const { exitCode, stderr } = await execa(launcher, [], { reject: false, extendEnv: false, env: { PATH: tools } });
      assert.equal(exitCode, 1);
      assert.match(stderr, new RegExp(`^${name}: needs Node\\.js 24 or newer`));
    }
  });
});
