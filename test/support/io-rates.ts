import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';

/** What a disk has done, as QEMU counts it. */
export interface IoCount {
  readonly bytes: number;
  readonly operations: number;
}

/** A disk of a VM: where its QEMU answers, and the QOM path of the front end's back end. */
export interface CountedDisk {
  readonly socket: string;
  readonly path: string;
}

interface Look {
  readonly atMs: number;
  readonly counts: readonly IoCount[];
}

async function lookAt(disks: readonly CountedDisk[]): Promise<Look> {
  const sockets = [...new Set(disks.map(({ socket }) => socket))];
  const answers = await Promise.all(
    sockets.map(async (socket) => {
      await using qmp = await QmpClient.connect({ path: socket, log: silentLogger() });
      return [socket, await qmp.run('query-blockstats')] as const;
    }),
  );
  const atMs = performance.now();
  const bySocket = new Map(answers);
  const counts = disks.map(({ socket, path }) => {
    const stats = bySocket.get(socket)?.find(({ qdev }) => qdev === path)?.stats;
    if (stats === undefined) throw new Error(`QEMU has no disk ${path}`);
    return {
      bytes: stats.rd_bytes + stats.wr_bytes,
      operations: stats.rd_operations + stats.wr_operations,
    };
  });
  return { atMs, counts };
}

/**
 * What the disks do in a second, over at least so long: counted by QEMU, divided by the time between the two looks,
 * however late they come.
 */
export async function ratesOver(durationMs: number, disks: readonly CountedDisk[]): Promise<readonly IoCount[]> {
  const before = await lookAt(disks);
  await sleep(durationMs);
  const after = await lookAt(disks);
  const seconds = (after.atMs - before.atMs) / 1000;
  return after.counts.map(({ bytes, operations }, index) => ({
    bytes: (bytes - (before.counts[index]?.bytes ?? 0)) / seconds,
    operations: (operations - (before.counts[index]?.operations ?? 0)) / seconds,
  }));
}
