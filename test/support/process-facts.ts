import { readFile, readdir, readlink } from 'node:fs/promises';

/** What the kernel says of a process, in lines that can be held against a table. */

const STATUS = ['Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp'];
export const NAMESPACES = ['mnt', 'pid', 'ipc', 'uts', 'net', 'user', 'cgroup'] as const;
const ACCESS = ['r', 'w', 'rw'] as const;

/** Texts of this run, such as a directory, and the words that stand for them. */
export type Names = Readonly<Record<string, string>>;

function named(text: string, names: Names): string {
  // The longest first: one may be part of another.
  const order = Object.entries(names).sort(([one], [other]) => other.length - one.length);
  return order.reduce((line, [from, to]) => line.replaceAll(from, to), text);
}

/** User, group, capabilities and the like (proc_pid_status(5)). */
export async function statusLines(pid: number, names: Names): Promise<readonly string[]> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  return STATUS.map((name) => {
    const value = new RegExp(`^${name}:(.*)$`, 'm').exec(text)?.[1] ?? '(none)';
    return named(`${name}: ${value.trim().split(/\s+/).join(' ')}`, names);
  });
}

/** Which namespaces a process does not share with this one. */
export async function ownNamespaces(pid: number): Promise<readonly string[]> {
  const own: string[] = [];
  for (const name of NAMESPACES) {
    const [its, ours] = await Promise.all([readlink(`/proc/${pid}/ns/${name}`), readlink(`/proc/self/ns/${name}`)]);
    if (its !== ours) own.push(name);
  }
  return own;
}

/** What is open and how, each once: files by their paths, the rest by its kind. */
export async function descriptorLines(pid: number, names: Names): Promise<readonly string[]> {
  const lines = new Set<string>();
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    // One that is closed meanwhile was open for a moment only.
    const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => undefined);
    const info = await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8').catch(() => '');
    if (target === undefined) continue;
    const flags = Number.parseInt(/^flags:\s+(\d+)$/m.exec(info)?.[1] ?? '0', 8);
    const kind = target.replace(/^(socket|pipe):\[\d+\]$/, '$1');
    lines.add(named(`${kind} ${ACCESS[flags & 3] ?? '?'}`, names));
  }
  return [...lines].sort();
}

/** Mount points with their options of this mount (proc_pid_mountinfo(5)), in the order of their names. */
export async function mountLines(pid: number, names: Names): Promise<readonly string[]> {
  const text = await readFile(`/proc/${pid}/mountinfo`, 'utf8');
  const lines = text.split('\n').filter((line) => line !== '');
  return lines
    .map((line) => {
      const [, , , , point = '', options = ''] = line.split(' ');
      const kept = options.split(',').filter((option) => !option.endsWith('atime'));
      return named(`${point} ${kept.join(',')}`, names);
    })
    .sort();
}
