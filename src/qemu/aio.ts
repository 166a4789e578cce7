import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { QmpClient } from '../qmp/client.ts';
import { connectToStarted } from './connect.ts';
import { QemuProcess } from './process.ts';

export interface AioProbe {
  readonly mode: 'threads' | 'native' | 'io_uring';
  readonly usable: boolean;
  readonly reason: string;
}

const PROBE_FILE_BYTES = 1_048_576;

/**
 * Finds out which aio modes work on this host by having QEMU open a small file with each. A QEMU that knows io_uring
 * may still be refused it by the kernel (kernel.io_uring_disabled, seccomp), which shows only when it is tried.
 * @throws ShimError when QEMU itself cannot be started or spoken to
 */
export async function probeAio(options: {
  readonly binary: string;
  readonly timeoutMs: number;
  readonly log: Logger;
}): Promise<readonly AioProbe[]> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-aio-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true, force: true }));
  const file = join(directory, 'probe.raw');
  await using handle = await open(file, 'w', 0o600);
  await handle.truncate(PROBE_FILE_BYTES);
  const path = join(directory, 'qmp.sock');
  const logFile = join(directory, 'qemu.log');
  const qemu = await QemuProcess.spawn(
    options.binary,
    [
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
      '-machine',
      'none',
      '-qmp',
      `unix:${path},server=on,wait=off`,
    ],
    directory,
    logFile,
  );
  cleanup.defer(async () => {
    await qemu.kill('SIGKILL');
    await qemu.exited;
  });
  const { log, timeoutMs } = options;
  await using qmp = await connectToStarted({
    ...{ qemu, path, logFile, timeoutMs },
    connect: (start) => QmpClient.connect({ log, ...start }),
  });
  const found: AioProbe[] = [];
  for (const mode of ['io_uring', 'native', 'threads'] as const) found.push(await probeMode(qmp, file, mode));
  return found;
}

async function probeMode(qmp: QmpClient, filename: string, mode: AioProbe['mode']): Promise<AioProbe> {
  const direct = mode === 'native';
  try {
    await qmp.run('blockdev-add', {
      driver: 'file',
      'node-name': mode,
      filename,
      aio: mode,
      cache: { direct, 'no-flush': false },
    });
    await qmp.run('blockdev-del', { 'node-name': mode });
    return { mode, usable: true, reason: direct ? 'opened with cache mode none' : 'opened' };
  } catch (error) {
    return { mode, usable: false, reason: messageOf(error) };
  }
}
