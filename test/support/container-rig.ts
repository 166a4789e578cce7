import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { execa } from 'execa';
import { debsOfGuest } from '../../scripts/guest/build.ts';
import type { RequestedSpec } from '../../src/volume/spec.ts';
import { guestMountPoint } from '../../src/guest/containers/plan.ts';
import type { StreamSpec } from '../../src/guest/containers/types.ts';
import type { VolumeSnapshot } from '../../src/volume/volume.ts';
import { zeroes, type InProcess } from './in-process.ts';

const ROOTFS_BYTES = 24 * 1024 * 1024;

/** A root file system with nothing but the guest's own static busybox, as a raw ext4 image. */
export async function busyboxImage(path: string): Promise<string> {
  const work = await mkdtemp(join(tmpdir(), 'qshim-rootfs-'));
  try {
    const debs = await readdir(debsOfGuest());
    const deb = debs.find((name) => name.startsWith('busybox-static_'));
    if (deb === undefined) throw new Error('the package of busybox-static is not among those of the guest');
    const unpacked = join(work, 'deb');
    await execa('dpkg-deb', ['-x', join(debsOfGuest(), deb), unpacked]);
    const root = join(work, 'root');
    for (const name of ['bin', 'dev', 'proc', 'sys', 'tmp', 'etc', 'data', 'run'])
      await mkdir(join(root, name), { recursive: true });
    const source = ['bin/busybox', 'usr/bin/busybox'].map((name) => join(unpacked, name));
    await copyFile(source[0] ?? '', join(root, 'bin/busybox')).catch(() =>
      copyFile(source[1] ?? '', join(root, 'bin/busybox')),
    );
    await chmod(join(root, 'bin/busybox'), 0o755);
    const { stdout } = await execa(join(root, 'bin/busybox'), ['--list']);
    for (const applet of stdout.split('\n').filter((name) => name !== 'busybox'))
      await symlink('busybox', join(root, 'bin', applet));
    await zeroes(path, ROOTFS_BYTES);
    await execa('mkfs.ext4', ['-q', '-F', '-d', root, path]);
    return path;
  } finally {
    await rm(work, { recursive: true });
  }
}

/** A config.json like those that containerd makes. */
export function ociConfig(
  args: readonly string[],
  extra: { readonly mounts?: readonly object[]; readonly linux?: object } = {},
): object {
  return {
    ociVersion: '1.1.0',
    process: {
      user: { uid: 0, gid: 0 },
      args,
      env: ['PATH=/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: 'rootfs' },
    hostname: 'box',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
      },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
      },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'shm',
        options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
      },
      { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
      { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro', 'nosuid', 'noexec', 'nodev'] },
      ...(extra.mounts ?? []),
    ],
    linux: {
      cgroupsPath: '/default/anything',
      namespaces: ['pid', 'ipc', 'uts', 'mount', 'network', 'cgroup'].map((type) => ({ type })),
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      maskedPaths: ['/proc/kcore'],
      readonlyPaths: ['/proc/sys'],
      ...extra.linux,
    },
  };
}

export const ALL: StreamSpec = { terminal: false, stdin: true, stdout: true, stderr: true };
export const OUTPUT: StreamSpec = { ...ALL, stdin: false };
export const TERMINAL: StreamSpec = { terminal: true, stdin: true, stdout: true, stderr: false };

/** Attaches an image and mounts it where containers find it. */
export async function attachImage(
  rig: InProcess,
  sandboxId: string,
  volumeId: string,
  path: string,
): Promise<VolumeSnapshot> {
  const spec: RequestedSpec = {
    source: { kind: 'raw-file', path },
    readOnly: false,
    cache: undefined,
    aio: 'auto',
    discard: undefined,
    detectZeroes: undefined,
    serial: '',
    queues: 0,
    logicalBlockSize: 0,
    physicalBlockSize: 0,
    mount: { fsType: 'ext4', mountPoint: guestMountPoint(volumeId), options: [], format: 'never' },
  };
  return await rig.manager.attach(sandboxId, volumeId, spec, { timeoutMs: 0 });
}

/** Reads a stream to its end. */
export async function all(stream: Readable | undefined): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream ?? []) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
