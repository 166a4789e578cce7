import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent } from '../../src/guest/agent.ts';
import { bareQemuBinary } from '../support/bare-qemu.ts';
import { INITRD, KERNEL, KERNEL_PARAMETERS } from '../support/guest-image.ts';

const START_MS = 120_000;

/** A guest on a QEMU without qshim: a root port for one disk, and the hotplug controller that is asked for. */
export async function startPlainVm(
  directory: string,
  options: { readonly acpiHotplug: boolean; readonly diskBytes: number },
): Promise<AsyncDisposable & { readonly diskPath: string }> {
  const diskPath = join(directory, 'disk.raw');
  await using file = await open(diskPath, 'w');
  await file.truncate(options.diskBytes);
  const acpi = options.acpiHotplug ? 'on' : 'off';
  await using stack = new AsyncDisposableStack();
  const qmp = join(directory, 'spare.sock');
  const child = spawn(
    bareQemuBinary,
    [
      ...['-machine', 'q35,accel=tcg', '-cpu', 'max', '-m', '512', '-smp', '1', '-nodefaults', '-display', 'none'],
      ...['-kernel', KERNEL, '-initrd', INITRD, '-append', KERNEL_PARAMETERS],
      ...['-global', `ICH9-LPC.acpi-pci-hotplug-with-bridge-support=${acpi}`],
      ...['-device', 'pcie-root-port,id=port0,chassis=1'],
      ...['-device', 'virtio-serial-pci,id=serial0'],
      ...['-chardev', `socket,id=agent,path=${join(directory, 'agent.sock')},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
      ...['-qmp', `unix:${qmp},server=on,wait=off`],
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const exited = once(child, 'exit');
  stack.defer(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const end = performance.now() + START_MS;
  while (!(await isThere(qmp))) {
    if (performance.now() > end) throw new Error('QEMU did not start');
    await sleep(10);
  }
  const agent = stack.use(new GuestAgent({ path: join(directory, 'agent.sock'), log: silentLogger() }));
  await agent.waitReady({ timeoutMs: START_MS });
  const owned = stack.move();
  return { diskPath, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
