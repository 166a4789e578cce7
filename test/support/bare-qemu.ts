import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Deadline, sleep } from '../../src/base/deadline.ts';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';

const START_TIMEOUT_MS = 30_000;

/** The binary under test: the one that the daemon takes as well, or else that on PATH. */
export const bareQemuBinary = process.env['QSHIM_QEMU_BINARY'] ?? 'qemu-system-x86_64';

/** Why a real QEMU cannot run here, or false: what node:test takes as `skip`. */
export function bareQemuMissing(): string | false {
  return spawnSync(bareQemuBinary, ['--version']).status === 0 ? false : `${bareQemuBinary} cannot be run`;
}

/** A QEMU without a guest; disposing kills it and removes its directory. */
export interface BareQemu extends AsyncDisposable {
  readonly qmp: QmpClient;
  readonly qmpPath: string;
  /** Empty, for disks. */
  readonly directory: string;
}

/** Starts the binary with `args`, no default devices and one QMP socket, and connects. */
export async function startBareQemu(args: readonly string[]): Promise<BareQemu> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-bare-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const qmpPath = join(directory, 'qmp.sock');
  const common = ['-nodefaults', '-display', 'none', '-qmp', `unix:${qmpPath},server=on,wait=off`];
  const child = spawn(bareQemuBinary, [...args, ...common], { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = once(child, 'exit');
  stack.defer(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const deadline = Deadline.after(START_TIMEOUT_MS);
  while (!existsSync(qmpPath)) {
    if (deadline.expired || child.exitCode !== null) throw new Error(`QEMU did not start (exit ${child.exitCode})`);
    await sleep(10);
  }
  const qmp = stack.use(
    await QmpClient.connect({
      path: qmpPath,
      log: silentLogger(),
      handshakeTimeoutMs: deadline.remainingMs,
      startingUp: true,
    }),
  );
  const owned = stack.move();
  return { qmp, qmpPath, directory, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
