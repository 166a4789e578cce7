import { sleep } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import { iothreadIds } from '../volume/model/placement.ts';
import { FENCE_BRIDGE, bridgesFor } from '../volume/model/slots.ts';
import type { RunningAccelerator } from '../qemu/argv.ts';
import type { QemuProcess } from '../qemu/process.ts';
import { findBootImages } from '../volume/looks.ts';
import type { SandboxEnvironment } from './environment.ts';
import type { Sandbox } from './sandbox.ts';
import { hostnameOf } from './spec.ts';
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
  const images = await findBootImages(spec, config);
  await chooseAccelerator(sandbox, environment);
  return {
    accelerator: sandbox.accelerator,
    vcpus: spec.vcpus,
    memoryMib: spec.memoryMib,
    ...images,
    kernelParameters: kernelParametersOf(sandbox),
    bridges: [...bridgesFor(spec.volumeCapacity), FENCE_BRIDGE],
    iothreads: iothreadIds(spec.iothreads),
    portsMax: config.guest_ports_max,
  };
}

/** In whose name a sandbox's VM holds its boot images. */
export function bootOwner(sandboxId: string): string {
  return `sandbox ${sandboxId}, which boots it`;
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
