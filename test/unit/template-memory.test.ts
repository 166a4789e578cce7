import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, open, readFile, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isSealed, sealableFile } from '../../src/base/native.ts';
import { QemuProcess, identify } from '../../src/qemu/process.ts';
import { NewMemory, endMemory, openMemory, templateOf, type HeldMemory } from '../../src/template/memory.ts';

const KEY = '0123456789abcdef'.repeat(4);
const BYTES = 65_536;

interface Held extends AsyncDisposable {
  readonly held: HeldMemory;
  readonly mark: string;
}

/** A memory that was sealed, and that a process holds. */
async function sealedMemory(directory: string): Promise<Held> {
  const mark = join(directory, 'mark');
  await writeFile(mark, '');
  using memory = NewMemory.create(KEY, BYTES);
  writeSync(memory.descriptor, 'of the template');
  await memory.seal();
  const held = await memory.hold(mark);
  return { held, mark, [Symbol.asyncDispose]: () => endMemory(held) };
}

/** Another process, with a file as the descriptor that a holder has: whose pid a record may name one day. */
async function stranger(descriptor: number): Promise<AsyncDisposable & { readonly identity: HeldMemory['pid'] }> {
  const child = spawn('/bin/sleep', ['1000'], { stdio: ['ignore', 'ignore', 'ignore', descriptor] });
  await once(child, 'spawn');
  return {
    identity: child.pid ?? 0,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

describe('memory of a template', () => {
  let directory = '';
  // What ends is looked at again and again, and that keeps no process alive.
  let alive: NodeJS.Timeout;

  before(async () => {
    alive = setInterval(() => undefined, 1000);
    directory = await mkdtemp(join(tmpdir(), 'qshim-memory-'));
  });

  after(async () => {
    clearInterval(alive);
    await rm(directory, { recursive: true });
  });

  it('sealed, nobody writes to it, whoever opens it, and however', async () => {
    await using one = await sealedMemory(directory);
    await using file = await openMemory(one.held);
    assert.equal((await file.read(Buffer.alloc(15), 0, 15, 0)).buffer.toString(), 'of the template');
    const writable = openSync(`/proc/self/fd/${file.fd}`, 'r+');
    try {
      assert.throws(() => writeSync(writable, 'x', 0), { code: 'EPERM' });
      assert.throws(() => ftruncateSync(writable, 0), { code: 'EPERM' });
      assert.throws(() => ftruncateSync(writable, BYTES * 2), { code: 'EPERM' });
    } finally {
      closeSync(writable);
    }
    const again = await file.read(Buffer.alloc(15), 0, 15, 0);
    assert.equal(again.buffer.toString(), 'of the template');
  });

  it('its holder has nothing else open, a session of its own, and a name', async () => {
    await using one = await sealedMemory(directory);
    const { pid } = one.held;
    assert.equal(await templateOf(pid), KEY);
    assert.equal(await readlink(`/proc/${pid}/cwd`), '/');
    for (const fd of ['0', '1', '2']) assert.equal(await readlink(`/proc/${pid}/fd/${fd}`), '/dev/null');
    const [, session] = /^\d+ \(.*\) . \d+ \d+ (\d+) /.exec(await readFile(`/proc/${pid}/stat`, 'utf8')) ?? [];
    assert.equal(Number(session), pid);
    const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
    assert.deepEqual(args.slice(3), ['qshim-template-memory', one.mark, '']);
  });

  it('another one, an unsealed one, a foreign process: none of them is taken for it', async () => {
    await using one = await sealedMemory(directory);
    const { held } = one;
    const wrong: readonly (readonly [Partial<HeldMemory>, RegExp])[] = [
      [{ startTicks: held.startTicks + 1 }, /the process that held its memory has ended/],
      [{ hostBoot: 'another' }, /of an earlier boot/],
      [{ inode: String(Number(held.inode) + 1) }, /another file/],
      [{ device: '999999' }, /another file/],
      [{ bytes: String(BYTES + 1) }, /another file/],
      [{ pid: process.pid }, /the process that held its memory has ended/],
    ];
    for (const [change, message] of wrong)
      await assert.rejects(openMemory({ ...held, ...change }), { reason: 'TEMPLATE_UNAVAILABLE', message });
    await (await openMemory(held)).close();

    const unsealed = sealableFile('unsealed');
    ftruncateSync(unsealed, BYTES);
    await using plain = await open(join(directory, 'plain'), 'w+');
    try {
      for (const [fd, message] of [
        [unsealed, /not sealed/],
        [plain.fd, /not sealed/],
      ] as const) {
        await using other = await stranger(fd);
        const its = await identify(other.identity);
        assert.ok(its);
        await using info = await open(`/proc/${its.pid}/fd/3`, 'r');
        const { dev, ino, size } = await info.stat({ bigint: true });
        const record = { ...held, ...its, device: String(dev), inode: String(ino), bytes: String(size) };
        await assert.rejects(openMemory(record), { reason: 'TEMPLATE_UNAVAILABLE', message });
        // Nor is it ended in the place of the holder.
        await endMemory(record);
        assert.deepEqual(await identify(its.pid), its);
      }
    } finally {
      closeSync(unsealed);
    }
  });

  it('a memory that is written to through a mapping cannot be sealed: there is no template then', async () => {
    using memory = NewMemory.create(KEY, BYTES);
    const program = `import mmap,sys;m=mmap.mmap(3,0);print("mapped",flush=True);sys.stdin.read()`;
    const child = spawn('python3', ['-c', program], { stdio: ['pipe', 'pipe', 'ignore', memory.descriptor] });
    assert.ok(child.stdin && child.stdout);
    await once(child.stdout, 'data');
    await assert.rejects(memory.seal(), { reason: 'TEMPLATE_UNAVAILABLE', message: /not sealed: .*EBUSY/ });
    child.stdin.end();
    await once(child, 'exit');
    assert.ok(!isSealed(memory.descriptor));
    await memory.seal();
    assert.ok(isSealed(memory.descriptor));
  });

  it('ended, the holder is gone, with what it had started; a second time nothing happens', async () => {
    const one = await sealedMemory(directory);
    const { pid } = one.held;
    const session = await sessionOf(pid);
    await endMemory(one.held);
    await endMemory(one.held);
    for (const member of session) assert.equal(await identify(member), undefined);
    await assert.rejects(openMemory(one.held), /the process that held its memory has ended/);
  });

  it('once the mark is gone, the holder ends by itself', async () => {
    const one = await sealedMemory(directory);
    const [, waits = 0] = await sessionOf(one.held.pid);
    await rm(one.mark);
    // What it waits for ends now, and not in a minute.
    process.kill(waits, 'SIGKILL');
    const holder = await QemuProcess.adopt(one.held, () => true);
    await holder?.exited;
    assert.equal(await identify(one.held.pid), undefined);
  });
});

/** The holder, and what it has started. */
async function sessionOf(pid: number): Promise<readonly number[]> {
  for (;;) {
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
    const found = children.split(' ').filter((word) => word !== '');
    if (found.length > 0 && (await readdir(`/proc/${pid}/task`)).length === 1) return [pid, ...found.map(Number)];
  }
}
