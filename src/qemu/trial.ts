import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Deadline, waitFor } from '../base/deadline.ts';
import { isShimError, messageOf, shimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { binaryKey, probeCapabilities, type TryOut } from '../qmp/capabilities.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { QemuCapabilities, Trial, TriedCommand, Trials } from '../qmp/qemu-capabilities.ts';
import { withBareQemu, type BareQemu, type BareQemuConfig } from './bare-qemu.ts';
import { qemuFailure } from './connect.ts';
import { describeExit } from './process.ts';

/**
 * What QEMU's description of itself does not tell: whether it survives its experimental commands. They are sent to a VM
 * that nobody uses: paused, without a guest, with one disk.
 *
 *     observe.ts, key-slots.ts ─▶ probe ─▶ qmp/capabilities.ts: not known yet ─▶ tryCommands ─▶ a VM ─▶ Trials, kept
 */

const DISK = 'trial';
const DISK_BYTES = 4 * 1024 * 1024;
/** A guest in 16 MiB whose firmware is nothing but `hlt`: it never runs. The binary's own firmware is not needed. */
const FIRMWARE = Buffer.alloc(65_536, 0xf4);
const JOB_TIMEOUT_MS = 20_000;
const EXIT_SEEN_MS = 5000;
/** Milliseconds of key derivation: the least. */
const ITERATION_MS = 10;
const NO_CLOCK = 'Unable to get accurate CPU usage';
/** `-name` of the VM: no sandbox's. */
export const TRIAL_VM_NAME = 'qshim-trial';
/** Whoever sends these ends a process for reasons of his own: the kernel when memory runs out, an administrator. */
const FROM_OUTSIDE: readonly (string | undefined)[] = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP'];

const TRIALS: Readonly<Record<TriedCommand, (bare: BareQemu) => Promise<void>>> = {
  'x-query-virtio-status': async ({ qmp }) => {
    await qmp.run('x-query-virtio-status', { path: `/machine/peripheral/${DISK}/virtio-backend` });
  },
  'x-blockdev-amend': tryAmend,
};

/**
 * Sends each of the commands to a VM of its own, and says what became of it.
 * @param key of the binary that is meant (`binaryKey`)
 * @throws Error when no VM can be had, or the configured binary is another one by now: nothing was tried then
 */
export async function tryCommands(
  config: BareQemuConfig,
  log: Logger,
  key: string,
  commands: readonly TriedCommand[],
): Promise<Trials> {
  const trials: Partial<Record<TriedCommand, Trial>> = {};
  for (const command of commands) {
    const work = async (bare: BareQemu): Promise<Trial> => {
      await checkBinary(bare, key);
      return await tryOne(bare, command);
    };
    trials[command] = await withBareQemu(config, log, work, machine);
  }
  return trials;
}

/** What `requireCommand` needs: a client of the QEMU that is to be sent the command, and whose binary it is. */
export interface CommandTarget {
  readonly qmp: QmpClient;
  /** The path of the binary that runs. */
  readonly binary: string;
  readonly config: BareQemuConfig & { readonly cache_dir: string };
  readonly log: Logger;
}

/**
 * To be awaited before a command that is not tried at once is sent.
 * @throws ShimError UNIMPLEMENTED / QEMU_COMMAND_UNFIT when this QEMU is not known to survive it
 * @throws what `QmpClient.run` throws
 */
export async function requireCommand({ qmp, ...target }: CommandTarget, command: TriedCommand): Promise<void> {
  const { versionText, trials } = await probe(qmp, target, [command]);
  const { outcome, detail } = trials[command] ?? { outcome: 'untried', detail: '' };
  if (outcome === 'works') return;
  throw shimError('QEMU_COMMAND_UNFIT', `QEMU ${versionText} is not sent ${command} (${outcome}): ${detail}`, {
    metadata: { version: versionText, command, outcome },
  });
}

/**
 * What the QEMU behind a connection can do; the commands that are needed are tried if they never were.
 * @throws as `probeCapabilities`
 */
export async function probe(
  qmp: QmpClient,
  { binary, config, log }: Omit<CommandTarget, 'qmp'>,
  needed: readonly TriedCommand[],
): Promise<QemuCapabilities> {
  const tryOut: TryOut = (key, commands) => tryCommands(config, log, key, commands);
  return await probeCapabilities(qmp, { binary, needed, tryOut, cacheDir: config.cache_dir, log });
}

/** The binary may have been replaced since the VM was started whose QEMU is to be known. */
async function checkBinary({ qmp, qemu }: BareQemu, key: string): Promise<void> {
  const tried = await binaryKey(`/proc/${qemu.pid}/exe`, qmp.greeting);
  if (tried !== key) throw new Error('the configured QEMU is another than the one that runs the VM');
}

async function tryOne(bare: BareQemu, command: TriedCommand): Promise<Trial> {
  try {
    await TRIALS[command](bare);
    return { outcome: 'works', detail: '' };
  } catch (error) {
    if (isQmpError(error) && error.command === command) return { outcome: 'refused', detail: messageOf(error) };
    // That the connection broke is no proof: the process must be seen to have ended.
    const lost = isShimError(error, 'UNAVAILABLE');
    const exit = lost
      ? await waitFor(bare.qemu.exited, { milliseconds: EXIT_SEEN_MS }).catch(() => undefined)
      : undefined;
    if (exit === undefined) return { outcome: 'untried', detail: messageOf(error) };
    const { message: detail } = await qemuFailure(describeExit(exit), bare.logFile, {});
    return { outcome: FROM_OUTSIDE.includes(exit.signal) ? 'untried' : 'fatal', detail };
  }
}

/** A LUKS image with one key is given another. Both keys are what is written here, and protect nothing. */
async function tryAmend({ qmp, directory }: BareQemu): Promise<void> {
  const filename = join(directory, 'luks.img');
  await makeFile(filename);
  const [file, node, first, second] = ['luks-file', 'luks', 'key0', 'key1'];
  for (const id of [first, second])
    await qmp.run('object-add', { 'qom-type': 'secret', id, data: `the trial's ${id}` });
  await qmp.run('blockdev-add', { driver: 'file', 'node-name': file, filename });
  const luks = { driver: 'luks', file } as const;
  const options = { ...luks, size: 65_536, 'key-secret': first, 'iter-time': ITERATION_MS };
  await runJob(qmp, 'create', (id) => qmp.run('blockdev-create', { 'job-id': id, options }));
  await qmp.run('blockdev-add', { ...luks, 'node-name': node, 'key-secret': first });
  const change = {
    driver: 'luks',
    state: 'active',
    'new-secret': second,
    secret: first,
    'iter-time': ITERATION_MS,
  } as const;
  await runJob(qmp, 'amend', (id) => qmp.run('x-blockdev-amend', { 'job-id': id, 'node-name': node, options: change }));
}

async function runJob(qmp: BareQemu['qmp'], id: string, start: (id: string) => Promise<unknown>): Promise<void> {
  const deadline = Deadline.after(JOB_TIMEOUT_MS);
  using ends = qmp.listen('JOB_STATUS_CHANGE', (event) => event.data.id === id && event.data.status === 'concluded');
  for (;;) {
    await start(id);
    await ends.next({ timeoutMs: deadline.remainingMs });
    const job = (await qmp.run('query-jobs')).find((each) => each.id === id);
    await qmp.run('job-dismiss', { id });
    if (job?.error === undefined) return;
    // QEMU measures how fast it derives keys, and fails at it now and then (volume/job.ts).
    if (!job.error.includes(NO_CLOCK)) throw new Error(`the job ${id} failed: ${job.error}`);
  }
}

async function machine(directory: string): Promise<readonly string[]> {
  const [firmware, disk] = [join(directory, 'firmware'), join(directory, 'disk.img')];
  await writeFile(firmware, FIRMWARE);
  await makeFile(disk);
  return [
    ...['-name', TRIAL_VM_NAME, '-machine', 'q35,accel=tcg:kvm', '-m', '16M', '-bios', firmware],
    ...['-blockdev', `driver=file,node-name=disk,filename=${disk.replaceAll(',', ',,')}`],
    ...['-device', `virtio-blk-pci,id=${DISK},drive=disk`],
  ];
}

async function makeFile(path: string): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.truncate(DISK_BYTES);
}
