import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { connectToStarted } from './connect.ts';
import { QemuProcess } from './process.ts';
import { tiedCommand } from './tied.ts';
import { QmpClient } from '../qmp/client.ts';
import { endQemuOf } from './find.ts';

const START_TIMEOUT_MS = 30_000;
/** Begins with a dot: not a sandbox's. */
const DIRECTORY_PREFIX = '.image-';
const SOCKET = 'qmp.sock';
const LOG = 'qemu.log';

/** What it needs of the configuration. */
export interface BareQemuConfig {
  readonly state_dir: string;
  readonly qemu_binary: string;
  readonly qmp_line_bytes_max: number;
  readonly qmp_reply_timeout_ms: number;
}

/**
 * Runs `work` with a QEMU that has no machine: for images that no sandbox has open. It dies with this process, and is
 * gone, with its directory, when this returns.
 * @throws ShimError FAILED_PRECONDITION / QEMU_EXITED when it does not start; what `work` throws
 */
export async function withBareQemu<T>(
  config: BareQemuConfig,
  log: Logger,
  work: (qmp: QmpClient) => Promise<T>,
): Promise<T> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(config.state_dir, DIRECTORY_PREFIX));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const [path, logFile] = [join(directory, SOCKET), join(directory, LOG)];
  const { file, prefix } = await tiedCommand(config.qemu_binary);
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-machine', 'none', '-S'];
  // Spelled as a sandbox's, so that it is found by it.
  const chardev = `socket,id=qmp,path=${path.replaceAll(',', ',,')},server=on,wait=off`;
  const monitor = ['-chardev', chardev, '-mon', 'chardev=qmp,mode=control'];
  const qemu = await QemuProcess.spawn(file, [...prefix, ...args, ...monitor], directory, logFile);
  stack.defer(async () => {
    await qemu.kill('SIGKILL');
    await qemu.exited;
  });
  const limits = { lineBytesMax: config.qmp_line_bytes_max, replyTimeoutMs: config.qmp_reply_timeout_ms };
  const qmp = stack.use(
    await connectToStarted({
      ...{ qemu, path, logFile, timeoutMs: START_TIMEOUT_MS },
      connect: (start) => QmpClient.connect({ log, ...limits, ...start }),
      describe: () => 'QEMU did not start',
    }),
  );
  return await work(qmp);
}

/**
 * Ends and removes what withBareQemu had begun in a daemon that was killed. To be called before this daemon begins any:
 * the state directory is locked to it, so what is there is nobody's.
 */
export async function clearBareQemus({ state_dir }: Pick<BareQemuConfig, 'state_dir'>, log: Logger): Promise<void> {
  for (const name of await readdir(state_dir)) {
    if (!name.startsWith(DIRECTORY_PREFIX)) continue;
    const directory = join(state_dir, name);
    try {
      const pid = await endQemuOf(join(directory, SOCKET));
      await rm(directory, { recursive: true, force: true });
      log.info({ directory, pid }, 'qemu of an unfinished change of an image cleared away');
    } catch (error) {
      // The next daemon tries again.
      log.warn({ directory, problem: messageOf(error) }, 'qemu of an unfinished change of an image not cleared away');
    }
  }
}
