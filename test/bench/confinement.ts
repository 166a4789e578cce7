import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import { BWRAP, cellArguments } from '../../src/confine/command.ts';
import { lookAtWalls } from '../../src/confine/host.ts';
import { qemuArguments } from '../../src/qemu/argv.ts';
import { sandboxFiles } from '../../src/qemu/files.ts';
import { cellLaunch, connectQmp } from '../../src/template/vm.ts';
import { bareQemuBinary } from '../support/bare-qemu.ts';
import { cellsFor } from '../support/cells.ts';
import { START_TIMEOUT_MS, testLaunch } from '../support/template-vm.ts';
import { Samples, median, ratio, type Section } from './figures.ts';
import { timed, type Bench } from './rig.ts';

const UID = 1_900_000_000;
const TRUE = '/usr/bin/true';
const UUID = '00000000-0000-4000-8000-000000000000';

/** What confinement costs a start: QEMU to its greeting, in a cell and without one, and the launchers with nothing. */
export async function confinement(bench: Bench): Promise<Section> {
  const samples = new Samples();
  const plain = await cellsFor({ confine: 'off', qemu_binary: bareQemuBinary, qemu_allocator: 'system' });
  const confined = await cellsFor({ confine: 'degraded', qemu_binary: bareQemuBinary, qemu_allocator: 'system' });
  const { layout, missing } = await lookAtWalls({ qemuBinary: bareQemuBinary, allocator: 'system', uid: UID });
  if (layout === undefined) throw new Error(`nothing to measure: ${JSON.stringify(missing)}`);
  const alone = cellArguments({
    layout: { ...layout, program: TRUE, files: [...layout.files, { path: TRUE, source: TRUE }] },
    ...{ uid: UID, groups: [], readable: [testLaunch.kernel, testLaunch.initrd], copied: [] },
    ...{ devices: ['/dev/null', '/dev/urandom'], preload: undefined, landlock: false, tied: false, args: [] },
  });
  // The first cell waits until the host was tried.
  (await confined.take())[Symbol.dispose]();
  const start = 'spawn to QMP greeting';
  for (let round = 0; round < (bench.quick ? 5 : 25); round += 1) {
    samples.add(start, 'confined', await greeting(bench, confined));
    samples.add(start, 'not confined', await greeting(bench, plain));
    samples.add('launchers', 'bwrap and setpriv with /usr/bin/true', await timed(() => execa(BWRAP, alone)));
    samples.add('launchers', '/usr/bin/true', await timed(() => execa(TRUE)));
    bench.say(`confinement: round ${round + 1}`);
  }
  const greet = samples.row(start);
  const middle = (row: string, who: string): number => median(samples.row(row)?.samples[who] ?? []);
  const cost = middle(start, 'confined') - middle(start, 'not confined');
  const launchers = middle('launchers', 'bwrap and setpriv with /usr/bin/true') - middle('launchers', '/usr/bin/true');
  return {
    name: 'confinement',
    title: 'What confinement costs',
    rows: samples.rows(),
    ratios: [
      ratio(greet, 'confined', 'not confined'),
      {
        what: 'ms that confinement adds to a start, less those of bwrap and setpriv by themselves',
        value: cost - launchers,
        bar: { kind: 'at most', value: 5 },
      },
    ],
    notes: [
      `Confinement adds ${cost.toFixed(1)} ms to a start, bwrap and setpriv take ${launchers.toFixed(1)} ms by themselves.`,
      missing.length === 0
        ? 'Nothing is missing here.'
        : `Missing here: ${missing.map(({ part }) => part).join(', ')}.`,
    ],
  };
}

async function greeting(bench: Bench, cells: Awaited<ReturnType<typeof cellsFor>>): Promise<number> {
  await using stack = new AsyncDisposableStack();
  const root = await mkdtemp(join(bench.directory, 'c-'));
  await chmod(root, 0o700);
  stack.defer(() => rm(root, { recursive: true }));
  const files = sandboxFiles(join(root, 'vm'));
  await mkdir(files.directory);
  const cell = stack.use(await cells.take());
  const args = qemuArguments({ ...testLaunch, sandboxId: 'bench', uuid: UUID, files });
  return await timed(async () => {
    const qemu = await cell.start({ ...cellLaunch(testLaunch), args, files });
    stack.defer(async () => {
      await qemu.kill('SIGKILL');
      await qemu.exited;
    });
    const limits = { timeoutMs: START_TIMEOUT_MS, signal: new AbortController().signal };
    stack.use(await connectQmp(qemu, files, { log: silentLogger() }, limits));
  });
}
