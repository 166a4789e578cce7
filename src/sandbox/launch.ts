import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { sleep } from '../base/deadline.ts';
import { ShimError, errnoOf, invalidArgument, messageOf, shimError } from '../base/errors.ts';
import { iothreadIds } from '../volume/model/placement.ts';
import { FENCE_BRIDGE, bridgesFor } from '../volume/model/slots.ts';
import type { RunningAccelerator } from '../qemu/argv.ts';
import type { QemuProcess } from '../qemu/process.ts';
import { resolveAllowed } from '../volume/source/open-file.ts';
import type { SandboxEnvironment } from './environment.ts';
import type { Sandbox } from './sandbox.ts';
import { hostnameOf, type SandboxSpec } from './spec.ts';
import type { LaunchIdentity, TemplateLaunch } from '../template/vm.ts';

/** What every start of a sandbox has in common, be it a boot (boot.ts) or a clone (clone.ts). */

const KILL_RETRY_MS = 200;

/**
 * Everything about the VM that does not depend on which sandbox it is.
 * @throws what bootSandbox says of boot images and accelerators
 */
export async function prepareLaunch(sandbox: Sandbox, environment: SandboxEnvironment): Promise<TemplateLaunch> {
  const { spec } = sandbox.identity;
  const { config } = sandbox;
  const [kernel, initrd] = await bootImages(spec, config);
  await chooseAccelerator(sandbox, environment);
  return {
    accelerator: sandbox.accelerator,
    vcpus: spec.vcpus,
    memoryMib: spec.memoryMib,
    kernel,
    initrd,
    kernelParameters: kernelParametersOf(sandbox),
    bridges: [...bridgesFor(spec.volumeCapacity), FENCE_BRIDGE],
    iothreads: iothreadIds(spec.iothreads),
    portsMax: config.guest_ports_max,
  };
}

/** What tells the VM of one sandbox from that of another with the same spec. */
export function launchIdentity(sandbox: Sandbox): LaunchIdentity {
  const { id, uuid } = sandbox.identity;
  return { sandboxId: id, uuid, hostname: hostnameOf(id, kernelParametersOf(sandbox)) };
}

/** The configured parameters, and the caller's behind them. */
export function kernelParametersOf({ config, identity }: Sandbox): string {
  return [config.kernel_parameters, identity.spec.kernelParameters].filter((part) => part !== '').join(' ');
}

/** Never gives up: a QEMU that nobody owns must not be left. */
export async function endQemu(sandbox: Sandbox, qemu: QemuProcess): Promise<void> {
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

/**
 * The kernel and ramdisk to boot. Those that the configuration names are trusted; a caller's must lie in allowed_roots.
 */
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
      const option = field.replace('spec.', '');
      const builds = denied ? '' : 'npm run guest builds the reference guest, ';
      const hint = path === configured ? ` (${builds}the option ${option} names another)` : '';
      throw shimError(
        denied ? 'SOURCE_NOT_ACCESSIBLE' : 'BOOT_IMAGE_NOT_FOUND',
        `${field} = ${JSON.stringify(path)} cannot be read: ${messageOf(error)}${hint}`,
        { metadata: { field, value: path }, cause: error },
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

async function chooseAccelerator(sandbox: Sandbox, { accelerators }: SandboxEnvironment): Promise<void> {
  const wanted = sandbox.identity.spec.accelerator;
  const choose = (accelerator: RunningAccelerator, reason: string): void => {
    sandbox.launching({ accelerator, acceleratorReason: reason });
    sandbox.log.info({ accelerator, reason }, 'accelerator chosen');
  };
  if (wanted === 'tcg') {
    choose('tcg', 'asked for');
    return;
  }
  const kvm = await accelerators.kvm();
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
