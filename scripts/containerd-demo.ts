/**
 * `npm run demo:containerd`: a real containerd from Debian runs a pod in a qshim sandbox: a container on a hot-plugged
 * root file system, a volume attached to the running pod through containerd, the daemon killed under it. Leaves nothing
 * behind.
 */
import { release } from 'node:os';
import { podConfig } from '../test/support/containerd/cri.ts';
import { ControllerClient } from '../test/support/containerd/controller-client.ts';
import { NotAvailable } from '../test/support/containerd/packages.ts';
import { ContainerdRig } from '../test/support/containerd/rig.ts';
import { ensureTestTools } from './lib/prepare.ts';

const started = performance.now();

/** Tells what happens, does it, and says how long it took. */
async function step<T>(what: string, act: () => Promise<T>): Promise<T> {
  const begun = performance.now();
  const result = await act();
  console.log(`  ${what} ... ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  return result;
}

function say(text: string): void {
  console.log(`\n${text}`);
}

async function story(): Promise<void> {
  say('1. An unmodified containerd 2.1 from Debian, and qshimd as its sandboxer "qshim".');
  await using rig = await step('both start in a directory of their own; a busybox image is made and imported', () =>
    ContainerdRig.start('2.1'),
  );

  say('2. A pod is a VM; its container runs inside.');
  const config = podConfig('demo');
  const podId = await step('RunPodSandbox', () => rig.cri.runPod(config));
  const command = ['/bin/sh', '-c', 'n=0; while :; do n=$((n+1)); echo $n > /count; sleep 1; done'];
  const containerId = await step(
    'CreateContainer and StartContainer (its root file system is hot-plugged)',
    async () => {
      const id = await rig.cri.createContainer(podId, config, 'main', { command });
      await rig.cri.startContainer(id);
      return id;
    },
  );
  const kernel = await step('ExecSync uname -r', () => rig.cri.shell(containerId, 'uname -r'));
  console.log(`  The container runs Linux ${kernel.trim()}; this host runs ${release()}.`);
  console.log(`  The pod's volumes: ${(await rig.attachedVolumes(podId)).join(', ')}`);

  say('3. A volume comes to the running pod, through containerd itself, and goes again.');
  using controller = new ControllerClient(rig.address);
  const path = await rig.daemon.rawFile('data.raw');
  await step('Controller.Update with one volume: plugged in, driver live', () =>
    controller.updateVolumes(podId, [{ volumeId: 'data', spec: { rawFile: { path } } }]),
  );
  console.log(`  The pod's volumes: ${(await rig.attachedVolumes(podId)).join(', ')}`);
  await step('Controller.Update with none: unplugged, proven gone', () => controller.updateVolumes(podId, []));

  say('4. qshimd is killed with SIGKILL and started again. containerd and the container do not notice.');
  await step('kill -9, and the next qshimd takes over', () => rig.restartDaemon('SIGKILL'));
  const count = await step('ExecSync cat /count', () => rig.cri.shell(containerId, 'cat /count'));
  console.log(`  The container has counted to ${count.trim()} meanwhile.`);

  say('5. Everything is cleared away.');
  await step('StopContainer and RemoveContainer', async () => {
    await rig.cri.stopContainer(containerId, 0);
    const { exitCode } = await rig.exited(containerId);
    console.log(`  The container's exit code is ${exitCode}.`);
    await rig.cri.removeContainer(containerId);
  });
  await step('StopPodSandbox and RemovePodSandbox', async () => {
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
  });
}

console.log('qshim under containerd: pods are VMs, root file systems and volumes are hot-plugged disks.');
await ensureTestTools();
try {
  await story();
  console.log(`\nDone; nothing is left behind. ${((performance.now() - started) / 1000).toFixed(1)} s in all.`);
} catch (error) {
  if (!(error instanceof NotAvailable)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
