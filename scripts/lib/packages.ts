import { accessSync, constants, createWriteStream, mkdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';

/** Debian's package for each command that the project's scripts and tests use. */
const packageOfCommand = {
  bwrap: 'bubblewrap',
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  clevis: 'clevis',
  cpio: 'cpio',
  cryptsetup: 'cryptsetup-bin',
  curl: 'curl',
  gcc: 'gcc',
  gzip: 'gzip',
  libvirtd: 'libvirt-daemon',
  jose: 'jose',
  lz4: 'lz4',
  mmdebstrap: 'mmdebstrap',
  nbdkit: 'nbdkit',
  openssl: 'openssl',
  patchelf: 'patchelf',
  protoc: 'protobuf-compiler',
  'mkfs.ext4': 'e2fsprogs',
  'mkfs.xfs': 'xfsprogs',
  shellcheck: 'shellcheck',
  shfmt: 'shfmt',
  debugfs: 'e2fsprogs',
  tangd: 'tang',
  tar: 'tar',
  xz: 'xz-utils',
} as const;

export type Command = keyof typeof packageOfCommand;

const root = join(import.meta.dirname, '..', '..');
const logPath = join(root, 'build', 'apt-get.log');
const lockWaitMs = 180_000;
const lockRetryMs = 3_000;
const logTailLines = 25;

/** The commands of the list that are neither on PATH nor in the system's sbin directories. No process is started. */
export function missingCommands(commands: readonly Command[]): Command[] {
  return commands.filter((command) => !isOnPath(command));
}

/**
 * Makes sure that the commands exist, installing their Debian packages if this process is root. Costs no process when
 * nothing is missing. When it cannot install, it prints the command to run and ends the process with status 2.
 * @throws Error with the end of apt-get's output when the installation fails
 */
export async function ensureCommands(commands: readonly Command[]): Promise<void> {
  const missing = missingCommands(commands);
  if (missing.length === 0) return;
  await installPackages(missing.map((command) => packageOfCommand[command]));
  const still = missingCommands(missing);
  if (still.length > 0) throw new Error(`still missing after the installation: ${still.join(', ')}`);
}

/**
 * For a command that is good to have: installs it if it is missing and this process is root.
 * @returns why it is still missing, in one sentence; undefined when it is there
 */
export async function whyMissing(command: Command): Promise<string | undefined> {
  if (isOnPath(command)) return undefined;
  const name = packageOfCommand[command];
  if (!isRoot() || !isOnPath('apt-get')) return `it is not installed: sudo apt-get install ${name}`;
  try {
    await installPackages([name]);
  } catch (error) {
    return `it is not installed, and cannot be: ${error instanceof Error ? error.message : String(error)}`;
  }
  return isOnPath(command) ? undefined : `the package ${name} does not bring it`;
}

/** Runs `apt-get update`; ends the process with status 2, saying the command, if this process is not root. */
export async function updatePackageLists(): Promise<void> {
  if (!isRoot()) giveUp('the package lists of apt are missing', 'sudo apt-get update');
  console.error('apt-get update ...');
  await aptGet(['update']);
}

/** True when apt knows the package, that is, when it has package lists with a candidate for it. */
export async function packageIsKnown(name: string): Promise<boolean> {
  const result = await execa('apt-cache', ['show', '--no-all-versions', name], { reject: false });
  return result.exitCode === 0 && result.stdout.includes('\nFilename:');
}

/** Installs packages that bring no command of their own, unless `isThere` says that it is not needed. */
export async function ensurePackages(packages: readonly string[], isThere: () => Promise<boolean>): Promise<void> {
  if (!(await isThere())) await installPackages(packages);
}

async function installPackages(wanted: readonly string[]): Promise<void> {
  const packages = [...new Set(wanted)].sort();
  const options = ['install', '-y', '--no-install-recommends', ...packages];
  const shown = packages.join(' ');
  if (!isOnPath('apt-get')) giveUp('this machine has no apt-get', `(install the equivalents of: ${shown})`);
  if (!isRoot()) giveUp(`missing: ${shown}`, `sudo apt-get update && sudo apt-get ${options.join(' ')}`);
  for (const name of packages) {
    if (await packageIsKnown(name)) continue;
    await updatePackageLists();
    break;
  }
  console.error(`installing ${shown} (about a minute; output in build/apt-get.log) ...`);
  try {
    await aptGet(options);
  } catch (error) {
    // Lists that are out of date name files which the mirror no longer has: one refresh, one more try.
    if (!(error instanceof AptError) || !/404|Unable to fetch|Failed to fetch/.test(error.output)) throw error;
    await updatePackageLists();
    await aptGet(options);
  }
}

class AptError extends Error {
  readonly output: string;
  constructor(message: string, output: string) {
    super(message);
    this.output = output;
  }
}

/** Runs apt-get, waiting while another process holds one of the package system's locks. */
async function aptGet(args: readonly string[]): Promise<void> {
  mkdirSync(join(root, 'build'), { recursive: true });
  const lockDeadline = Date.now() + lockWaitMs;
  for (;;) {
    const log = createWriteStream(logPath, { flags: 'a' });
    log.write(`$ apt-get ${args.join(' ')}\n`);
    const subprocess = execa('apt-get', ['-q', '-o', `DPkg::Lock::Timeout=${lockWaitMs / 1000}`, ...args], {
      env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
      stdin: 'ignore',
      all: true,
      reject: false,
    });
    subprocess.all.pipe(log);
    const { exitCode, all } = await subprocess;
    if (exitCode === 0) return;
    const locked = /Could not get lock|Unable to (acquire|lock)|is another process using it/.test(all);
    if (!locked || Date.now() > lockDeadline) {
      const tail = all.split('\n').slice(-logTailLines).join('\n');
      throw new AptError(`apt-get ${args.join(' ')} failed (${logPath}):\n${tail}`, all);
    }
    console.error('another process holds the lock of the package system, waiting ...');
    await sleep(lockRetryMs);
  }
}

function giveUp(problem: string, command: string): never {
  console.error(`${problem}. Run:\n  ${command}`);
  process.exit(2);
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function isOnPath(command: string): boolean {
  const path = (process.env['PATH'] ?? '').split(delimiter);
  return [...path, '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/libexec'].some((directory) => {
    try {
      accessSync(join(directory, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
