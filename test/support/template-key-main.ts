/**
 * Asks for the key of a template twice: while this process can open no file, and when it can again. Prints what came of
 * each, as JSON. To be run with a low limit of open files. The argument is a directory to use.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../../src/base/errors.ts';
import { surviveFailedSpawns } from '../../src/base/failed-spawns.ts';
import { silentLogger } from '../../src/base/log.ts';
import { Cells } from '../../src/confine/cells.ts';
import { configWith } from '../../src/config.ts';
import { Templates } from '../../src/template/templates.ts';

const [directory = ''] = process.argv.slice(2);
// Any file will do for one that is booted, any program for one that tells its version.
const program = process.execPath;
const config = configWith({ templates_dir: join(directory, 'templates'), qemu_binary: program });
using _spawns = surviveFailedSpawns(silentLogger());
await using templates = await Templates.open(config, silentLogger(), await Cells.open(config, silentLogger()), () =>
  Promise.resolve(new DisposableStack()),
);
const outcome = (): Promise<string> =>
  templates
    .keyOf({
      accelerator: 'tcg',
      vcpus: 1,
      memoryMib: 128,
      kernel: program,
      initrd: program,
      kernelParameters: '',
      bridges: [],
      iothreads: [],
      portsMax: 1,
    })
    .catch((error: unknown) => errnoOf(error) ?? String(error));

const held: FileHandle[] = [];
for (;;) {
  const handle = await open('/dev/null').catch(() => undefined);
  if (handle === undefined) break;
  held.push(handle);
}
const first = await outcome();
await Promise.all(held.map((handle) => handle.close()));
process.stdout.write(JSON.stringify([first, await outcome()]));
