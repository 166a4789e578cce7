import { randomUUID } from 'node:crypto';
import { access, mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { waitFor } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { qemuArguments } from '../qemu/argv.ts';
import { QemuProcess, describeExit, waitForSocket } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { assertAcpiHotplug } from './acpi-hotplug.ts';
import { startFromTemplate } from './clone.ts';
import { refuseLaterJournal } from './journal.ts';
import { startFromPool } from './pool-start.ts';
import type { PoolMember } from './pool.ts';
import { findQemu } from './recover.ts';
import { endQemu, enterRunning, launchIdentity, prepareLaunch } from './launch.ts';
import { JOURNAL_FILE, type Sandbox } from './sandbox.ts';
import { Stopwatch } from './stopwatch.ts';
import type { TemplateLaunch } from './template-vm.ts';

/** In the names of directories that were put aside; adoption passes them over. */
export const LEFT_OVER_MARK = '.left-';
const CONSOLE_TAIL_BYTES = 2000;
const QEMU_START_TIMEOUT_MS = 30_000;
const EXIT_SEEN_MS = 1000;

/** A random UUID for a new sandbox. */
export function newUuid(): string {
  return randomUUID();
}

/**
 * Starts a sandbox that was just made: from a template where its spec wants one and there is one, else by a boot. When
 * it fails, the process and the state directory are gone before this throws.
 * @throws ShimError FAILED_PRECONDITION (KVM_UNUSABLE, QEMU_EXITED, ACPI_HOTPLUG_OFF, BOOT_IMAGE_NOT_FOUND),
 *   INVALID_ARGUMENT / WRONG_FILE_TYPE and PERMISSION_DENIED for boot images, DEADLINE_EXCEEDED / GUEST_AGENT_TIMEOUT, UNIMPLEMENTED / QEMU_TOO_OLD;
 *   where a template is required, what kept it from being used
 * @param member the clone in whose directory the sandbox was made, to be used if it still fits
 */
export async function bootSandbox(sandbox: Sandbox, member?: PoolMember): Promise<void> {
  const { environment, identity } = sandbox;
  const { template } = identity.spec;
  const watch = new Stopwatch();
  await using undo = new AsyncDisposableStack();
  const launch = await prepareLaunch(sandbox).catch(async (error: unknown) => {
    if (member !== undefined) await environment.pool.endTaken(member);
    throw error;
  });
  watch.lap('probe');
  if (!(await startWarm(sandbox, launch, member, watch, undo))) {
    const qemu = await coldStart(sandbox, launch);
    undo.defer(() => endQemu(sandbox, qemu));
    await completeBoot(sandbox, qemu, watch);
    if (template !== 'off') environment.templates.makeSoon(launch);
  } else environment.pool.refill(identity.spec, launch);
  undo.move();
}

/** Starts from the pool or from a template; false when it has to boot. Then its directory is there, and empty. */
async function startWarm(
  sandbox: Sandbox,
  launch: TemplateLaunch,
  member: PoolMember | undefined,
  watch: Stopwatch,
  undo: AsyncDisposableStack,
): Promise<boolean> {
  const { template } = sandbox.identity.spec;
  if (member !== undefined) {
    undo.defer(() => removeDirectory(sandbox));
    if (await startFromPool(sandbox, member, launch, watch)) return true;
  }
  await makeDirectory(sandbox);
  undo.defer(() => removeDirectory(sandbox));
  return template !== 'off' && (await startFromTemplate(sandbox, launch, template, watch));
}

/**
 * Goes on with a boot whose daemon was killed: QEMU runs, and nobody has heard of the guest yet. Ends as bootSandbox does.
 * @throws as bootSandbox
 */
export async function resumeBoot(sandbox: Sandbox, qemu: QemuProcess): Promise<void> {
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeDirectory(sandbox));
  undo.defer(() => endQemu(sandbox, qemu));
  await completeBoot(sandbox, qemu, new Stopwatch());
  undo.move();
}

/**
 * Begins anew what was to be a clone when its daemon was killed: how far it had come cannot be seen. Ends as bootSandbox does.
 * @throws as bootSandbox
 */
export async function restartClone(sandbox: Sandbox, qemu: QemuProcess | undefined): Promise<void> {
  await qemu?.kill('SIGKILL');
  await qemu?.exited;
  await rm(sandbox.files.directory, { recursive: true, force: true });
  await bootSandbox(sandbox);
}

/** Starts QEMU for a boot, with the journal before and after: a daemon that dies in between finds the process again. */
async function coldStart(sandbox: Sandbox, launch: TemplateLaunch): Promise<QemuProcess> {
  const { config, files } = sandbox;
  await sandbox.commit();
  const args = qemuArguments({ ...launch, ...launchIdentity(sandbox), files });
  const { qemu_binary: binary, qemu_allocator: allocator } = config;
  const qemu = await QemuProcess.spawn(binary, args, files.directory, files.qemuLog, allocator);
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
  watch.lap('qmp');
  await assertAcpiHotplug(client);
  watch.lap('verify');
  if (sandbox.identity.spec.readyWhen === 'agent') {
    await awaitFirstAnswer(sandbox, qemu);
    watch.lap('agent');
  }
  await enterRunning(sandbox, watch);
}

/** Never throws, so that a caller hears why the start failed: what resists is left to the manager, which goes on trying. */
async function removeDirectory(sandbox: Sandbox): Promise<void> {
  const { directory } = sandbox.files;
  try {
    await rm(directory, { recursive: true, force: true });
  } catch (error) {
    sandbox.directoryLeft = true;
    sandbox.log.warn({ directory, problem: messageOf(error) }, 'state directory of a failed start not removed');
  }
}

/**
 * A VM whose adoption failed (no descriptor left, a read error) still lives in its directory, and must be found again; so must a
 * sandbox whose journal only a later daemon can read, whether its VM lives or not.
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
    if (errnoOf(error) !== 'EEXIST') throw error;
    await refuseIfInUse(sandbox);
    const aside = `${directory}${LEFT_OVER_MARK}${Date.now()}`;
    await rename(directory, aside);
    sandbox.log.warn({ directory, aside }, 'left-over directory put aside');
    await mkdir(directory, { mode: 0o700 });
  }
}

/** Connects as soon as QEMU listens. When QEMU ends first, that is the failure to tell, whichever trace of it is seen first. */
async function openQmp(sandbox: Sandbox, qemu: QemuProcess, watch: Stopwatch): Promise<QmpClient> {
  const limit = AbortSignal.timeout(QEMU_START_TIMEOUT_MS);
  try {
    await waitForSocket(() => exists(sandbox.files.qmpSocket), qemu, AbortSignal.any([sandbox.ended, limit]));
    watch.lap('spawn');
    return await sandbox.link.open({ handshakeTimeoutMs: QEMU_START_TIMEOUT_MS, startingUp: true });
  } catch (error) {
    // A connection breaks a moment before the process that broke it is seen to have ended.
    const ended = await waitFor(qemu.exited, { milliseconds: EXIT_SEEN_MS }).then(
      () => true,
      () => false,
    );
    throw ended || limit.aborted ? await startFailure(sandbox, qemu) : error;
  }
}

async function awaitFirstAnswer(sandbox: Sandbox, qemu: QemuProcess): Promise<void> {
  try {
    await sandbox.agent.waitReady({ timeoutMs: sandbox.config.boot_timeout_ms, signal: sandbox.ended });
    sandbox.agentAnswered();
  } catch (error) {
    if (qemu.exit !== undefined) throw await startFailure(sandbox, qemu);
    const tail = await consoleTail(sandbox);
    throw new ShimError('DEADLINE_EXCEEDED', `the guest agent did not answer: ${messageOf(error)}${tail}`, {
      reason: 'GUEST_AGENT_TIMEOUT',
      metadata: { sandboxId: sandbox.id },
      cause: error,
    });
  }
}

async function startFailure(sandbox: Sandbox, qemu: QemuProcess): Promise<ShimError> {
  const log = (await readFile(sandbox.files.qemuLog, 'utf8').catch(() => '')).trim().slice(-CONSOLE_TAIL_BYTES);
  const how = qemu.exit === undefined ? 'QEMU did not answer on its QMP socket in time' : describeExit(qemu.exit);
  return new ShimError('FAILED_PRECONDITION', `${how}${log === '' ? '' : `: ${log}`}`, {
    reason: 'QEMU_EXITED',
    metadata: { sandboxId: sandbox.id },
  });
}

/** The end of what the guest wrote to its console, for an error message. */
async function consoleTail(sandbox: Sandbox): Promise<string> {
  try {
    await using file = await open(sandbox.files.consoleLog, 'r');
    const { size } = await file.stat();
    const length = Math.min(size, CONSOLE_TAIL_BYTES);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return `; the console ends with: ${JSON.stringify(buffer.toString('utf8').trim())}`;
  } catch {
    // It only adds to a message; the failure that it is about is told without it.
    return '';
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
