import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkPodConfig } from '../../src/containerd/pod-config.ts';
import { messageCodec } from '../../src/containerd/wire/schema.ts';
import type {
  PodSandboxConfig,
  PodSandboxConfig__Output,
} from '../../src/grpc/generated/runtime/v1/PodSandboxConfig.ts';
import { shimFailure } from '../support/agent-pair.ts';

const codec = messageCodec<PodSandboxConfig, PodSandboxConfig__Output>('runtime.v1.PodSandboxConfig');
const onHost = { securityContext: { namespaceOptions: { network: 'NODE' as const } } };

/** As it comes over the wire. */
function decoded(config: PodSandboxConfig): PodSandboxConfig__Output {
  return codec.deserialize(codec.serialize(config));
}

describe('what CRI asks of a pod', () => {
  it('a network of its own is refused, also when nothing is said, which means one', () => {
    for (const linux of [null, {}, { securityContext: { namespaceOptions: { network: 'POD' as const } } }]) {
      const refusal = shimFailure('UNIMPLEMENTED', 'POD_NETWORK_NOT_SUPPORTED');
      assert.throws(() => checkPodConfig(decoded({ linux })), refusal);
    }
  });

  it('sysctls are refused by name', () => {
    const linux = { ...onHost, sysctls: { 'kernel.shm_rmid_forced': '1' } };
    assert.throws(() => checkPodConfig(decoded({ linux })), /kernel\.shm_rmid_forced/);
  });

  it('a host name and DNS are named as not applied; a pod that asks for neither gets all', () => {
    assert.deepEqual(checkPodConfig(decoded({ linux: onHost })), []);
    const dnsConfig = { searches: ['cluster.local'] };
    assert.deepEqual(checkPodConfig(decoded({ linux: onHost, hostname: 'h', dnsConfig })), ['hostname', 'dns_config']);
  });
});
