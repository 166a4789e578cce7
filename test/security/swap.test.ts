import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** "The path of a source swapped between the look and QEMU's open: the guest read a file outside the roots, 3 of 9." */

const TRIES = 1000;
/** Paths that are swapped all the time, each by a process: more would leave the daemon no CPU, and try less. */
const PATHS = 2;
const MIB = 1024 * 1024;
const SWAPPER = join(import.meta.dirname, '../support/swapper-main.ts');
const skip = await realVmSkipReason();

/** What a process has open, by device and inode. */
async function openFiles(pid: number): Promise<ReadonlySet<string>> {
  const names = await readdir(`/proc/${pid}/fd`);
  const found = await Promise.all(names.map((name) => stat(`/proc/${pid}/fd/${name}`).catch(() => undefined)));
  return new Set(found.flatMap((each) => (each === undefined ? [] : [`${each.dev}:${each.ino}`])));
}

await it(
  `a path that is swapped all the time, ${TRIES} tries: QEMU never has the file outside the roots`,
  { skip, timeout: 890_000 },
  async () => {
    const daemon = await TestDaemon.start();
    await using stack = new AsyncDisposableStack();
    stack.use(daemon);
    const { client } = daemon;
    const outside = join(daemon.directory, 'outside.raw');
    await daemon.rawFile('../outside.raw', 2 * MIB);
    const { dev, ino } = await stat(outside);
    const secret = `${dev}:${ino}`;
    const volumes: { readonly volumeId: string; readonly spec: { readonly rawFile: { readonly path: string } } }[] = [];
    for (let index = 0; index < PATHS; index += 1) {
      const path = join(daemon.volumeDir, `v${index}.raw`);
      const inside = await daemon.rawFile(`inside${index}.raw`, MIB);
      const swapper = spawn(process.execPath, [SWAPPER, path, inside, outside], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      stack.defer(async () => {
        swapper.kill('SIGKILL');
        if (swapper.exitCode === null && swapper.signalCode === null) await once(swapper, 'exit');
      });
      await once(swapper.stdout, 'data');
      volumes.push({ volumeId: `v${index}`, spec: { rawFile: { path } } });
    }
    const { qemuPid } = await client.createSandbox({ sandboxId: 'vm' });
    const outcomes = new Map<string, number>();
    for (let tries = 0; tries < TRIES; tries += volumes.length) {
      const results = await client.attachMany({ sandboxId: 'vm', volumes });
      assert.ok(!(await openFiles(qemuPid)).has(secret), `try ${tries}: QEMU has the file outside the roots`);
      const attached: string[] = [];
      for (const { volumeId, problem } of results) {
        const outcome = problem?.reason ?? 'ATTACHED';
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        if (problem === null) attached.push(volumeId);
      }
      if (attached.length > 0) await client.detachMany({ sandboxId: 'vm', volumeIds: attached, force: true });
    }
    assert.ok((outcomes.get('ATTACHED') ?? 0) > 0, `some tries met the file itself: ${JSON.stringify([...outcomes])}`);
    assert.ok((outcomes.get('OUTSIDE_ALLOWED_ROOTS') ?? 0) > 0, 'and some the link');
  },
);
