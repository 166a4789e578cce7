import { readdir, readFile, readlink } from 'node:fs/promises';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';

/** What a QEMU holds, by its own lists: compared before and after, equal means that nothing was leaked. */
export interface QemuInventory {
  readonly peripherals: readonly string[];
  readonly objects: readonly string[];
  readonly blockNodes: readonly string[];
  readonly fdSets: number;
  readonly descriptors: readonly string[];
}

/** Reads a VM's inventory through its spare monitor. */
export async function qemuInventory(stateDir: string, pid: number): Promise<QemuInventory> {
  await using qmp = await QmpClient.connect({ path: `${stateDir}/spare.sock`, log: silentLogger() });
  const names = async (path: string): Promise<string[]> =>
    (await qmp.run('qom-list', { path })).map((child) => child.name).sort();
  const nodes = await qmp.run('query-named-block-nodes', { flat: true });
  return {
    peripherals: await names('/machine/peripheral'),
    objects: await names('/objects'),
    blockNodes: nodes.map((node) => node['node-name'] ?? '').sort(),
    fdSets: (await qmp.run('query-fdsets')).length,
    descriptors: await openFiles(pid),
  };
}

/** Paths of the files that a process has open, sorted; sockets, pipes and the like are counted by kind. */
export async function openFiles(pid: number): Promise<readonly string[]> {
  const links = await Promise.all(
    (await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
  );
  // Sockets come and go with monitors and gRPC connections; files, devices and rings are what a volume leaves behind.
  return links.filter((link) => link !== '' && !link.startsWith('socket:') && !link.startsWith('pipe:')).sort();
}

/** Pids of the QEMUs whose sockets lie below a directory, by their command lines. */
export async function qemuProcessesBelow(directory: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      // Processes end while they are looked at.
      const args = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      // What starts a confined QEMU has the same words behind its own.
      if (/^[^\0]*\/(bwrap|setpriv)\0/.test(args)) return [];
      return args.includes(`socket,id=qmp,path=${directory}/`) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}
