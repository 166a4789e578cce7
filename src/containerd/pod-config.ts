import { ShimError } from '../base/errors.ts';
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
