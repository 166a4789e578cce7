/**
 * What the reference guest is made of: Debian packages, and which of their files go in. To add a program, name its
 * package and its files here; the libraries that it links against come along by themselves.
 */

export interface PackageContents {
  readonly package: string;
  /** Paths below /; everything is under /usr in the image, /bin, /sbin and /lib are links. */
  readonly files: readonly string[];
}

/** The kernel's meta package; it depends on the packages of the kernel proper (linux-image-VERSION-cloud-amd64). */
export const defaultKernelPackage = 'linux-image-cloud-amd64';

/**
 * The packages of a kernel proper: one of its own up to Debian 13, then one for the image, one for the modules, and a
 * base for both.
 */
export function isKernelPackage(name: string): boolean {
  return /^linux-(?:image-\d|binary-|modules-|base-(?:\d|\w+-amd64))/.test(name);
}

export const contents: readonly PackageContents[] = [
  { package: 'busybox-static', files: ['/usr/bin/busybox'] },
  { package: 'qemu-guest-agent', files: ['/usr/sbin/qemu-ga'] },
  {
    package: 'e2fsprogs',
    files: [
      '/etc/mke2fs.conf',
      '/usr/sbin/mke2fs',
      '/usr/sbin/mkfs.ext4',
      '/usr/sbin/e2fsck',
      '/usr/sbin/fsck.ext4',
      '/usr/sbin/resize2fs',
      '/usr/sbin/tune2fs',
      '/usr/sbin/dumpe2fs',
    ],
  },
  { package: 'xfsprogs', files: ['/usr/sbin/mkfs.xfs', '/usr/sbin/xfs_growfs', '/usr/sbin/xfs_repair'] },
  { package: 'cryptsetup-bin', files: ['/usr/sbin/cryptsetup'] },
  { package: 'dmsetup', files: ['/usr/sbin/dmsetup'] },
  {
    // blkid and wipefs of libblkid know far more signatures than busybox's: "this disk is empty" has to be true.
    package: 'util-linux',
    files: ['/usr/sbin/blkid', '/usr/sbin/wipefs', '/usr/sbin/blockdev', '/usr/bin/lsblk', '/usr/bin/flock'],
  },
  {
    // busybox's modprobe ignores soft dependencies; the kernel itself calls /sbin/modprobe on demand.
    package: 'kmod',
    files: ['/usr/bin/kmod', '/usr/sbin/modprobe', '/usr/sbin/depmod', '/usr/bin/lsmod', '/usr/sbin/rmmod'],
  },
  // Containers: crun runs them, conmon watches them, socat joins a terminal to a port.
  { package: 'crun', files: ['/usr/bin/crun'] },
  { package: 'conmon', files: ['/usr/bin/conmon'] },
  { package: 'socat', files: ['/usr/bin/socat'] },
  // libcryptsetup ends its Argon2 threads through pthread_exit, for which glibc opens this library by name.
  { package: 'libgcc-s1', files: ['/usr/lib/x86_64-linux-gnu/libgcc_s.so.1'] },
];

/** Library packages that only programs which are left out need (xfs_scrub uses ICU). */
export const unneededLibraries: readonly RegExp[] = [/^libicu/, /^libpython/, /^libperl/, /^libpam/, /^libdb/];

/** Loaded before the agent starts, in this order, each after what it depends on. */
export const bootModules: readonly string[] = ['virtio_pci', 'virtio_console', 'virtio_blk'];

/** Present with all that they depend on; loaded by modprobe or by the kernel when asked for. */
export const demandModules: readonly string[] = [
  'virtio_rng',
  'button',
  'evdev',
  'xfs',
  'overlay',
  'loop',
  'dm_mod',
  'dm_crypt',
  'dm_integrity',
  'authenc',
  'xts',
  'ecb',
  'cbc',
  'essiv',
  'af_alg',
  'algif_skcipher',
  'algif_hash',
];

/**
 * As above, of kernels that have them: what they do is in other modules, or in the kernel itself, in those that do not.
 * Before 5.13 pvpanic_mmio is part of pvpanic, which is built in; in later ones the fast checksums and hashes are
 * libraries of the kernel.
 */
export const modulesOfSomeKernels: readonly string[] = [
  'pvpanic_mmio',
  'aesni_intel',
  'sha256_ssse3',
  'sha512_ssse3',
  'sha512_generic',
  'crc32c_intel',
];

/** Empty directories of the image (besides those that files bring along). */
export const directories: readonly string[] = [
  '/dev',
  '/mnt',
  '/proc',
  '/root',
  '/run',
  '/sys',
  '/tmp',
  '/usr/bin',
  '/usr/lib',
  '/usr/lib64',
  '/usr/sbin',
  '/var',
];

/** Symbolic links: path in the image and target. */
export const links: readonly (readonly [path: string, target: string])[] = [
  ['/bin', 'usr/bin'],
  ['/sbin', 'usr/sbin'],
  ['/lib', 'usr/lib'],
  ['/lib64', 'usr/lib64'],
  ['/var/run', '../run'],
  ['/etc/mtab', '../proc/self/mounts'],
];
