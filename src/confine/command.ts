import { dirname } from 'node:path';
import { SETPRIV, isBelow, type QemuLayout } from './layout.ts';

/**
 * The command line that starts a QEMU in its cell, as a pure function:
 *
 *     bwrap: namespaces, a root of its own ─▶ setpriv: user, group, no capability ─▶ QEMU
 *
 * QEMU is process 1 of its pid namespace (`--as-pid-1`): it goes on when whoever started it is killed. bwrap stays
 * outside, waits for QEMU's end, and ends as QEMU did (128 and the signal's number).
 */

/** Of bubblewrap. */
export const BWRAP = '/usr/bin/bwrap';

export interface CellCommand {
  readonly layout: QemuLayout;
  /** User and group of QEMU; undefined: those of the daemon, in a user namespace. */
  readonly uid: number | undefined;
  /** Supplementary groups, for devices. */
  readonly groups: readonly number[];
  /** The sandbox's own directory, for sockets and the console; left out in a trial. */
  readonly directory?: string;
  /** Files of the host that are read: kernel, ramdisk. */
  readonly readable: readonly string[];
  /** Files that only the daemon may read; each is copied from a descriptor into memory. */
  readonly copied: readonly { readonly descriptor: number; readonly path: string }[];
  readonly devices: readonly string[];
  /** setpriv is to set Landlock up (setpriv(1), since util-linux 2.40). */
  readonly landlock: boolean;
  /** Of the library that is preloaded; undefined: none. */
  readonly preload: string | undefined;
  /** Ends with whoever started it. */
  readonly tied: boolean;
  /** Where bwrap says which process QEMU is. */
  readonly infoDescriptor?: number;
  /** Where bwrap waits for a byte before it goes on. */
  readonly blockDescriptor?: number;
  /** QEMU's arguments. */
  readonly args: readonly string[];
}

/** Arguments of bwrap. */
export function cellArguments(cell: CellCommand): readonly string[] {
  const { layout, uid, infoDescriptor, blockDescriptor, directory } = cell;
  return [
    ...['--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-net', '--as-pid-1'],
    ...(uid === undefined ? ['--unshare-user', '--cap-drop', 'ALL'] : []),
    ...['--hostname', 'qemu', '--clearenv'],
    ...(cell.preload === undefined ? [] : ['--setenv', 'LD_PRELOAD', cell.preload]),
    ...(infoDescriptor === undefined ? [] : ['--info-fd', String(infoDescriptor)]),
    ...(blockDescriptor === undefined ? [] : ['--block-fd', String(blockDescriptor)]),
    ...root(cell),
    ...['--chdir', directory ?? '/', '--remount-ro', '/'],
    '--',
    ...privileges(cell),
    layout.program,
    ...cell.args,
  ];
}

/**
 * QEMU's own open files, so that it can open one of them once more by a path: neither a secret's `file`
 * (crypto/secret.c) nor a memory's `mem-path` (physmem.c) takes a /dev/fdset. bwrap resolves the host's /proc/self in
 * the process that becomes QEMU, so this is that directory of QEMU's and no other, and nothing else of /proc is there.
 */
const OWN_DESCRIPTORS = '/proc/self/fd';

/** Everything that is in the root, parents first. bwrap makes those that are missing for its own user only. */
function root({ layout, directory, readable, copied, devices }: CellCommand): readonly string[] {
  const files = readable.filter((path) => !isBelow(path, layout.directories));
  const paths = [
    ...layout.directories,
    ...layout.files.map(({ path }) => path),
    ...files,
    ...copied.map(({ path }) => path),
    ...devices,
    OWN_DESCRIPTORS,
    ...(directory === undefined ? [] : [directory]),
  ];
  return [
    ...parentsOf(paths, layout.directories).flatMap((path) => ['--dir', path]),
    ...layout.links.flatMap(({ path, target }) => ['--symlink', target, path]),
    ...layout.directories.flatMap((path) => ['--ro-bind', path, path]),
    ...layout.files.flatMap(({ path, source }) => ['--ro-bind', source, path]),
    ...files.flatMap((path) => ['--ro-bind', path, path]),
    ...copied.flatMap(({ descriptor, path }) => ['--perms', '0444', '--ro-bind-data', String(descriptor), path]),
    ...devices.flatMap((path) => ['--dev-bind', path, path]),
    ...['--ro-bind', OWN_DESCRIPTORS, OWN_DESCRIPTORS],
    ...(directory === undefined ? [] : ['--bind', directory, directory]),
  ];
}

/** Directories above the paths, those above others first; not those that come with a directory of the host. */
export function parentsOf(paths: readonly string[], given: readonly string[]): readonly string[] {
  const parents = new Set<string>();
  for (const path of paths) {
    for (let parent = dirname(path); parent !== '/'; parent = dirname(parent)) parents.add(parent);
  }
  return [...parents].filter((path) => !given.includes(path) && !isBelow(path, given)).sort();
}

/** bwrap alone sees to no_new_privs, and in a user namespace to the capabilities. */
function privileges(cell: CellCommand): readonly string[] {
  const { uid, groups, tied } = cell;
  if (uid === undefined) return [];
  return [
    ...[SETPRIV, '--reuid', String(uid), '--regid', String(uid)],
    ...(groups.length === 0 ? ['--clear-groups'] : ['--groups', groups.join(',')]),
    ...['--bounding-set=-all', '--inh-caps=-all', '--ambient-caps=-all', '--no-new-privs'],
    ...landlock(cell),
    // A change of user clears what was set before (prctl(2)).
    ...(tied ? ['--pdeathsig', 'KILL'] : []),
    '--',
  ];
}

/** What writes or makes something; reading and running are left to the mounts. */
const LANDLOCKED =
  'write-file,remove-dir,remove-file,make-char,make-dir,make-reg,make-sock,make-fifo,make-block,make-sym';

function landlock({ landlock: wanted, directory, devices }: CellCommand): readonly string[] {
  if (!wanted) return [];
  const rule = (access: string, path: string): readonly string[] => [
    '--landlock-rule',
    `path-beneath:${access}:${path}`,
  ];
  return [
    ...['--landlock-access', `fs:${LANDLOCKED}`],
    ...(directory === undefined ? [] : rule('write-file,make-reg,make-sock,remove-file', directory)),
    ...devices.flatMap((path) => rule('write-file', path)),
  ];
}
