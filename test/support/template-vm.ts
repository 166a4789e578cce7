import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '../../src/base/log.ts';
import { bridgesFor } from '../../src/volume/model/slots.ts';
import { GuestAgent } from '../../src/guest/agent.ts';
import type { AssumedIdentity } from '../../src/guest/identity.ts';
import { qemuArguments, type GuestMemory } from '../../src/qemu/argv.ts';
import { findProgram, identifyFile } from '../../src/qemu/file-identity.ts';
import { QemuProcess } from '../../src/qemu/process.ts';
import { templateKey } from '../../src/template/key.ts';
import type { TemplateBuild, TemplateLease } from '../../src/template/store.ts';
import type { QmpClient } from '../../src/qmp/client.ts';
import { sandboxFiles, type SandboxFiles } from '../../src/qemu/files.ts';
import { cloneMemory, connectQmp, makeTemplate, startClone, type TemplateLaunch } from '../../src/template/vm.ts';
import { bareQemuBinary } from './bare-qemu.ts';
import { cellsFor } from './cells.ts';
import { INITRD, KERNEL, KERNEL_PARAMETERS } from './guest-image.ts';

/** VMs from templates without a daemon: what src/sandbox/boot.ts does, cut down to the part that is tested. */

export const START_TIMEOUT_MS = 60_000;

export const testLaunch: TemplateLaunch = {
  accelerator: 'tcg',
  vcpus: 2,
  memoryMib: 256,
  kernel: KERNEL,
  initrd: INITRD,
  kernelParameters: KERNEL_PARAMETERS,
  iothreads: [],
  bridges: bridgesFor(62),
  portsMax: 127,
};

/** The key of the template for a launch, from the files as they are now. */
export async function keyOf(launch: TemplateLaunch): Promise<string> {
  return templateKey({
    launch,
    qemu: await identifyFile(await findProgram(bareQemuBinary)),
    qemuVersion: 'of the tests',
    kernel: await identifyFile(launch.kernel),
    initrd: await identifyFile(launch.initrd),
    qshimVersion: 'of the tests',
    hostBoot: 'of the tests',
  });
}

export async function templateBuild(launch: TemplateLaunch): Promise<TemplateBuild> {
  const cells = await cellsFor({ qemu_binary: bareQemuBinary });
  return {
    key: await keyOf(launch),
    keyNow: () => keyOf(launch),
    memoryBytes: launch.memoryMib * 1_048_576,
    make: (target) => makeTemplate(target, { cells, launch, log: silentLogger(), timeoutMs: START_TIMEOUT_MS }),
  };
}

/** Of a QEMU that nothing confines. */
export const UNSEALED = { seal: () => Promise.resolve() };

/** A QEMU that has greeted; disposing kills it and removes its directory. */
export interface StartedVm extends AsyncDisposable {
  readonly qemu: QemuProcess;
  readonly qmp: QmpClient;
  readonly agent: GuestAgent;
  readonly files: SandboxFiles;
  readonly uuid: string;
}

/**
 * Starts QEMU and connects to its QMP socket; the agent's client is there, and not used yet.
 * @param descriptor of its guest's memory, unless that is anonymous
 * @throws with QEMU's own words when it ends first
 */
export async function startVm(
  launch: TemplateLaunch,
  memory: (files: SandboxFiles) => GuestMemory = () => ({ kind: 'anonymous' }),
  descriptor?: number,
): Promise<StartedVm> {
  await using stack = new AsyncDisposableStack();
  const root = await mkdtemp(join(tmpdir(), 'qshim-template-vm-'));
  stack.defer(() => rm(root, { recursive: true }));
  const files = sandboxFiles(join(root, 'vm'));
  await mkdir(files.directory);
  const uuid = randomUUID();
  const args = qemuArguments({ ...launch, sandboxId: 'test', uuid, files, memory: memory(files) });
  const qemu = await QemuProcess.spawn(bareQemuBinary, args, files.directory, files.qemuLog, 'system', descriptor);
  stack.defer(async () => {
    await qemu.kill('SIGKILL');
    await qemu.exited;
  });
  const qmp = stack.use(
    await connectQmp(
      qemu,
      files,
      { log: silentLogger() },
      {
        timeoutMs: START_TIMEOUT_MS,
        signal: new AbortController().signal,
      },
    ),
  );
  const agent = stack.use(new GuestAgent({ path: files.agentSocket, log: silentLogger() }));
  const owned = stack.move();
  return { qemu, qmp, agent, files, uuid, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

export interface StartedClone extends StartedVm {
  readonly assumed: AssumedIdentity;
}

/** Starts a clone's QEMU, which has no state yet. */
export async function startCloneQemu(
  launch: TemplateLaunch,
  lease: Pick<TemplateLease, 'openMemory'>,
): Promise<StartedVm> {
  await using memory = await lease.openMemory();
  return await startVm(launch, cloneMemory, memory.fd);
}

/** Starts a clone; the caller keeps the lease. */
export async function startTestClone(
  launch: TemplateLaunch,
  lease: TemplateLease,
  hostname: string,
): Promise<StartedClone> {
  await using stack = new AsyncDisposableStack();
  const vm = stack.use(await startCloneQemu(launch, lease));
  const { assumed, port } = await startClone(
    { ...vm, cell: UNSEALED, lease, identity: { uuid: vm.uuid, hostname } },
    { timeoutMs: START_TIMEOUT_MS, signal: AbortSignal.timeout(START_TIMEOUT_MS) },
  );
  await port[Symbol.asyncDispose]();
  const owned = stack.move();
  return { ...vm, assumed, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
