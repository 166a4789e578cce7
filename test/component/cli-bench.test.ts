/** `qshim bench volume` against a daemon with canned answers, whose guest has a fio that says what the test says. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FakeApi, VOLUME } from '../support/fake-api.ts';
import { record, run } from '../support/run-qshim.ts';

const SIDE = { iops: 500, bw_bytes: 2_048_000, total_ios: 500, clat_ns: { mean: 2_000_000 } };
const FIO = JSON.stringify({ jobs: [{ error: 0, read: SIDE, write: SIDE }] });
const MOUNTED = {
  ...VOLUME,
  evidence: ['guest-mount'],
  spec: { rawFile: { path: '/v/data.img' }, mount: { fsType: 'ext4', mountPoint: '/mnt/v' } },
};

/** Answers each command of the guest's by its first word, and keeps them all. */
function guest(api: FakeApi, answers: Readonly<Record<string, { exitCode: number; text?: string }>>): string[] {
  const commands: string[] = [];
  api.answer('Sandboxes.Exec', (request) => {
    const { path, arguments: args } = record(request);
    const words = [String(path), ...(args as readonly string[])];
    commands.push(words.join(' '));
    const { exitCode = 0, text = '' } = answers[words.includes('--version') ? '--version' : (words[0] ?? '')] ?? {};
    return { exitCode, standardOutput: Buffer.from(text) };
  });
  return commands;
}

describe('bench volume', () => {
  it('runs all jobs on a file where the volume is mounted, removes it, and draws', async () => {
    await using api = await FakeApi.start();
    api.answer('Volumes.Get', () => MOUNTED);
    const commands = guest(api, { fio: { exitCode: 0, text: FIO } });
    const directory = await mkdtemp(join(tmpdir(), 'qshim-bench-cli-'));
    const svg = join(directory, 'out.svg');
    try {
      const { stdout, stderr, exitCode } = await run(
        ['bench', 'volume', 'sb1', 'vol1', '--seconds', '2', '--svg', svg],
        {
          socket: api.socketPath,
        },
      );
      assert.deepEqual([exitCode, stderr], [0, '']);
      const lines = stdout.toString().trimEnd().split('\n');
      assert.deepEqual(
        lines.slice(1).map((line) => line.split('  ')[0]),
        ['randread 4k', 'randwrite 4k', 'seqread 1M', 'seqwrite 1M'],
      );
      assert.match(await readFile(svg, 'utf8'), /^<svg .*<\/svg>\n$/s);
    } finally {
      await rm(directory, { recursive: true });
    }
    const [file = ''] = /\/mnt\/v\/\.qshim-bench-[0-9a-f]+/.exec(commands[1] ?? '') ?? [];
    assert.equal(commands.filter((command) => command.includes(`--filename=${file} `)).length, 4);
    assert.equal(commands.at(-1), `rm -f ${file}`);
  });

  it('removes the file too when fio fails', async () => {
    await using api = await FakeApi.start();
    api.answer('Volumes.Get', () => MOUNTED);
    const commands = guest(api, { fio: { exitCode: 1 } });
    const { stderr, exitCode } = await run(['bench', 'volume', 'sb1', 'vol1'], { socket: api.socketPath });
    assert.match(stderr, /BENCH_FAILED/);
    assert.equal(exitCode, 1);
    assert.match(commands.at(-1) ?? '', /^rm -f \/mnt\/v\/\.qshim-bench-/);
  });

  it('only reads the disk itself; writes to one that nobody uses, when told to', async () => {
    await using api = await FakeApi.start();
    const commands = guest(api, { fio: { exitCode: 0, text: FIO } });
    await run(['bench', 'volume', 'sb1', 'vol1'], { socket: api.socketPath });
    const jobs = commands.filter((command) => command.includes('--filename=/dev/vdb'));
    assert.deepEqual([jobs.length, jobs.every((job) => job.endsWith('--readonly'))], [2, true]);
    commands.length = 0;
    await run(['bench', 'volume', 'sb1', 'vol1', '--write-device'], { socket: api.socketPath });
    assert.deepEqual(
      commands.map((command) => command.split(' ')[0]),
      ['fio', 'cat', 'find', 'fio', 'fio', 'fio', 'fio'],
    );
  });

  it('writes to no disk that is in use, or of which the guest does not say', async () => {
    for (const cat of [{ exitCode: 0, text: '/dev/vdb1 /mnt ext4 rw 0 0\n' }, { exitCode: 1 }]) {
      await using api = await FakeApi.start();
      const commands = guest(api, { fio: { exitCode: 0, text: FIO }, cat });
      const { stderr } = await run(['bench', 'volume', 'sb1', 'vol1', '--write-device'], { socket: api.socketPath });
      assert.match(stderr, /BENCH_REFUSED/);
      assert.equal(
        commands.some((command) => command.includes('--filename')),
        false,
      );
    }
  });

  it('says that the guest has no fio, and measures nothing', async () => {
    await using api = await FakeApi.start();
    const commands = guest(api, { '--version': { exitCode: 127 } });
    const { stderr } = await run(['bench', 'volume', 'sb1', 'vol1', '--fio', 'chroot /t fio'], {
      socket: api.socketPath,
    });
    assert.match(stderr, /the guest has no fio \(chroot \/t fio\) \(FIO_NOT_IN_GUEST\)/);
    assert.deepEqual(commands, ['chroot /t fio --version']);
  });
});
