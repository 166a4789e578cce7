import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

/** An empty block device, over a sparse file; undefined where there is none to be had. Gone when it is disposed of. */
export async function loopDevice(bytes: number): Promise<(AsyncDisposable & { readonly path: string }) | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-loop-'));
  const file = join(directory, 'backing');
  await writeFile(file, '');
  await truncate(file, bytes);
  const loop = await execa('losetup', ['--find', '--show', file], { reject: false });
  const path = loop.exitCode === 0 ? loop.stdout.trim() : '';
  if (path === '') {
    await rm(directory, { recursive: true });
    return undefined;
  }
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await execa('losetup', ['--detach', path]);
      await rm(directory, { recursive: true });
    },
  };
}
