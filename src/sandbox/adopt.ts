import { existsSync } from 'node:fs';
import { readdir, readFile, realpath, rm, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { removeLeftGroup } from '../confine/groups.ts';
import { confinementOf } from '../confine/running.ts';
import { parseUidRange } from '../confine/uids.ts';
import { sandboxFiles } from '../qemu/files.ts';
import { endQemuOf, findQemu, hasUuid } from '../qemu/find.ts';
import { QemuProcess } from '../qemu/process.ts';
import { LEFT_OVER_MARK, START_AGAIN_FILE, restartBoot, resumeBoot } from './boot.ts';
import { CORRUPT_MARK, JOURNAL_FILE, NO_CONTAINERS, readJournal, type JournalRecord } from '../store/journal.ts';
import { bootedSince, noteBoot } from './boot-id.ts';
import { sandboxDirectories } from './directories.ts';
import { bootOwner } from './launch.ts';
import { awaitAgent } from './observe.ts';
import { templateOf } from '../template/memory.ts';
import { POOL_DIRECTORY_PREFIX, SANDBOX_ID_FILE } from '../template/pool.ts';
import { sandboxFromArguments } from './recover.ts';
import type { Sandbox } from './sandbox.ts';
import { makeSandbox, type SandboxEnvironment } from './environment.ts';
import { stopSandbox } from './stop.ts';

export interface Adopted {
  readonly sandbox: Sandbox;
  /** A boot that the last daemon had begun: to be joined as a Create is, failing as a Create does. */
  readonly booting: Promise<void> | undefined;
  /** That boot is a start of a sandbox that had stopped. */
  readonly again: boolean;
}

/**
 * Takes over every sandbox that an earlier daemon left in the state directory, all at once. A directory that has
 * neither a readable journal nor a QEMU is left alone, and named in the log.
 */
export async function adoptAll(environment: SandboxEnvironment): Promise<readonly Adopted[]> {
  const { config, log } = environment;
  const directories = await sandboxDirectories(config.state_dir, log);
  const rebooted = await bootedSince(config.state_dir);
  const adopted = await Promise.all(
    directories
      .filter((directory) => !basename(directory).includes(LEFT_OVER_MARK))
      .map(async (directory) => {
        try {
          return await adopt(environment, directory, rebooted);
        } catch (error) {
          log.error({ directory, problem: messageOf(error) }, 'sandbox not adopted');
          return undefined;
        }
      }),
  );
  await noteBoot(config.state_dir, log);
  return adopted.filter((one) => one !== undefined);
}

/** @param rebooted the host has booted since: what the journal says of a process is over */
async function adopt(
  environment: SandboxEnvironment,
  directory: string,
  rebooted: boolean,
): Promise<Adopted | undefined> {
  const { log } = environment;
  const journal = await readJournal(join(directory, JOURNAL_FILE), log);
  if (journal === undefined && (await endPoolMember(directory, log))) return undefined;
  const record = journal ?? (await recordFromProcess(environment, directory));
  if (record === undefined) {
    // Empty when the daemon was killed between making the directory and writing the first record.
    const removed = await rmdir(directory).then(
      () => true,
      () => false,
    );
    if (!removed) log.warn({ directory }, 'directory without a readable journal and without a qemu left alone');
    return undefined;
  }
  const { id, spec, uuid, createdAtMs } = record.sandbox;
  const sandbox = makeSandbox(environment, { id, spec, uuid, createdAtMs, directory });
  sandbox.restore(record);
  const qemu = rebooted ? undefined : await findProcess(record, sandbox);
  const again = existsSync(join(directory, START_AGAIN_FILE));
  // One without a QEMU never ran: nobody may be told that it has been created, and has stopped since.
  if (record.sandbox.state === 'creating' && (record.sandbox.start.kind === 'clone' || qemu === undefined)) {
    return { sandbox, booting: followed(restartBoot(sandbox, environment, qemu, again)), again };
  }
  const { confinement } = record.sandbox;
  const cell = confinement && (await environment.cells.resume(confinement, qemu?.identity.pid));
  if (qemu === undefined) {
    cell?.[Symbol.dispose]();
    await sandbox.foundDead();
    return { sandbox, booting: undefined, again };
  }
  await holdTemplate(sandbox, environment);
  if (cell !== undefined) sandbox.holdCell(cell);
  await holdImages(sandbox, environment);
  sandbox.own(qemu);
  if (record.sandbox.state === 'creating') return { sandbox, booting: followed(resumeBoot(sandbox, qemu)), again };
  sandbox.inBackground('adoption', connect(sandbox));
  // Without a journal, what the VM has is known only to QEMU: nobody shall be told before that there are no volumes.
  if (journal === undefined) await lookedAt(sandbox);
  return { sandbox, booting: undefined, again };
}

/**
 * A boot may fail before the other sandboxes are adopted, and so before anybody waits for it: that must not end the
 * daemon.
 */
function followed(booting: Promise<void>): Promise<void> {
  booting.catch(() => undefined);
  return booting;
}

/** A clone goes on to count as a user of its template. */
async function holdTemplate(sandbox: Sandbox, { templates }: SandboxEnvironment): Promise<void> {
  const { templateId } = sandbox.start;
  if (templateId === '') return;
  const lease = await templates.hold(templateId);
  if (lease !== undefined) sandbox.holdTemplate(lease);
}

/**
 * What it boots goes on to be kept from being changed. That somebody may change it already is no reason not to adopt
 * what runs; and what is not there any more nobody can write to.
 */
async function holdImages(sandbox: Sandbox, { holdImages: hold }: SandboxEnvironment): Promise<void> {
  const { kernel, initrd } = sandbox.identity.spec;
  try {
    const images = { kernel: await realpath(kernel), initrd: await realpath(initrd) };
    sandbox.holdImages(images, await hold(images, bootOwner(sandbox.id)));
  } catch (error) {
    sandbox.log.warn({ problem: messageOf(error) }, 'boot images of an adopted sandbox are not held');
  }
}

/**
 * Waits for the first look at QEMU, for as long as a reply may take: a VM that is stopped must not hold up the others.
 */
async function lookedAt(sandbox: Sandbox): Promise<void> {
  try {
    await sandbox.link.within(sandbox.config.qmp_reply_timeout_ms, sandbox.gone);
  } catch (error) {
    sandbox.log.warn({ problem: messageOf(error) }, 'volumes of a recovered sandbox are not known yet');
  }
}

/** Ends a pool member whose daemon was killed; false for what is, or was, a sandbox. */
async function endPoolMember(directory: string, log: Logger): Promise<boolean> {
  if (!basename(directory).startsWith(POOL_DIRECTORY_PREFIX)) return false;
  const names = await readdir(directory);
  // A journal that could not be read was set aside under another name. One that was never finished (state.json.new)
  // means that Create had not been answered: it is still a member.
  const isJournal = (name: string): boolean =>
    name === JOURNAL_FILE || name.startsWith(`${JOURNAL_FILE}${CORRUPT_MARK}`);
  if (names.some((name) => name === SANDBOX_ID_FILE || isJournal(name))) return false;
  const pid = await endQemuOf(sandboxFiles(directory).qmpSocket);
  await removeLeftGroup(directory, log);
  await rm(directory, { recursive: true, force: true });
  log.info({ directory, pid }, 'pool member of an earlier daemon ended');
  return true;
}

async function recordFromProcess(
  { config, log }: SandboxEnvironment,
  directory: string,
): Promise<JournalRecord | undefined> {
  const found = await findQemu(sandboxFiles(directory).qmpSocket);
  if (found === undefined) return undefined;
  const { args, identity } = found;
  const templateId = await templateOf(identity.pid);
  const fromArguments = sandboxFromArguments(args, identity, config.kernel_parameters, templateId);
  if (fromArguments === undefined) return undefined;
  const id = await readFile(join(directory, SANDBOX_ID_FILE), 'utf8').catch(() => fromArguments.id);
  const confinement = await confinementOf(identity.pid, parseUidRange(config.confine_uids));
  const sandbox = { ...fromArguments, id, ...(confinement !== undefined && { confinement }) };
  log.warn({ directory, sandboxId: sandbox.id, pid: identity.pid }, 'sandbox recovered from its qemu process');
  return { version: 1, sandbox, volumes: [], ports: [], containers: NO_CONTAINERS };
}

async function findProcess(record: JournalRecord, sandbox: Sandbox): Promise<QemuProcess | undefined> {
  const { state, process } = record.sandbox;
  if (state === 'stopped') return undefined;
  const isOurs = hasUuid(record.sandbox.uuid);
  const recorded = process && (await QemuProcess.adopt(process, isOurs));
  if (recorded !== undefined) return recorded;
  // The daemon was killed between starting QEMU and writing down its pid; or what it wrote is of another process.
  const found = await findQemu(sandbox.files.qmpSocket);
  return found === undefined ? undefined : await QemuProcess.adopt(found.identity, isOurs);
}

/** Connects to a VM that runs; reconciling its volumes is part of the connecting (observe.ts). */
async function connect(sandbox: Sandbox): Promise<void> {
  const { containers, ports } = sandbox;
  // Those of commands whose streams ended with the last daemon: the commands end with them. Known now, before anybody
  // can ask for new ones.
  const used = containers.portsInUse();
  const left = ports.all().flatMap(({ nr }) => (used.has(nr) ? [] : [nr]));
  sandbox.inBackground('ports of nobody', ports.remove(left));
  const connected = sandbox.link.openEventually();
  // Without an await before it: operations on containers wait for it from the daemon's first moment on.
  const guestReady = containers.hasRecords || sandbox.identity.spec.readyWhen === 'agent';
  const rejoined = guestReady && sandbox.state !== 'stopping' ? rejoin(sandbox, connected) : undefined;
  await connected;
  if (sandbox.state === 'stopping') {
    const gracefulTimeoutMs = sandbox.config.stop_timeout_ms;
    await stopSandbox(sandbox, { force: false, gracefulTimeoutMs });
    return;
  }
  sandbox.announce('sandbox.adopted', { reason: 'ADOPTED', message: 'taken over from an earlier daemon' });
  sandbox.commitSoon();
  await rejoined;
  await ports.clearStrays();
}

function rejoin(sandbox: Sandbox, connected: Promise<unknown>): Promise<void> {
  const rejoined = sandbox.containers.rejoin(connected.then(() => awaitAgent(sandbox)));
  rejoined.catch(() => undefined); // Whoever connects hears of it.
  return rejoined;
}
