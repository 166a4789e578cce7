import { ShimError } from '../base/errors.ts';
import type { LinuxContainerResources__Output } from '../grpc/generated/runtime/v1/LinuxContainerResources.ts';
import type { PodSandboxConfig__Output } from '../grpc/generated/runtime/v1/PodSandboxConfig.ts';

/**
 * Holds what CRI asks of a pod against what a sandbox has: no network but its own loopback, and the guest's names.
 * What the pod's programs could not do without is refused; the rest is named, and the pod's verbose status tells it.
 * @returns what is not applied, as CRI spells its members
 * @throws ShimError UNIMPLEMENTED / POD_NETWORK_NOT_SUPPORTED for a pod without hostNetwork, whose CNI address would
 *   be nobody's; UNIMPLEMENTED / SYSCTLS_NOT_SUPPORTED
 */
export function checkPodConfig(config: PodSandboxConfig__Output): readonly string[] {
  const { linux, hostname, dnsConfig } = config;
  const network = linux?.securityContext?.namespaceOptions?.network ?? 'POD';
  if (network !== 'NODE') {
    throw new ShimError(
      'UNIMPLEMENTED',
      `a pod with a network of its own (${network}) is not supported: the guest would have only lo, ` +
        'whatever address CNI gives; set hostNetwork: true',
      { reason: 'POD_NETWORK_NOT_SUPPORTED', metadata: { network } },
    );
  }
  const sysctls = Object.keys(linux?.sysctls ?? {});
  if (sysctls.length > 0) {
    throw new ShimError('UNIMPLEMENTED', `sysctls of a pod are not supported: ${sysctls.join(', ')}`, {
      reason: 'SYSCTLS_NOT_SUPPORTED',
      metadata: { sysctls: sysctls.join(',') },
    });
  }
  const { servers = [], searches = [], options = [] } = dnsConfig ?? {};
  return [
    ...(hostname === '' ? [] : ['hostname']),
    ...(servers.length + searches.length + options.length === 0 ? [] : ['dns_config']),
  ];
}

/** How large a pod's limits make its guest; a member is absent where nothing is limited. */
export interface PodSize {
  readonly vcpus?: number | undefined;
  readonly memoryMib?: number | undefined;
}

const MEBIBYTE = 1024 * 1024;
/** The kernel's, where CRI names none (cpu.cfs_period_us). */
const CPU_PERIOD_US = 100_000;

/**
 * The guest of a pod, by what kubelet says of it (CRI, LinuxPodSandboxConfig): its memory is that of its limits and its
 * overhead, since the guest's kernel lives in it too; it has as many CPUs as its limits need, since the overhead's are
 * QEMU's own. More CPUs than the host has would be of no use.
 * @param hostCpus CPUs that the daemon may use
 * @returns undefined for a pod without limits
 */
export function podSize({ linux }: PodSandboxConfig__Output, hostCpus: number): PodSize | undefined {
  const limits = linux?.resources ?? undefined;
  if (limits === undefined) return undefined;
  const cpus = cpusOf(limits);
  const vcpus = cpus === undefined ? undefined : Math.min(cpus, hostCpus);
  const limit = bytesOf(limits);
  const memoryMib = limit === 0 ? undefined : Math.ceil((limit + bytesOf(linux?.overhead ?? undefined)) / MEBIBYTE);
  if (vcpus === undefined && memoryMib === undefined) return undefined;
  return { ...(vcpus === undefined ? {} : { vcpus }), ...(memoryMib === undefined ? {} : { memoryMib }) };
}

/** Bytes; 0 and -1 mean no limit. */
function bytesOf(resources: LinuxContainerResources__Output | undefined): number {
  return Math.max(0, resources?.memoryLimitInBytes ?? 0);
}

/** 0 and -1 mean no limit. */
function cpusOf({ cpuQuota, cpuPeriod }: LinuxContainerResources__Output): number | undefined {
  if (cpuQuota <= 0) return undefined;
  return Math.ceil(cpuQuota / (cpuPeriod > 0 ? cpuPeriod : CPU_PERIOD_US));
}
