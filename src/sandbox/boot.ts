import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { sleep, waitFor } from '../base/deadline.ts';
import { ShimError, errnoOf, invalidArgument, messageOf } from '../base/errors.ts';
import { bridgesFor } from '../device/slots.ts';
import { qemuArguments, type RunningAccelerator } from '../qemu/argv.ts';
import { QemuProcess, describeExit, waitForSocket } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import { resolveAllowed } from './backing.ts';
import type { Sandbox, SandboxEnvironment } from './sandbox.ts';
import type { SandboxSpec } from './spec.ts';
import { Stopwatch } from './stopwatch.ts';

/** In the names of directories that were put aside; adoption passes them over. */
export const LEFT_OVER_MARK = '.left-';
const CONSOLE_TAIL_BYTES = 2000;
const QEMU_START_TIMEOUT_MS = 30_000;
const EXIT_SEEN_MS = 1000;
const KILL_RETRY_MS = 200;

/** A random UUID for a new sandbox. */
export function newUuid(): string {
  return randomUUID();
}

/**
 * Boots a sandbox that was just made: accelerator, QEMU, QMP, the checks of what QEMU really is, and the guest agent.
 * When a phase fails, the process and the state directory are gone before this throws.
 * @throws ShimError FAILED_PRECONDITION (KVM_UNUSABLE, QEMU_EXITED, ACPI_HOTPLUG_OFF, BOOT_IMAGE_NOT_FOUND),
 *   INVALID_ARGUMENT / WRONG_FILE_TYPE and PERMISSION_DENIED for boot images, DEADLINE_EXCEEDED / GUEST_AGENT_TIMEOUT, UNIMPLEMENTED / QEMU_TOO_OLD
 */
export async function bootSandbox(sandbox: Sandbox): Promise<void> {
  const { config } = sandbox;
  const watch = new Stopwatch();
  await using undo = new AsyncDisposableStack();
  const [kernel, initrd] = await bootImages(sandbox.identity.spec, config);
  await chooseAccelerator(sandbox);
  watch.lap('probe');
  await makeDirectory(sandbox);
  undo.defer(() => removeDirectory(sandbox));
  await sandbox.commit();
  const qemu = await spawn(sandbox, kernel, initrd);
  undo.defer(() => endQemu(sandbox, qemu));
  sandbox.own(qemu);
  // Journalled at once: a daemon that dies now finds the process when it comes back.
  await sandbox.commit();
  await completeBoot(sandbox, qemu, watch);
  undo.move();
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
  sandbox.timings = watch.timings;
  sandbox.enter('running', undefined);
  await sandbox.commit();
}

/** Never gives up: a QEMU that nobody owns must not be left. */
async function endQemu(sandbox: Sandbox, qemu: QemuProcess): Promise<void> {
  for (;;) {
    try {
      await qemu.kill('SIGKILL');
      break;
    } catch (error) {
      sandbox.log.warn({ pid: qemu.pid, problem: messageOf(error) }, 'qemu not killed, trying again');
      await sleep(KILL_RETRY_MS);
    }
  }
  await sandbox.stopped;
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

/** A directory that no sandbox owns any more, left by a host that crashed, is put aside under another name. */
async function makeDirectory(sandbox: Sandbox): Promise<void> {
  const { directory } = sandbox.files;
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    const aside = `${directory}${LEFT_OVER_MARK}${Date.now()}`;
    await rename(directory, aside);
    sandbox.log.warn({ directory, aside }, 'left-over directory put aside');
    await mkdir(directory, { mode: 0o700 });
  }
}

/** The kernel and ramdisk to boot. Those that the configuration names are trusted; a caller's must lie in allowed_roots. */
async function bootImages(
  spec: SandboxSpec,
  config: SandboxEnvironment['config'],
): Promise<readonly [kernel: string, initrd: string]> {
  const resolve = async (field: string, path: string, configured: string): Promise<string> => {
    const resolved = path === configured ? path : await resolveAllowed(field, path, config.allowed_roots);
    try {
      await access(resolved, constants.R_OK);
    } catch (error) {
      const denied = errnoOf(error) === 'EACCES';
      const hint = path === configured ? ' (npm run guest builds the reference guest)' : '';
      throw new ShimError(
        denied ? 'PERMISSION_DENIED' : 'FAILED_PRECONDITION',
        `${field} = ${JSON.stringify(path)} cannot be read: ${messageOf(error)}${denied ? '' : hint}`,
        {
          reason: denied ? 'SOURCE_NOT_ACCESSIBLE' : 'BOOT_IMAGE_NOT_FOUND',
          metadata: { field, value: path },
          cause: error,
        },
      );
    }
    // QEMU would wait at a FIFO for ever.
    if (!(await stat(resolved)).isFile()) {
      throw invalidArgument(field, path, 'is not a regular file', 'WRONG_FILE_TYPE');
    }
    return resolved;
  };
  return [
    await resolve('spec.kernel', spec.kernel, config.kernel),
    await resolve('spec.initrd', spec.initrd, config.initrd),
  ];
}

async function chooseAccelerator(sandbox: Sandbox): Promise<void> {
  const wanted = sandbox.identity.spec.accelerator;
  const choose = (accelerator: RunningAccelerator, reason: string): void => {
    sandbox.accelerator = accelerator;
    sandbox.acceleratorReason = reason;
    sandbox.log.info({ accelerator, reason }, 'accelerator chosen');
  };
  if (wanted === 'tcg') {
    choose('tcg', 'asked for');
    return;
  }
  const kvm = await sandbox.environment.accelerators.kvm();
  if (kvm.usable) {
    choose('kvm', kvm.reason);
    return;
  }
  if (wanted === 'kvm') {
    throw new ShimError('FAILED_PRECONDITION', `KVM is not usable on this host: ${kvm.reason}`, {
      reason: 'KVM_UNUSABLE',
      metadata: { field: 'spec.accelerator', value: 'kvm' },
    });
  }
  choose('tcg', `KVM is not usable: ${kvm.reason}`);
}

async function spawn(sandbox: Sandbox, kernel: string, initrd: string): Promise<QemuProcess> {
  const { id, spec, uuid } = sandbox.identity;
  const { config, files } = sandbox;
  const args = qemuArguments({
    sandboxId: id,
    uuid,
    accelerator: sandbox.accelerator,
    vcpus: spec.vcpus,
    memoryMib: spec.memoryMib,
    kernel,
    initrd,
    kernelParameters: [config.kernel_parameters, spec.kernelParameters].filter((part) => part !== '').join(' '),
    bridges: bridgesFor(spec.volumeCapacity),
    files,
  });
  return await QemuProcess.spawn(config.qemu_binary, args, files.directory, files.qemuLog);
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

/** Asked, not assumed: with native PCIe hotplug every detach would take 6 s. */
async function assertAcpiHotplug(client: QmpClient): Promise<void> {
  const devices = await client.run('qom-list', { path: '/machine/unattached' });
  const lpc = devices.find((device) => device.type === 'child<ICH9-LPC>');
  const acpi =
    lpc === undefined
      ? undefined
      : await client.run('qom-get', {
          path: `/machine/unattached/${lpc.name}`,
          property: 'acpi-pci-hotplug-with-bridge-support',
        });
  if (acpi !== true) {
    throw new ShimError('FAILED_PRECONDITION', 'this QEMU does not hot-plug PCI devices through ACPI on q35', {
      reason: 'ACPI_HOTPLUG_OFF',
      metadata: { seen: String(acpi) },
    });
  }
}

async function awaitFirstAnswer(sandbox: Sandbox, qemu: QemuProcess): Promise<void> {
  try {
    await sandbox.agent.waitReady({ timeoutMs: sandbox.config.boot_timeout_ms, signal: sandbox.ended });
    sandbox.agentReady = true;
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
  const said = log.split(/\s*\n\s*/).join('; ');
  const how = qemu.exit === undefined ? 'QEMU did not answer on its QMP socket in time' : describeExit(qemu.exit);
  return new ShimError('FAILED_PRECONDITION', `${how}${said === '' ? '' : `: ${said}`}`, {
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
