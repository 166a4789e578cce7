import { readFile, readlink } from 'node:fs/promises';
import { mountOfCgroup2 } from './cgroup.ts';
import { CELL_PARTS, type CellFacts } from './facts.ts';
import type { UidRange } from './uids.ts';

/** Of a group of one QEMU (cgroup.ts, scope.ts), in the root of cgroup2, wherever that is mounted. */
const OWN_GROUP = /^0::(\/qshim\/[^/\n]+|\/qshim\.slice\/qshim-[^/\n]+\.scope)$/m;

/** Of those that bwrap makes: a start of the daemon by systemd makes no new ones of these, but of mounts it does. */
const TELLING_NAMESPACES = ['pid', 'net'] as const;

/**
 * How a QEMU is seen to be confined whose record is lost; undefined: it is not. That it has Landlock nothing tells.
 * @throws the system error when it cannot be looked at
 */
export async function confinementOf(pid: number, { first, last }: UidRange): Promise<CellFacts | undefined> {
  if (!(await hasOwnNamespaces(pid))) return undefined;
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

async function hasOwnNamespaces(pid: number): Promise<boolean> {
  for (const name of TELLING_NAMESPACES) {
    const [its, ours] = await Promise.all([readlink(`/proc/${pid}/ns/${name}`), readlink(`/proc/self/ns/${name}`)]);
    if (its === ours) return false;
  }
  return true;
}
