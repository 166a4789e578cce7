import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
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
import { DISK_BYTES, SETTLE_MS, startDaemon, timed, type Bench } from './rig.ts';

const UID = 1_900_000_000;
const TRUE = '/usr/bin/true';
const ATTACH = 'attach 1';
const DETACH = 'detach 1';
/** A ratio that is taken for noise: single attaches differ by much more. */
const NOISE = 1.1;
const UUID = '00000000-0000-4000-8000-000000000000';

/**
 * What confinement costs a start: QEMU to its greeting, in a cell and without one, and the launchers with nothing; and
 * what it costs an attach.
 */
export async function confinement(bench: Bench): Promise<Section> {
  // Nothing that waits for a QEMU's end keeps this process from ending itself: in a daemon other things do.
  const alive = setInterval(() => undefined, 1000);
  using _alive = { [Symbol.dispose]: () => clearInterval(alive) };
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
  await attaching(bench, samples);
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
      ratio(samples.row(ATTACH), 'confined', 'not confined', { kind: 'at most', value: NOISE }),
      ratio(samples.row(DETACH), 'confined', 'not confined', { kind: 'at most', value: NOISE }),
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

/** A volume of a running sandbox, in turns. */
async function attaching(bench: Bench, samples: Samples): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const sides = [];
  for (const [name, confine] of [
    ['confined', 'degraded'],
    ['not confined', 'off'],
  ] as const) {
    const daemon = stack.use(await startDaemon(bench, { config: { confine, template: 'off' } }));
    await daemon.client.createSandbox({ sandboxId: 'vm' });
    sides.push({ name, daemon, path: await daemon.rawFile('disk.raw', DISK_BYTES) });
  }
  // The first round warms up.
  for (let round = 0; round <= (bench.quick ? 5 : 25); round += 1) {
    for (const { name, daemon, path } of sides) {
      const volume = { sandboxId: 'vm', volumeId: `v${round}` };
      const attach = await timed(() => daemon.client.attach({ ...volume, spec: { rawFile: { path } } }));
      await sleep(SETTLE_MS);
      const detach = await timed(() => daemon.client.detach(volume));
      await sleep(SETTLE_MS);
      if (round === 0) continue;
      samples.add(ATTACH, name, attach);
      samples.add(DETACH, name, detach);
    }
    bench.say(`confinement: attach, round ${round}`);
  }
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
