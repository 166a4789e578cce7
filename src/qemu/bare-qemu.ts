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

/** A QEMU without a guest, for as long as work is done with it. */
export interface BareQemu {
  readonly qmp: QmpClient;
  readonly qemu: QemuProcess;
  /** Its own; gone when the work is done. */
  readonly directory: string;
  /** What it has written. */
  readonly logFile: string;
}

const NO_MACHINE: MakeArguments = () => Promise.resolve(['-machine', 'none']);

/** The arguments that make a machine, for which files may be put into the directory. */
type MakeArguments = (directory: string) => Promise<readonly string[]>;

/**
 * Runs `work` with a QEMU that has no guest: for images that no sandbox has open, and to try things out. It is paused
 * from its start. It dies with this process, and is gone, with its directory, when this returns.
 * @param machine what it is started with; default: no machine
 * @throws ShimError FAILED_PRECONDITION / QEMU_EXITED when it does not start; what `work` throws
 */
export async function withBareQemu<T>(
  config: BareQemuConfig,
  log: Logger,
  work: (bare: BareQemu) => Promise<T>,
  machine = NO_MACHINE,
): Promise<T> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(config.state_dir, DIRECTORY_PREFIX));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const [path, logFile] = [join(directory, SOCKET), join(directory, LOG)];
  const { file, prefix } = await tiedCommand(config.qemu_binary);
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-S', ...(await machine(directory))];
  // Spelled as a sandbox's, so that it is found by it.
  const chardev = `socket,id=qmp,path=${path.replaceAll(',', ',,')},server=on,wait=off`;
  const monitor = ['-chardev', chardev, '-qmp', 'chardev:qmp'];
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
  return await work({ qmp, qemu, directory, logFile });
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
      log.info({ directory, pid }, 'qemu of unfinished work cleared away');
    } catch (error) {
      // The next daemon tries again.
      log.warn({ directory, problem: messageOf(error) }, 'qemu of unfinished work not cleared away');
    }
  }
}
