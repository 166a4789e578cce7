import assert from 'node:assert/strict';
import { mkdtemp, open, readFile, readdir, rm, stat } from 'node:fs/promises';
import { constants } from 'node:os';
import { after, before, describe, it } from 'node:test';
import { asBrokenQemu, brokenQemuMissing, opening, type Attempt } from '../support/broken-qemu.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { endHoldersBelow } from '../support/template-holders.ts';

const skip = brokenQemuMissing() || (await realVmSkipReason());
const MEMORY_MIB = 256;
const MEMORY_BYTES = MEMORY_MIB * 1_048_576;
const PAGE_BYTES = 4096;
/** All over the memory: what a guest has not written to since it was cloned is the template's. */
const OFFSETS = Array.from({ length: 16 }, (_, index) => (index * MEMORY_BYTES) / 16 + 5 * PAGE_BYTES);
const MARK = 'written-by-a-broken-qemu';
const O_RDWR = 2;
const PUNCH_HOLE_KEEP_SIZE = 3;
const F_ADD_SEALS = 1033;

/** Every descriptor that a QEMU has of its template's memory. */
async function memoryDescriptors(pid: number): Promise<readonly number[]> {
  const found: number[] = [];
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const facts = await stat(`/proc/${pid}/fd/${fd}`).catch(() => undefined);
    if (facts?.isFile() === true && facts.size === MEMORY_BYTES) found.push(Number(fd));
  }
  return found;
}

/** Every way to change a file by its descriptor. @param name of the descriptor, for the attempts */
function changing(name: string, fd: string): Readonly<Record<string, string>> {
  const writes = OFFSETS.map((offset): readonly [string, string] => [
    `${name}.write.${offset}`,
    `((long (*)(int, const char *, unsigned long, long))pwrite64)(${fd}, "${MARK}", ${MARK.length}, ${offset})`,
  ]);
  return {
    ...Object.fromEntries(writes),
    [`${name}.map`]: `((long (*)(long, long, int, int, int, long))mmap)(0, ${PAGE_BYTES}, 3, 1, ${fd}, 0)`,
    [`${name}.hole`]: `((int (*)(int, int, long, long))fallocate64)(${fd}, ${PUNCH_HOLE_KEEP_SIZE}, 0, ${PAGE_BYTES})`,
    [`${name}.grow`]: `((int (*)(int, long))ftruncate64)(${fd}, ${MEMORY_BYTES + PAGE_BYTES})`,
    [`${name}.seals`]: `((int (*)(int, int, int))fcntl64)(${fd}, ${F_ADD_SEALS}, 0)`,
    [`${name}.shrink`]: `((int (*)(int, long))ftruncate64)(${fd}, ${MEMORY_BYTES - PAGE_BYTES})`,
  };
}

/** What code in a QEMU tries with each descriptor of the memory, and with each opened once more. */
function attempts(descriptors: readonly number[]): Readonly<Record<string, string>> {
  const all = descriptors.map((fd) => ({
    [`open.${fd}`]: `($opened${fd} = ${opening(`/proc/self/fd/${fd}`, O_RDWR)})`,
    ...changing(`given.${fd}`, String(fd)),
    ...changing(`opened.${fd}`, `$opened${fd}`),
  }));
  return Object.assign({}, ...all) as Readonly<Record<string, string>>;
}

/** What a clone's guest would read at those places. */
async function seen(pid: number): Promise<readonly string[]> {
  const maps = await readFile(`/proc/${pid}/maps`, 'utf8');
  const parts = [...maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw-p ([0-9a-f]+) \S+ [1-9]\d* +(\S.*)$/gm)]
    .map(([, start = '', end = '', offset = '', path = '']) => ({
      ...{ start: Number(`0x${start}`), end: Number(`0x${end}`), offset: Number(`0x${offset}`), path },
    }))
    .filter(({ path }) => /\/memory$|memfd:qshim-template-/.test(path));
  assert.equal(
    parts.reduce((sum, { start, end }) => sum + end - start, 0),
    MEMORY_BYTES,
    maps,
  );
  await using memory = await open(`/proc/${pid}/mem`, 'r');
  const found: string[] = [];
  for (const wanted of OFFSETS) {
    const part = parts.find(({ start, end, offset }) => wanted >= offset && wanted < offset + end - start);
    const position = (part?.start ?? 0) + wanted - (part?.offset ?? 0);
    found.push((await memory.read(Buffer.alloc(MARK.length), 0, MARK.length, position)).buffer.toString('latin1'));
  }
  return found;
}

describe('the memory of a template, and code that has broken out into the QEMU of one of its clones', { skip }, () => {
  let templates = '';

  before(async () => {
    templates = await mkdtemp('/dev/shm/qshim-broken-');
  });

  after(async () => {
    await endHoldersBelow(templates);
    await rm(templates, { recursive: true });
  });

  for (const confine of ['off', 'degraded'] as const) {
    it(`confine = ${confine}: it changes nothing, and no other clone reads what it has tried to write`, async () => {
      const config = { confine, template: 'required', templates_dir: templates };
      await using daemon = await TestDaemon.start({ config });
      const spec = { memoryMib: MEMORY_MIB, accelerator: 'ACCELERATOR_TCG' as const };
      const broken = await daemon.client.createSandbox({ sandboxId: 'broken', spec });
      const beside = await daemon.client.createSandbox({ sandboxId: 'beside', spec });
      assert.equal(broken.start?.kind, 'START_KIND_CLONE');
      assert.equal(broken.start.templateId, beside.start?.templateId);
      const descriptors = await memoryDescriptors(broken.qemuPid);
      assert.ok(descriptors.length > 0);
      const played = await asBrokenQemu(broken.qemuPid, attempts(descriptors));
      // Whoever runs already, and whoever starts later.
      assert.deepEqual(
        (await seen(beside.qemuPid)).filter((text) => text === MARK),
        [],
        'a clone beside it',
      );
      const later = await daemon.client.createSandbox({ sandboxId: 'later', spec });
      assert.equal(later.start?.templateId, broken.start.templateId);
      assert.deepEqual(
        (await seen(later.qemuPid)).filter((text) => text === MARK),
        [],
        'a clone that starts later',
      );
      assertNothingWorked(played);
      for (const id of ['beside', 'later']) assert.equal(await daemon.client.guest(id, 'hostname'), `${id}\n`);
    });
  }
});

/** Opening works, for QEMU needs it. Nothing else does, and what was opened for writing is refused as sealed. */
function assertNothingWorked(played: Readonly<Record<string, Attempt>>): void {
  for (const [name, { result, errno }] of Object.entries(played)) {
    if (name.startsWith('open.')) {
      assert.ok(result >= 0, `${name} came to ${result}`);
      continue;
    }
    assert.equal(result, -1, `${name} came to ${result}`);
    if (name.startsWith('opened.')) assert.equal(errno, constants.errno.EPERM, `${name}: errno ${errno}`);
  }
}
