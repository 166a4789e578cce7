import type { Logger } from '../base/log.ts';
import type { Stopwatch } from '../base/stopwatch.ts';
import type { Config } from '../config.ts';
import type { Cell, CellLaunch, Cells } from '../confine/cells.ts';
import type { GuestAgent } from '../guest/agent.ts';
import type { IdentityPort } from '../guest/identity.ts';
import { qemuArguments } from '../qemu/argv.ts';
import type { SandboxFiles } from '../qemu/files.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { TemplateLease } from './store.ts';
import { cellLaunch, cloneMemory, connectQmp, startClone, type LaunchIdentity, type TemplateLaunch } from './vm.ts';

/** A clone's VM that is a machine of its own, with everything that is connected to it. */
export interface CloneVm {
  readonly qemu: QemuProcess;
  readonly qmp: QmpClient;
  /** Where QEMU runs; whoever has the VM disposes of it when QEMU has ended. */
  readonly cell: Cell;
  /** Takes further identities while it is open. Whoever has the VM disposes of it. */
  readonly port: IdentityPort;
}

export interface CloneVmOptions {
  readonly config: Config;
  readonly cells: Cells;
  readonly log: Logger;
  readonly launch: TemplateLaunch;
  readonly lease: TemplateLease;
  readonly identity: LaunchIdentity;
  readonly files: SandboxFiles;
  /** Not connected yet. */
  readonly agent: GuestAgent;
  readonly watch: Stopwatch;
  readonly signal: AbortSignal;
}

/**
 * Starts a clone's QEMU in a directory that is there, up to the answer of the guest's agent. When it fails, that QEMU
 * has ended.
 * @throws what TemplateLease.openMemory, Cell.start, connectQmp and startClone throw
 */
export async function startCloneVm(options: CloneVmOptions): Promise<CloneVm> {
  const { config, cells, log, launch, lease, identity, files, agent, watch, signal } = options;
  const limits = { timeoutMs: config.clone_timeout_ms, signal };
  await using undo = new AsyncDisposableStack();
  const args = qemuArguments({ ...launch, ...identity, files, memory: cloneMemory(files) });
  const cell = undo.use(await cells.take());
  const qemu = await startQemu(cell, lease, { ...cellLaunch(launch), args, files });
  undo.defer(async () => {
    await qemu.kill('SIGKILL');
    await qemu.exited;
  });
  watch.lap('spawn');
  const connect = {
    log,
    ...(agent.budget && { meter: agent.budget.control('qmp') }),
    lineBytesMax: config.qmp_line_bytes_max,
    pendingMax: config.qmp_pending_max,
    replyTimeoutMs: config.qmp_reply_timeout_ms,
  };
  const qmp = undo.use(await connectQmp(qemu, files, connect, limits));
  watch.lap('qmp');
  const { port } = await startClone({ qmp, cell, agent, files, lease, identity, watch }, limits);
  undo.move();
  return { qemu, qmp, cell, port };
}

/** QEMU has the memory from its start on; this process has it open only until then. */
async function startQemu(cell: Cell, lease: TemplateLease, start: CellLaunch): Promise<QemuProcess> {
  await using memory = await lease.openMemory();
  return await cell.start({ ...start, memory: memory.fd });
}
