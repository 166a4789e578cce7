import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import { QemuProcess } from '../qemu/process.ts';
import { readJournal, type JournalRecord } from './journal.ts';
import { awaitAgent } from './observe.ts';
import { JOURNAL_FILE, Sandbox, type SandboxEnvironment } from './sandbox.ts';

/**
 * Takes over every sandbox that an earlier daemon left in the state directory, all at once. Directories without a
 * readable journal are left alone, and named in the log.
 */
export async function adoptAll(environment: SandboxEnvironment): Promise<readonly Sandbox[]> {
  const { config, log } = environment;
  const entries = await readdir(config.state_dir, { withFileTypes: true });
  const adopted = await Promise.all(
    entries
      .filter((entry) => entry.isDirectory())
      .map(async (entry) => {
        const directory = join(config.state_dir, entry.name);
        try {
          return await adopt(environment, directory);
        } catch (error) {
          log.error({ directory, problem: messageOf(error) }, 'sandbox not adopted');
          return undefined;
        }
      }),
  );
  return adopted.filter((sandbox) => sandbox !== undefined);
}

async function adopt(environment: SandboxEnvironment, directory: string): Promise<Sandbox | undefined> {
  const record = await readJournal(join(directory, JOURNAL_FILE), environment.log);
  if (record === undefined) {
    environment.log.warn({ directory }, 'directory without a readable journal left alone');
    return undefined;
  }
  const { id, spec, uuid, createdAtMs } = record.sandbox;
  const sandbox = new Sandbox(environment, { id, spec, uuid, createdAtMs, directory });
  sandbox.restore(record);
  const qemu = await findProcess(record);
  if (qemu === undefined) {
    await sandbox.foundDead();
    return sandbox;
  }
  sandbox.own(qemu);
  sandbox.inBackground('adoption', connect(sandbox));
  return sandbox;
}

async function findProcess(record: JournalRecord): Promise<QemuProcess | undefined> {
  if (record.sandbox.process === undefined || record.sandbox.state === 'stopped') return undefined;
  return await QemuProcess.adopt(record.sandbox.process);
}

/** Connects to a VM that runs; reconciling its volumes is part of the connecting (observe.ts). */
async function connect(sandbox: Sandbox): Promise<void> {
  await sandbox.link.open();
  sandbox.enter('running', { reason: 'ADOPTED', message: 'taken over from an earlier daemon' });
  sandbox.announce('sandbox.adopted', undefined);
  sandbox.commitSoon();
  if (sandbox.identity.spec.readyWhen === 'agent') await awaitAgent(sandbox);
}
