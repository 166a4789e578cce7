import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ANNOTATIONS, ANNOTATION_PREFIX } from '../../src/containerd/annotations.ts';
import { podConfig } from '../support/containerd/cri.ts';
import { ensureContainerd } from '../support/containerd/packages.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

const MEBIBYTE = 1024 * 1024;

await ensureContainerd('2.1');

describe("a pod's author, through an unmodified containerd", () => {
  it("chooses no kernel, no ramdisk, no parameters and no memory: another tenant's disk stays its own", async () => {
    await using rig = await ContainerdRig.start('2.1');
    const { client } = rig.daemon;
    const path = await rig.daemon.rawFile('tenant-a.raw');
    await client.createSandbox({ sandboxId: 'tenant-a' });
    await client.attach({ sandboxId: 'tenant-a', volumeId: 'data', spec: { rawFile: { path } } });
    // What each would have meant: A's bytes as B's ramdisk, a host's memory for one pod, a kernel of one's own.
    const wanted: Readonly<Record<string, string>> = { initrd: path, kernel: path, 'memory-mib': '65536' };
    for (const { name } of ANNOTATIONS) {
      const config = podConfig('tenant-b', { [ANNOTATION_PREFIX + name]: wanted[name] ?? '1' });
      await assert.rejects(rig.cri.runPod(config), /the option containerd_annotations enables none/, name);
    }
    assert.deepEqual(
      (await client.listSandboxes()).map(({ sandboxId }) => sandboxId),
      ['tenant-a'],
    );
    await client.deleteSandbox('tenant-a');
  });

  it('gets the memory and the CPUs of its limits', async () => {
    await using rig = await ContainerdRig.start('2.1');
    const config = podConfig('limited');
    const resources = { cpuPeriod: 100_000, cpuQuota: 100_000, memoryLimitInBytes: 96 * MEBIBYTE };
    const overhead = { memoryLimitInBytes: 160 * MEBIBYTE };
    const podId = await rig.cri.runPod({ ...config, linux: { ...config.linux, resources, overhead } });
    const { spec } = await rig.daemon.client.getSandbox(podId);
    assert.deepEqual([spec?.memoryMib, spec?.vcpus], [256, 1]);
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
  });
});
