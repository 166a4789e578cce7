import { access, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { Deadline, sleep, waitFor } from '../base/deadline.ts';
import { ShimError } from '../base/errors.ts';
import type { Config } from '../config.ts';
import type { Logger } from '../base/log.ts';
import { tiedCommand } from '../qemu/tied.ts';
import { QmpClient } from '../qmp/client.ts';

const START_TIMEOUT_MS = 30_000;
const POLL_MS = 10;

/**
 * Runs `work` with a QEMU that has no machine: for images that no sandbox has open. It dies with this process, and is gone,
 * with its directory, when this returns.
 * @throws ShimError FAILED_PRECONDITION / QEMU_EXITED when it does not start; what `work` throws
 */
export async function withBareQemu<T>(config: Config, log: Logger, work: (qmp: QmpClient) => Promise<T>): Promise<T> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(config.state_dir, '.image-'));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'qmp.sock');
  const { file, prefix } = await tiedCommand(config.qemu_binary);
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-machine', 'none', '-S'];
  const monitor = ['-qmp', `unix:${path.replaceAll(',', ',,')},server=on,wait=off`];
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
