import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { guestDirectory } from '../../scripts/guest/build.ts';
import { buildPrograms, compilerVersion, programNames } from '../../scripts/guest/programs.ts';
import {
  BUFFER_ADDRESS,
  BUFFER_BYTES,
  PLAYER_HELLO,
  PlayerMessage,
  readReply,
  REPLY_BYTES,
  SYSCALL,
  type PlayerReply,
} from '../../src/guest/player.ts';

/**
 * The programs for guests that are written in C, as files and on this host; guests run them in the tests of clones and
 * events.
 */
const built = join(guestDirectory, 'programs');
const skip = !existsSync(built)
  ? 'the programs are not built (npm run guest)'
  : process.arch !== 'x64' && 'only x86-64 Linux runs them';
/** They are small: nothing of a library is in them. */
const BYTES_MAX = { player: 2048, 'qshim-uevents': 6144 } as const;
const O_RDWR = 2;
const O_WRONLY = 1;
const EBADF = 9;

/** A directory that goes with the test. */
async function scratch(stack: AsyncDisposableStack): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-programs-'));
  stack.defer(() => rm(directory, { recursive: true }));
  return directory;
}

/**
 * Runs the player on a file in the place of its port: its greeting goes over the first bytes, it reads the message
 * behind them, answers behind that, and ends at the end of the file.
 */
async function play(message: PlayerMessage): Promise<{ readonly greeting: string; readonly reply: PlayerReply }> {
  await using stack = new AsyncDisposableStack();
  const path = join(await scratch(stack), 'port');
  const bytes = message.bytes();
  await writeFile(path, Buffer.concat([Buffer.alloc(PLAYER_HELLO.length), bytes]));
  const { exitCode } = await execa(join(built, 'player'), [path], { reject: false });
  assert.equal(exitCode, 1);
  const after = await readFile(path);
  const replyAt = PLAYER_HELLO.length + bytes.length;
  assert.equal(after.length, replyAt + REPLY_BYTES);
  return { greeting: after.toString('latin1', 0, PLAYER_HELLO.length), reply: readReply(after.subarray(replyAt)) };
}

describe('programs for guests', { skip }, () => {
  it('two builds give the same bytes, wherever, and whatever the umask', async (t) => {
    if ((await compilerVersion()) === undefined) {
      t.skip('there is no gcc');
      return;
    }
    await using stack = new AsyncDisposableStack();
    const directory = await scratch(stack);
    const umask = process.umask(0o077);
    stack.defer(() => {
      process.umask(umask);
    });
    for (const place of ['one', 'a/longer/path/to/another']) {
      await buildPrograms(join(directory, place));
      for (const name of programNames) {
        const bytes = await readFile(join(directory, place, name));
        assert.deepEqual(bytes, await readFile(join(built, name)), `${name} in ${place}`);
      }
    }
  });

  for (const name of programNames) {
    it(`${name} needs no library, is small, and ends with 1 when it has no port`, async () => {
      const path = join(built, name);
      const bytes = await readFile(path);
      assert.ok(bytes.length < BYTES_MAX[name], `${bytes.length} bytes`);
      const headers = programHeaders(bytes);
      const [LOAD, STACK] = [1, 0x6474_e551];
      assert.deepEqual(
        headers.map(({ type }) => type),
        [LOAD, LOAD, STACK],
        'no interpreter, nothing dynamic',
      );
      assert.ok(!headers.some(({ flags }) => (flags & 3) === 3), 'nothing is both written and run');
      assert.equal((await execa(path, [], { reject: false })).exitCode, 1);
      assert.equal((await execa(path, ['/nonexistent/port'], { reject: false })).exitCode, 1);
    });
  }

  it('the memory of the player is where messages point to', async () => {
    const [, memory] = programHeaders(await readFile(join(built, 'player')));
    assert.deepEqual([memory?.address, memory?.bytes], [BUFFER_ADDRESS, BUFFER_BYTES]);
  });

  it('the player does all that a message says, and gives back what it is asked for', async () => {
    await using stack = new AsyncDisposableStack();
    const file = join(await scratch(stack), 'file');
    await writeFile(file, '');
    const message = new PlayerMessage();
    const sample = message.reply(16);
    message.call(SYSCALL.getrandom, [sample.address, 16, 0]);
    message.open(file, O_WRONLY);
    message.call(SYSCALL.write, [0, message.text('written'), 7]);
    const { greeting, reply } = await play(message);
    assert.equal(greeting, PLAYER_HELLO);
    assert.deepEqual([reply.callsLeft, reply.lastResult], [0, 7]);
    assert.notDeepEqual(reply.bytes.subarray(sample.offset, sample.offset + 16), Buffer.alloc(16));
    assert.equal(await readFile(file, 'utf8'), 'written');
  });

  it('it stops at the first call that fails, and tells how far it came', async () => {
    await using stack = new AsyncDisposableStack();
    const file = join(await scratch(stack), 'file');
    await (await open(file, 'w')).close();
    const message = new PlayerMessage();
    message.open(file, O_RDWR);
    message.call(SYSCALL.write, [0, message.text('once'), 4]);
    message.call(SYSCALL.close, [-1]);
    message.open(file, O_RDWR);
    message.call(SYSCALL.write, [0, message.text('more than once'), 14]);
    const { reply } = await play(message);
    assert.deepEqual([reply.callsLeft, reply.lastResult], [3, -EBADF]);
    assert.equal(await readFile(file, 'utf8'), 'once');
  });
});

interface ProgramHeader {
  readonly type: number;
  /** 1: run, 2: written, 4: read. */
  readonly flags: number;
  readonly address: number;
  readonly bytes: number;
}

/** Elf64_Phdr (elf(5)). */
function programHeaders(elf: Buffer): readonly ProgramHeader[] {
  const first = Number(elf.readBigUInt64LE(32));
  return Array.from({ length: elf.readUInt16LE(56) }, (_, index) => {
    const at = first + index * elf.readUInt16LE(54);
    return {
      type: elf.readUInt32LE(at),
      flags: elf.readUInt32LE(at + 4),
      address: Number(elf.readBigUInt64LE(at + 16)),
      bytes: Number(elf.readBigUInt64LE(at + 40)),
    };
  });
}
