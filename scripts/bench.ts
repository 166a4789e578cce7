/**
 * `npm run bench`: how fast qshim is, beside a bare QMP script and beside libvirt, in one run on one machine, with one
 * guest image. Those that are compared take turns, so that a machine that is busy for a while is busy for all of them.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, release, tmpdir, totalmem, loadavg } from 'node:os';
import { Command } from '@commander-js/extra-typings';
import { execa } from 'execa';
import { sectionText, type Section } from '../test/bench/figures.ts';
import { SECTIONS } from '../test/bench/sections.ts';
import { versions } from '../test/bench/versions.ts';
import { bareQemuBinary } from '../test/support/bare-qemu.ts';
import { clearAway, withDirectory, type Bench } from '../test/bench/rig.ts';
import { ensureBenchTools, ensureTestTools } from './lib/prepare.ts';

const names = Object.keys(SECTIONS);
const options = new Command('npm run bench --')
  .description('Measures qshim, a bare QMP script and libvirt side by side. Prints tables; needs root for libvirt.')
  .option('--only <sections>', `comma-separated: ${names.join(', ')}`)
  .option('--quick', 'few rounds: whether it runs, not how fast', false)
  .option('--against <ref>', 'measure attach and detach of this tree beside another version, and nothing else')
  .option('--json <file>', 'write every sample to this file')
  .parse()
  .opts();
const { against } = options;
if (against !== undefined && options.only !== undefined)
  throw new Error('--against measures one thing; --only is not for it');
const only = options.only?.split(',') ?? names;
for (const name of only) {
  if (!names.includes(name)) throw new Error(`there is no section ${name}; there are ${names.join(', ')}`);
}
await ensureTestTools();
await ensureBenchTools();
const machine = {
  cpu: cpus()[0]?.model ?? 'unknown',
  cpus: availableParallelism(),
  memoryGib: Math.round(totalmem() / 2 ** 30),
  kernel: release(),
  qemu: (await execa(bareQemuBinary, ['--version'])).stdout.split('\n')[0] ?? '',
  libvirt: (await execa('libvirtd', ['--version'])).stdout,
  node: process.version,
  startedAt: new Date().toISOString(),
  quick: options.quick,
};
console.log(
  `${Object.entries(machine)
    .map(([name, value]) => `${name}: ${String(value)}`)
    .join('\n')}\n`,
);
const done: (Section & { readonly loadBefore: readonly number[] })[] = [];
const failed: string[] = [];
await withDirectory('/dev/shm', (directory) =>
  withDirectory(process.env['QSHIM_BENCH_DIR'] ?? tmpdir(), async (diskDirectory) => {
    // A run that is cut short leaves nothing behind either: libvirtd and QEMU would outlive it.
    const clearedWhenInterrupted = [directory, diskDirectory];
    for (const [signal, code] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      process.once(signal, () => {
        clearAway(clearedWhenInterrupted);
        process.exit(code);
      });
    }
    const say = (line: string): void => console.error(line);
    const bench: Bench = { directory, diskDirectory, quick: options.quick, say, clearedWhenInterrupted };
    const sections = against === undefined ? SECTIONS : { versions: (given: Bench) => versions(given, against) };
    for (const [name, run] of Object.entries(sections)) {
      if (against === undefined && !only.includes(name)) continue;
      const loadBefore = loadavg();
      try {
        const section = await run(bench);
        done.push({ ...section, loadBefore });
        console.log(`${sectionText(section)}\nload before: ${loadBefore.map((load) => load.toFixed(1)).join(' ')}\n`);
      } catch (error) {
        failed.push(name);
        console.error(`section ${name} failed:`, error);
      }
    }
  }),
);
if (options.json !== undefined) {
  await writeFile(options.json, `${JSON.stringify({ machine, sections: done, failed }, undefined, 1)}\n`);
  console.log(`${options.json}: ${(await readFile(options.json)).length} bytes`);
}
process.exitCode = failed.length === 0 ? 0 : 1;
