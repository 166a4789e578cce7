import { existsSync } from 'node:fs';
import { cp, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { debianMirror } from '../lib/suite.ts';

/** The file systems of a host in a VM: Debian with systemd, and this checkout. */

/** util-linux from 2.40 has Landlock; before trixie Debian has not. */
const SUITE = 'trixie';
const PACKAGES = [
  ...['systemd-sysv', 'dbus', 'udev', 'kmod', 'procps', 'e2fsprogs'],
  ...['linux-image-amd64', 'qemu-system-x86', 'qemu-utils', 'bubblewrap', 'libtcmalloc-minimal4'],
];
/** What is not looked at in there. */
const LEFT_OUT = ['/usr/share/man/*', '/usr/share/doc/*', '/usr/share/locale/*'];
/** Changes when what `furnish` writes does: an image that is there already is made anew. */
const GENERATION = '1';
const ROOT_MIB = 3072;
const CHECKOUT_MIB = 2048;
const CHECKOUT = ['bin', 'src', 'proto', 'scripts', 'test', 'packaging', 'docs', 'package.json', 'node_modules'];

const project = join(import.meta.dirname, '../..');
const build = join(project, 'build', 'host');

export interface HostImages {
  readonly kernel: string;
  readonly initrd: string;
  readonly root: string;
  readonly checkout: string;
}

/** Where a VM's outputs go. */
export const hostDirectory = build;

/**
 * Makes the images; that of Debian once. Needs root, and 5 GB.
 * @throws Error with what mmdebstrap or mke2fs said
 */
export async function hostImages(): Promise<HostImages> {
  const root = join(build, `root-${SUITE}-${GENERATION}.img`);
  if (!existsSync(root)) await makeRoot(root);
  const checkout = join(build, 'checkout.img');
  await makeCheckout(checkout);
  return { kernel: join(build, 'vmlinuz'), initrd: join(build, 'initrd.img'), root, checkout };
}

async function makeRoot(image: string): Promise<void> {
  console.error(`a Debian ${SUITE} with systemd (two minutes) ...`);
  const tree = join(build, 'root');
  await rm(build, { recursive: true, force: true });
  await mkdir(build, { recursive: true });
  const quiet = ['--quiet', '--aptopt=Acquire::Check-Valid-Until "false"'];
  const leftOut = LEFT_OUT.map((path) => `--dpkgopt=path-exclude=${path}`);
  const what = ['--variant=minbase', `--include=${PACKAGES.join(',')}`, SUITE, tree, await debianMirror()];
  await execa('mmdebstrap', [...quiet, ...leftOut, ...what], { stdin: 'ignore', env: { LC_ALL: 'C' } });
  await furnish(tree);
  await cp(join(tree, 'vmlinuz'), join(build, 'vmlinuz'), { dereference: true });
  await cp(join(tree, 'initrd.img'), join(build, 'initrd.img'), { dereference: true });
  await makeImage(tree, `${image}.new`, ROOT_MIB);
  await rename(`${image}.new`, image);
  await rm(tree, { recursive: true });
}

/** The checkout's place, and a unit that runs the tests and ends the host. */
async function furnish(tree: string): Promise<void> {
  await mkdir(join(tree, 'opt/qshim'), { recursive: true });
  await writeFile(join(tree, 'etc/hostname'), 'host\n');
  // Not the first boot of this host: systemd would ask for a locale.
  await writeFile(join(tree, 'etc/machine-id'), `${'0123456789abcdef'.repeat(2)}\n`);
  await writeFile(join(tree, 'etc/fstab'), '/dev/vda / ext4 rw 0 0\n/dev/vdb /opt/qshim ext4 rw 0 0\n');
  const unit = join(tree, 'etc/systemd/system/qshim-host-test.service');
  await cp(join(import.meta.dirname, 'qshim-host-test.service'), unit);
  const wants = join(dirname(unit), 'multi-user.target.wants');
  await mkdir(wants, { recursive: true });
  await symlink('../qshim-host-test.service', join(wants, 'qshim-host-test.service'));
}

async function makeCheckout(image: string): Promise<void> {
  const tree = join(build, 'checkout');
  await rm(tree, { recursive: true, force: true });
  await mkdir(join(tree, 'build'), { recursive: true });
  await execa('cp', ['-a', ...CHECKOUT.map((name) => join(project, name)), tree]);
  await execa('cp', ['-aL', join(project, 'build/guest'), join(tree, 'build/guest')]);
  await makeImage(tree, image, CHECKOUT_MIB);
  await rm(tree, { recursive: true });
}

async function makeImage(tree: string, image: string, mib: number): Promise<void> {
  await rm(image, { force: true });
  const options = ['-q', '-t', 'ext4', '-O', '^has_journal', '-E', 'root_owner=0:0', '-d', tree];
  await execa('/usr/sbin/mke2fs', [...options, image, `${mib}M`], { stdin: 'ignore' });
}
