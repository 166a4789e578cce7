import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkPodConfig, podSize } from '../../src/containerd/pod-config.ts';
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

  it("the guest's memory is that of limits and overhead; its CPUs those of the limits, as far as the host has them", () => {
    const mebibyte = 1024 * 1024;
    const resources = { cpuPeriod: 100_000, cpuQuota: 150_000, memoryLimitInBytes: 64 * mebibyte + 1 };
    const overhead = { cpuPeriod: 100_000, cpuQuota: 10_000, memoryLimitInBytes: 160 * mebibyte };
    const sizeOf = (linux: object, hostCpus = 8): unknown => podSize(decoded({ linux }), hostCpus);
    assert.deepEqual(sizeOf({ resources, overhead }), { vcpus: 2, memoryMib: 225 });
    assert.deepEqual(sizeOf({ resources, overhead }, 1), { vcpus: 1, memoryMib: 225 });
    assert.deepEqual(sizeOf({ resources: { ...resources, cpuQuota: -1 } }), { memoryMib: 65 });
    assert.deepEqual(sizeOf({ resources: { cpuQuota: 1000 } }), { vcpus: 1 });
    for (const none of [{}, { overhead }, { resources: {} }, { resources: { cpuQuota: -1, memoryLimitInBytes: -1 } }]) {
      assert.equal(sizeOf(none), undefined);
    }
  });
});
