import { randomUUID } from 'node:crypto';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Deadline, sleep } from '../base/deadline.ts';
import type { Logger } from '../base/log.ts';
import { readProcStat } from '../base/proc-stat.ts';
import type { Cell, CellLaunch, Cells } from '../confine/cells.ts';
import { GuestAgent } from '../guest/agent.ts';
import {
  IdentityPort,
  installPlayer,
  type AssumedIdentity,
  type IdentityFiles,
  type MachineIdentity,
} from '../guest/identity.ts';
import { playerProgram } from '../guest/programs.ts';
import { IDENTITY_PORT_NAME, qemuArguments, type GuestMemory, type Launch } from '../qemu/argv.ts';
import { connectToStarted, notStarted, type StartingUp } from '../qemu/connect.ts';
import { GuestBoot } from '../qemu/guest-boot.ts';
import type { QemuProcess } from '../qemu/process.ts';
import { restoreState, saveState } from './migrate.ts';
import type { TemplateNotes } from './record.ts';
import type { TemplateLease, TemplateTarget } from './store.ts';
import { QmpClient, type QmpConnectOptions } from '../qmp/client.ts';
import { assertAcpiHotplug } from '../qemu/acpi-hotplug.ts';
import { sandboxFiles, type SandboxFiles } from '../qemu/files.ts';
import type { Stopwatch } from '../base/stopwatch.ts';

/** What a template's VM and its clones have in common. */
export type TemplateLaunch = Omit<Launch, 'sandboxId' | 'uuid' | 'hostname' | 'files' | 'memory'>;

/**
 * Keeps what a VM boots from being changed while the result is held (volume/boot-images.ts).
 * @throws ShimError FAILED_PRECONDITION / BACKING_IN_USE, BOOT_IMAGE_NOT_FOUND
 */
export type HoldImages = (images: Pick<Launch, 'kernel' | 'initrd'>, owner: string) => Promise<Disposable>;

/** What tells one VM from another that is launched in the same way. */
export interface LaunchIdentity {
  readonly sandboxId: string;
  readonly uuid: string;
  readonly hostname: string;
}

export interface MakeTemplateOptions {
  readonly cells: Cells;
  readonly launch: TemplateLaunch;
  readonly log: Logger;
  /** From QEMU's start to a saved state. */
  readonly timeoutMs: number;
  /** Where the player of identities is, if not where `npm run guest` puts it. */
  readonly playerPath?: string;
}

interface Limits {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Where in a template's directory its VM's files are while it is made. */
export const VM_DIRECTORY = 'vm';
const IDENTITY_SOCKET = 'ident.sock';
const STATE_SOCKET = 'state.sock';
const QUIET_WINDOW_MS = 200;
/** Of one CPU: what an idle guest's timers take under emulation is less. */
const QUIET_SHARE = 0.15;
const QUIET_WAIT_MS = 5000;

const notesSchema = z.object({
  productUuid: z.string().optional(),
  bootId: z.string().optional(),
  machineId: z.string().optional(),
});

/**
 * Boots a VM until its guest agent answers and the guest has come to rest, has it wait for an identity, and saves it.
 * For TemplateStore.build. When this settles, QEMU has ended and nothing but the state file is left in the directory.
 * @throws ShimError FAILED_PRECONDITION / TEMPLATE_UNAVAILABLE (no player), TEMPLATE_GUEST_UNFIT,
 *   TEMPLATE_SAVE_FAILED, QEMU_EXITED, GUEST_BOOT_FAILED; DEADLINE_EXCEEDED; the signal's reason
 */
export async function makeTemplate(target: TemplateTarget, options: MakeTemplateOptions): Promise<TemplateNotes> {
  // Before anything is started: without it there is no template.
  const player = await playerProgram(options.playerPath);
  const deadline = Deadline.after(options.timeoutMs);
  const { signal } = target;
  const limits = (): Limits => ({ timeoutMs: deadline.remainingMs, signal });
  await using owned = new AsyncDisposableStack();
  const files = sandboxFiles(join(target.directory, VM_DIRECTORY));
  await mkdir(files.directory, { mode: 0o700 });
  owned.defer(() => rm(files.directory, { recursive: true, force: true }));
  const cell = owned.use(await options.cells.take());
  const qemu = await startTemplate(target, files, cell, options);
  owned.defer(async () => {
    await qemu.kill('SIGKILL');
    await qemu.exited;
  });
  const qmp = owned.use(await connectQmp(qemu, files, { log: options.log }, limits()));
  await cell.seal(files);
  await using boot = new GuestBoot({ qmp, qemu, files });
  // Holds for every clone as well: their command line is the same, and so is the binary.
  await assertAcpiHotplug(qmp);
  // Both stay connected until the state is saved. A port that was saved without a host lets qemu-ga sleep for 100 ms at
  // a time, and the player end; see IdentityPort.
  const port = owned.use(await IdentityPort.connect(join(files.directory, IDENTITY_SOCKET)));
  const agent = owned.use(new GuestAgent({ path: files.agentSocket, log: options.log }));
  await boot.wait(signal, (either) => agent.waitReady({ ...limits(), signal: either }));
  const identityFiles = await installPlayer(agent, player, IDENTITY_PORT_NAME, limits());
  await port.greeted(limits());
  await atRest(qemu.pid, signal);
  const socketPath = join(files.directory, STATE_SOCKET);
  const { uid } = cell.facts;
  await saveState(qmp, { stateFile: target.stateFile, socketPath, ...limits(), ...(uid !== 0 && { qemuUid: uid }) });
  await qemu.kill('SIGKILL');
  await qemu.exited;
  await chmod(target.stateFile, 0o400);
  return { ...identityFiles };
}

async function startTemplate(
  target: TemplateTarget,
  files: SandboxFiles,
  cell: Cell,
  options: MakeTemplateOptions,
): Promise<QemuProcess> {
  const memory = { kind: 'template', identitySocket: join(files.directory, IDENTITY_SOCKET) } as const;
  const args = qemuArguments({ ...options.launch, sandboxId: 'template', uuid: randomUUID(), files, memory });
  const start = { ...cellLaunch(options.launch), args, files, memory: target.memory };
  return await cell.start({ ...start, tied: true, systemAllocator: true });
}

/** What a machine's cell is to let in and to allow. */
export function cellLaunch(launch: TemplateLaunch): Pick<CellLaunch, 'reads' | 'limits'> {
  return {
    reads: [launch.kernel, launch.initrd],
    limits: limitsOf(launch),
  };
}

/** The size of a machine, for the limits of its cell. */
export function limitsOf({ accelerator, memoryMib, vcpus, iothreads }: TemplateLaunch): CellLaunch['limits'] {
  return { memoryMib, vcpus, iothreads: iothreads.length, kvm: accelerator === 'kvm' };
}

/**
 * Connects as soon as QEMU listens.
 * @throws ShimError FAILED_PRECONDITION / QEMU_EXITED, with QEMU's own words, when it ends instead; DEADLINE_EXCEEDED /
 *   TEMPLATE_TIMEOUT; what QmpClient.connect throws
 */
export async function connectQmp(
  qemu: QemuProcess,
  files: SandboxFiles,
  connect: Omit<QmpConnectOptions, keyof StartingUp>,
  { timeoutMs, signal }: Limits,
): Promise<QmpClient> {
  return await connectToStarted({
    ...{ qemu, path: files.qmpSocket, logFile: files.qemuLog, timeoutMs, signal },
    connect: (start) => QmpClient.connect({ ...connect, ...start }),
    timedOut: () => notStarted(timeoutMs, 'TEMPLATE_TIMEOUT'),
  });
}

/**
 * Waits until the guest has little to do, for a few seconds at most: what it still does after its agent answers
 * (drivers, services) would otherwise be done again by every clone.
 */
async function atRest(pid: number, signal: AbortSignal): Promise<void> {
  const deadline = Deadline.after(QUIET_WAIT_MS);
  let before = await cpuMs(pid);
  while (!deadline.expired) {
    await sleep(QUIET_WINDOW_MS, signal);
    const now = await cpuMs(pid);
    if (now - before < QUIET_WINDOW_MS * QUIET_SHARE) return;
    before = now;
  }
}

/** CPU time that a process has taken. */
async function cpuMs(pid: number): Promise<number> {
  const { userMs, systemMs } = await readProcStat(pid);
  return userMs + systemMs;
}

/** How a clone's QEMU, which inherits the template's memory, is started, for Launch. */
export function cloneMemory(files: SandboxFiles): GuestMemory {
  return { kind: 'clone', identitySocket: join(files.directory, IDENTITY_SOCKET) };
}

export interface Clone {
  /** Of a QEMU that was started with cloneMemory, and has been sent nothing that changes its state. */
  readonly qmp: Pick<QmpClient, 'run' | 'listen'>;
  /** Not used before. */
  readonly agent: GuestAgent;
  /** Where that QEMU runs. */
  readonly cell: Pick<Cell, 'seal'>;
  readonly files: SandboxFiles;
  readonly lease: TemplateLease;
  readonly identity: MachineIdentity;
  readonly watch?: Stopwatch;
}

export interface StartedClone {
  readonly assumed: AssumedIdentity;
  /** Open, for further identities; to be disposed of. */
  readonly port: IdentityPort;
}

/**
 * Makes a running machine of its own out of a clone's QEMU: restores the template's state, lets it run, gives it its
 * identity, and returns once the guest agent has answered. When this throws, that QEMU is of no use: end it.
 * @throws ShimError FAILED_PRECONDITION / TEMPLATE_RESTORE_FAILED; UNAVAILABLE / CLONE_IDENTITY_FAILED;
 *   DEADLINE_EXCEEDED
 */
export async function startClone(clone: Clone, limits: Limits): Promise<StartedClone> {
  const { qmp, cell, agent, files, lease, watch } = clone;
  const stop = new AbortController();
  const signal = AbortSignal.any([limits.signal, stop.signal]);
  // Both ports are connected before the state is restored, as they were when it was saved.
  const answered = agent.waitReady({ timeoutMs: limits.timeoutMs, signal });
  answered.catch(() => undefined);
  try {
    await using owned = new AsyncDisposableStack();
    const port = owned.use(await IdentityPort.connect(join(files.directory, IDENTITY_SOCKET)));
    const socketPath = join(files.directory, STATE_SOCKET);
    const beforeRun = (): Promise<void> => cell.seal(files);
    await restoreState(qmp, { stateFile: lease.stateFile, socketPath, beforeRun, ...limits });
    watch?.lap('restore');
    const assumed = await port.assume(clone.identity, identityFilesOf(lease), limits);
    watch?.lap('identity');
    await answered;
    watch?.lap('agent');
    owned.move();
    return { assumed, port };
  } finally {
    stop.abort();
  }
}

/** Where the guests of a template keep what tells them apart. */
export function identityFilesOf({ notes }: TemplateLease): IdentityFiles {
  const { productUuid, bootId, machineId } = notesSchema.parse(notes);
  return { ...(productUuid && { productUuid }), ...(bootId && { bootId }), ...(machineId && { machineId }) };
}
