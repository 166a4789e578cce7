import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ShimError, errnoOf, isShimError, messageOf } from '../base/errors.ts';
import { removeLeftGroup } from '../confine/groups.ts';
import { qemuArguments } from '../qemu/argv.ts';
import { connectToStarted, qemuFailure } from '../qemu/connect.ts';
import { GuestBoot, consoleTail } from '../qemu/guest-boot.ts';
import { cellLaunch, limitsOf } from '../template/vm.ts';
import type { QemuProcess } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { assertAcpiHotplug } from '../qemu/acpi-hotplug.ts';
import { startFromTemplate } from './clone.ts';
import { JOURNAL_FILE, refuseLaterJournal } from '../store/journal.ts';
import { startFromPool } from './pool-start.ts';
import type { PoolMember } from '../template/pool.ts';
import { findQemu } from '../qemu/find.ts';
import { bootOwner, endQemu, launchIdentity, prepareLaunch } from './launch.ts';
import type { SandboxEnvironment } from './environment.ts';
import type { Sandbox } from './sandbox.ts';
import { poolKind } from './spec.ts';
import { Stopwatch } from '../base/stopwatch.ts';
import type { TemplateLaunch } from '../template/vm.ts';

/** In the names of directories that were put aside; adoption passes them over. */
export const LEFT_OVER_MARK = '.left-';
/** In the directory of a sandbox that is being started again: one that fails goes back to what it was, stopped. */
export const START_AGAIN_FILE = 'start-again';
const QEMU_START_TIMEOUT_MS = 30_000;

/** A random UUID for a new sandbox. */
export function newUuid(): string {
  return randomUUID();
}

/**
 * Starts a sandbox that was just made: from a template where its spec wants one and there is one, else by a boot. When
 * it fails, the process and the state directory are gone before this throws.
 * @throws ShimError FAILED_PRECONDITION (KVM_UNUSABLE, QEMU_EXITED, ACPI_HOTPLUG_OFF, BOOT_IMAGE_NOT_FOUND,
 *   BACKING_IN_USE, STATE_DIR_GONE, GUEST_BOOT_FAILED),
 *   INVALID_ARGUMENT / WRONG_FILE_TYPE and PERMISSION_DENIED for boot images, DEADLINE_EXCEEDED / GUEST_AGENT_TIMEOUT,
 *   UNIMPLEMENTED / QEMU_TOO_OLD; where a template is required, what kept it from being used
 * @param how `member`: the clone in whose directory the sandbox was made, to be used if it still fits; `again`: it has
 *   stopped, and its directory with its record is there
 */
export async function bootSandbox(
  sandbox: Sandbox,
  environment: SandboxEnvironment,
  how: { readonly member?: PoolMember | undefined; readonly again?: true } = {},
): Promise<void> {
  const { member } = how;
  const { identity } = sandbox;
  const { template } = identity.spec;
  const watch = new Stopwatch();
  await using undo = new AsyncDisposableStack();
  const launch = await prepared(sandbox, environment, undo).catch(async (error: unknown) => {
    if (member !== undefined) await environment.pool.endTaken(member);
    throw error;
  });
  watch.lap('probe');
  if (how.again === true) await clearDirectory(sandbox);
  if (!(await startWarm(sandbox, environment, launch, how, watch, undo))) {
    const qemu = await coldStart(sandbox, environment, launch);
    undo.defer(() => endQemu(sandbox, qemu));
    await completeBoot(sandbox, qemu, watch);
    if (template !== 'off') environment.templates.makeSoon(launch);
  } else environment.pool.refill(poolKind(identity.spec), launch);
  undo.move();
  await rm(join(sandbox.files.directory, START_AGAIN_FILE), { force: true });
}

/** The launch, with its boot images held from before QEMU starts until it has ended, or the start has failed. */
async function prepared(
  sandbox: Sandbox,
  environment: SandboxEnvironment,
  undo: AsyncDisposableStack,
): Promise<TemplateLaunch> {
  const launch = await prepareLaunch(sandbox, environment);
  const { kernel, initrd } = launch;
  sandbox.holdImages({ kernel, initrd }, undo.use(await environment.holdImages(launch, bootOwner(sandbox.id))));
  return launch;
}

/** Starts from the pool or from a template; false when it has to boot. Then its directory is there, and empty. */
async function startWarm(
  sandbox: Sandbox,
  environment: SandboxEnvironment,
  launch: TemplateLaunch,
  { member, again }: { readonly member?: PoolMember | undefined; readonly again?: true },
  watch: Stopwatch,
  undo: AsyncDisposableStack,
): Promise<boolean> {
  const { template } = sandbox.identity.spec;
  if (member !== undefined) {
    undo.defer(() => removeDirectory(sandbox));
    if (await startFromPool(sandbox, environment, member, launch, watch)) return true;
  }
  if (again !== true) await makeDirectory(sandbox);
  undo.defer(() => removeDirectory(sandbox));
  return template !== 'off' && (await startFromTemplate(sandbox, environment, launch, template, watch));
}

/**
 * Goes on with a boot whose daemon was killed: QEMU runs, and nobody has heard of the guest yet. Ends as bootSandbox
 * does.
 * @throws as bootSandbox
 */
export async function resumeBoot(sandbox: Sandbox, qemu: QemuProcess): Promise<void> {
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeDirectory(sandbox));
  undo.defer(() => endQemu(sandbox, qemu));
  await completeBoot(sandbox, qemu, new Stopwatch());
  undo.move();
  await rm(join(sandbox.files.directory, START_AGAIN_FILE), { force: true });
}

/**
 * Begins anew what was to be a clone when its daemon was killed: how far it had come cannot be seen. And a boot whose
 * QEMU was never started, or has ended since. Ends as bootSandbox does.
 * @throws as bootSandbox
 */
export async function restartBoot(
  sandbox: Sandbox,
  environment: SandboxEnvironment,
  qemu: QemuProcess | undefined,
  again: boolean,
): Promise<void> {
  await qemu?.kill('SIGKILL');
  await qemu?.exited;
  await removeLeftGroup(sandbox.files.directory, sandbox.log);
  if (!again) await rm(sandbox.files.directory, { recursive: true, force: true });
  await bootSandbox(sandbox, environment, again ? { again } : {});
}

/** Starts QEMU for a boot, with the journal before and after: a daemon that dies in between finds the process again. */
async function coldStart(
  sandbox: Sandbox,
  { cells }: SandboxEnvironment,
  launch: TemplateLaunch,
): Promise<QemuProcess> {
  const { files } = sandbox;
  using undo = new DisposableStack();
  const cell = undo.use(await cells.take());
  await cell.prepare(files, limitsOf(launch));
  sandbox.launching({ confinement: cell.facts });
  await sandbox.commit();
  const args = qemuArguments({ ...launch, ...launchIdentity(sandbox), files });
  const qemu = await cell.start({ ...cellLaunch(launch), args, files });
  undo.move();
  sandbox.holdCell(cell);
  sandbox.own(qemu);
  try {
    await sandbox.commit();
  } catch (error) {
    await endQemu(sandbox, qemu);
    throw error;
  }
  return qemu;
}

/** From a QEMU process to a sandbox that is ready. */
async function completeBoot(sandbox: Sandbox, qemu: QemuProcess, watch: Stopwatch): Promise<void> {
  const client = await openQmp(sandbox, qemu, watch);
  await sandbox.sealCell();
  watch.lap('qmp');
  const metadata = { sandboxId: sandbox.id };
  await using boot = new GuestBoot({ qmp: client, qemu, files: sandbox.files, metadata });
  await assertAcpiHotplug(client);
  watch.lap('verify');
  if (sandbox.identity.spec.readyWhen === 'agent') {
    await awaitFirstAnswer(sandbox, boot);
    watch.lap('agent');
  }
  await sandbox.enterRunning(watch.timings);
}

/**
 * Never throws, so that a caller hears why the start failed: what resists is left to the manager, which goes on trying.
 */
async function removeDirectory(sandbox: Sandbox): Promise<void> {
  const { directory } = sandbox.files;
  try {
    await rm(directory, { recursive: true, force: true });
  } catch (error) {
    sandbox.leftDirectory();
    sandbox.log.warn({ directory, problem: messageOf(error) }, 'state directory of a failed start not removed');
  }
}

/**
 * A VM whose adoption failed (no descriptor left, a read error) still lives in its directory, and must be found again;
 * so must a sandbox whose journal only a later daemon can read, whether its VM lives or not.
 */
async function refuseIfInUse(sandbox: Sandbox): Promise<void> {
  const { directory, qmpSocket } = sandbox.files;
  const found = await findQemu(qmpSocket);
  if (found === undefined) {
    await refuseLaterJournal(join(directory, JOURNAL_FILE));
    return;
  }
  const { pid } = found.identity;
  throw new ShimError(
    'FAILED_PRECONDITION',
    `a VM that was not adopted (pid ${pid}) lives in ${directory}; the next start of the daemon tries again`,
    { reason: 'SANDBOX_NOT_ADOPTED', metadata: { sandboxId: sandbox.id, pid: String(pid), directory } },
  );
}

/** A directory that no sandbox owns any more, left by a host that crashed, is put aside under another name. */
async function makeDirectory(sandbox: Sandbox): Promise<void> {
  const { directory } = sandbox.files;
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw stateDirGone(sandbox, error);
    if (errnoOf(error) !== 'EEXIST') throw error;
    await refuseIfInUse(sandbox);
    const aside = `${directory}${LEFT_OVER_MARK}${Date.now()}`;
    await rename(directory, aside);
    sandbox.log.warn({ directory, aside }, 'left-over directory put aside');
    await mkdir(directory, { mode: 0o700 });
  }
}

/** It is not made again: the lock that keeps other daemons out of it went with it. */
function stateDirGone({ config: { state_dir: path } }: Sandbox, cause: unknown): ShimError {
  const message = `the directory ${path} (option state_dir) was removed while qshimd ran; start qshimd again`;
  return new ShimError('FAILED_PRECONDITION', message, { reason: 'STATE_DIR_GONE', metadata: { path }, cause });
}

/** Of a sandbox that has stopped: its record stays until the next one is written over it. */
async function clearDirectory({ files: { directory } }: Sandbox): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeFile(join(directory, START_AGAIN_FILE), '', { mode: 0o600 });
  for (const name of await readdir(directory)) {
    if (name !== JOURNAL_FILE && name !== START_AGAIN_FILE)
      await rm(join(directory, name), { recursive: true, force: true });
  }
}

async function openQmp(sandbox: Sandbox, qemu: QemuProcess, watch: Stopwatch): Promise<QmpClient> {
  const { qmpSocket, qemuLog } = sandbox.files;
  return await connectToStarted({
    ...{ qemu, path: qmpSocket, logFile: qemuLog, timeoutMs: QEMU_START_TIMEOUT_MS, signal: sandbox.ended },
    connect: () => {
      watch.lap('spawn');
      return sandbox.link.open({ handshakeTimeoutMs: QEMU_START_TIMEOUT_MS, startingUp: true });
    },
    timedOut: () => startFailure(sandbox, 'QEMU did not answer on its QMP socket in time'),
    metadata: { sandboxId: sandbox.id },
  });
}

async function awaitFirstAnswer(sandbox: Sandbox, boot: GuestBoot): Promise<void> {
  const { agent, config, ended, files } = sandbox;
  try {
    await boot.wait(ended, (signal) => agent.waitReady({ timeoutMs: config.boot_timeout_ms, signal }));
    sandbox.agentAnswered();
  } catch (error) {
    if (!isShimError(error, 'DEADLINE_EXCEEDED')) throw error;
    const tail = await consoleTail(files.consoleLog);
    const message = `the guest agent did not answer: ${messageOf(error)} (option boot_timeout_ms)${tail}`;
    const metadata = { sandboxId: sandbox.id };
    throw new ShimError('DEADLINE_EXCEEDED', message, { reason: 'GUEST_AGENT_TIMEOUT', metadata, cause: error });
  }
}

function startFailure(sandbox: Sandbox, how: string): Promise<ShimError> {
  return qemuFailure(how, sandbox.files.qemuLog, { metadata: { sandboxId: sandbox.id } });
}
