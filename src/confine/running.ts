import { readFile, readlink } from 'node:fs/promises';
import { mountOfCgroup2 } from './cgroup.ts';
import { CELL_PARTS, type CellFacts } from './facts.ts';
import type { UidRange } from './uids.ts';

/** Of a group that cells.ts made: below `qshim` in the root of cgroup2, wherever that is mounted. */
const OWN_GROUP = /^0::(\/qshim\/[^/\n]+)$/m;

/**
 * How a QEMU is seen to be confined whose record is lost; undefined: it is not. That it has Landlock nothing tells.
 * @throws the system error when it cannot be looked at
 */
export async function confinementOf(pid: number, { first, last }: UidRange): Promise<CellFacts | undefined> {
  const [its, ours] = await Promise.all([readlink(`/proc/${pid}/ns/mnt`), readlink('/proc/self/ns/mnt')]);
  if (its === ours) return undefined;
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const uid = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1] ?? 0);
  const own = uid >= first && uid <= last;
  const group = OWN_GROUP.exec(await readFile(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
  const mount = mountOfCgroup2(await readFile('/proc/self/mountinfo', 'utf8'));
  const cgroup = group === undefined || mount === undefined ? '' : `${mount}${group}`;
  const there: ReadonlySet<string> = new Set([
    'namespaces',
    ...(own ? ['uid'] : []),
    ...(cgroup === '' ? [] : ['cgroup']),
  ]);
  const missing = CELL_PARTS.filter((part) => !there.has(part));
  return {
    level: 'degraded',
    uid: own ? uid : 0,
    missing: missing.map((part) => ({ part, why: 'not seen in the running QEMU; the record of its start is lost' })),
    cgroup,
  };
}
