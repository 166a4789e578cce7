import { access, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { Deadline, sleep, waitFor } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { tiedCommand } from './tied.ts';
import { QmpClient } from '../qmp/client.ts';
import { endQemuOf } from './find.ts';

const START_TIMEOUT_MS = 30_000;
const POLL_MS = 10;
/** Begins with a dot: not a sandbox's. */
const DIRECTORY_PREFIX = '.image-';
const SOCKET = 'qmp.sock';

/** What it needs of the configuration. */
export interface BareQemuConfig {
  readonly state_dir: string;
  readonly qemu_binary: string;
  readonly qmp_line_bytes_max: number;
  readonly qmp_reply_timeout_ms: number;
}

/**
 * Runs `work` with a QEMU that has no machine: for images that no sandbox has open. It dies with this process, and is gone,
 * with its directory, when this returns.
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
  const path = join(directory, SOCKET);
  const { file, prefix } = await tiedCommand(config.qemu_binary);
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-machine', 'none', '-S'];
  // Spelled as a sandbox's, so that it is found by it.
  const chardev = `socket,id=qmp,path=${path.replaceAll(',', ',,')},server=on,wait=off`;
  const monitor = ['-chardev', chardev, '-mon', 'chardev=qmp,mode=control'];
  const child = execa(file, [...prefix, ...args, ...monitor], {
    stdin: 'ignore',
    stdout: 'ignore',
    reject: false,
    maxBuffer: 65_536,
  });
  stack.defer(async () => {
    child.kill('SIGKILL');
    await child;
  });
  const ended = child.then(({ stderr }) => {
    throw new ShimError('FAILED_PRECONDITION', `QEMU did not start: ${stderr.trim().slice(0, 300)}`, {
      reason: 'QEMU_EXITED',
    });
  });
  ended.catch(() => undefined); // Its end is only news while it is waited for.
  await waitFor(Promise.race([ended, appears(path)]), { milliseconds: START_TIMEOUT_MS });
  const limits = { lineBytesMax: config.qmp_line_bytes_max, replyTimeoutMs: config.qmp_reply_timeout_ms };
  const qmp = stack.use(
    await QmpClient.connect({ path, log, ...limits, handshakeTimeoutMs: START_TIMEOUT_MS, startingUp: true }),
  );
  return await work(qmp);
}

/**
 * Ends and removes what withBareQemu had begun in a daemon that was killed. To be called before this daemon begins any: the
 * state directory is locked to it, so what is there is nobody's.
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

async function appears(path: string): Promise<void> {
  const deadline = Deadline.after(START_TIMEOUT_MS);
  while (!deadline.expired) {
    const there = await access(path).then(
      () => true,
      () => false,
    );
    if (there) return;
    await sleep(POLL_MS);
  }
}
