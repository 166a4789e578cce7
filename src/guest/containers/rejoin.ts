import { sleep } from '../../base/deadline.ts';
import type { ContainerHost } from './host.ts';
import type { ContainerProcess } from './process.ts';
import type { ExitRecord, GuestRuntime, SeenProcess } from './runtime.ts';

/**
 * How long the record of a process that is gone may be on its way: the guest's program writes it right after the end.
 */
const RECORD_WAIT_MS = 3000;

/** The containers that are brought to what the guest says of them. */
export interface Rejoined {
  readonly hasRecords: boolean;
  readonly runtime: Pick<GuestRuntime, 'look'>;
  all(): readonly ContainerProcess[];
  portsInUse(): ReadonlySet<number>;
  install(): Promise<void>;
  clearAway(process: ContainerProcess, force: boolean): Promise<void>;
  settle(process: ContainerProcess, record: ExitRecord, agoMs: number): void;
  settleLost(process: ContainerProcess, vmGone: boolean): void;
}

/**
 * After an adoption: brings every process to what the guest says of it. What was being made is undone, what was being
 * deleted is deleted; an end that nobody saw is read from the guest's record; inputs whose end was asked for get it.
 */
export async function rejoin(containers: Rejoined, host: ContainerHost): Promise<void> {
  const unfinished = containers.all().filter(({ phase }) => phase === 'creating' || phase === 'deleting');
  for (const process of unfinished) host.inBackground('unfinished container', containers.clearAway(process, true));
  if (!containers.hasRecords) return;
  // The look first: announcements that have waited for a listener do not say how long ago they were made.
  const waiting = await look(containers);
  await containers.install();
  for (const port of host.ports.all()) {
    if (port.ended && containers.portsInUse().has(port.nr)) {
      host.inBackground('end of input', host.ports.endInput(port.nr));
    }
  }
  if (waiting.length > 0) host.inBackground('lost processes', settleLater(containers, host, waiting));
  host.commitSoon();
}

/** @returns processes that are gone and whose record is not there */
async function look(containers: Rejoined): Promise<readonly ContainerProcess[]> {
  const { uptime, processes } = await containers.runtime.look();
  const missing: ContainerProcess[] = [];
  for (const process of containers.all()) {
    if (process.exit !== undefined || process.phase === 'creating' || process.phase === 'deleting') continue;
    const seen = processes.get(process.key);
    if (process.phase === 'created') process.ran = seen?.started === true;
    if (seen?.record !== undefined) {
      containers.settle(process, seen.record, Math.max(0, (uptime - seen.record.uptime) * 1000));
    } else if (isThere(process, seen)) {
      if (seen?.started === true) {
        process.phase = 'running';
        process.pid = seen.pid;
      }
    } else missing.push(process);
  }
  return missing;
}

/** An exec that was not started is nowhere in the guest, and well. */
function isThere(process: ContainerProcess, seen: SeenProcess | undefined): boolean {
  if (seen === undefined) return process.execId !== undefined && process.phase === 'created';
  return seen.alive;
}

async function settleLater(
  containers: Rejoined,
  host: ContainerHost,
  waiting: readonly ContainerProcess[],
): Promise<void> {
  await sleep(RECORD_WAIT_MS, host.gone);
  const lost = (await look(containers)).filter((process) => waiting.includes(process));
  for (const process of lost) {
    host.log.warn({ process: process.key }, 'process has ended, and nobody knows how');
    containers.settleLost(process, false);
  }
}
