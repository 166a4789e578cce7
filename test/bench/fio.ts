import { mkdtemp, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { TestDaemon } from '../support/daemon.ts';
import { Samples, type Section } from './figures.ts';
import { startDaemon, withDirectory, type Bench } from './rig.ts';

const DISK_BYTES = 256 * 1024 * 1024;
const TOOLS_BYTES = 256 * 1024 * 1024;
const MIB = 1024;

type Spec = Parameters<TestDaemon['client']['attach']>[0]['spec'];

/** What is compared: cache and aio modes, queues, iothreads. */
const VARIANTS: readonly { readonly name: string; readonly sandbox: 'plain' | 'threads'; readonly spec: Spec }[] = [
  { name: 'writeback, io_uring', sandbox: 'plain', spec: { cache: 'CACHE_MODE_WRITEBACK', aio: 'AIO_MODE_IO_URING' } },
  { name: 'writeback, threads', sandbox: 'plain', spec: { cache: 'CACHE_MODE_WRITEBACK', aio: 'AIO_MODE_THREADS' } },
  { name: 'none, io_uring', sandbox: 'plain', spec: { cache: 'CACHE_MODE_NONE', aio: 'AIO_MODE_IO_URING' } },
  { name: 'none, native', sandbox: 'plain', spec: { cache: 'CACHE_MODE_NONE', aio: 'AIO_MODE_NATIVE' } },
  { name: 'unsafe, io_uring', sandbox: 'plain', spec: { cache: 'CACHE_MODE_UNSAFE', aio: 'AIO_MODE_IO_URING' } },
  { name: '1 queue', sandbox: 'plain', spec: { queues: 1 } },
  { name: '2 iothreads', sandbox: 'threads', spec: {} },
];
const JOBS = [
  { what: 'random 4 KiB read', options: ['--rw=randread', '--bs=4k', '--iodepth=16'], unit: 'IOPS' },
  { what: 'random 4 KiB write', options: ['--rw=randwrite', '--bs=4k', '--iodepth=16'], unit: 'IOPS' },
  { what: 'sequential 1 MiB read', options: ['--rw=read', '--bs=1M', '--iodepth=4'], unit: 'MiB/s' },
  { what: 'sequential 1 MiB write', options: ['--rw=write', '--bs=1M', '--iodepth=4'], unit: 'MiB/s' },
] as const;

/** fio in the guest. It comes on a disk of its own, so that the reference guest stays as it is. */
export async function fio(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await withDirectory(bench.diskDirectory, async (directory) => {
    const tools = await toolsDisk(directory);
    await using daemon = await startDaemon(bench, { config: { allowed_roots: directory } });
    for (const [sandboxId, iothreads] of [
      ['plain', 0],
      ['threads', 2],
    ] as const) {
      await daemon.client.createSandbox({ sandboxId, spec: { vcpus: 2, iothreads, template: 'TEMPLATE_OFF' } });
      await daemon.client.attach({
        sandboxId,
        volumeId: 'tools',
        spec: { rawFile: { path: tools }, readOnly: true, mount: { fsType: 'ext4', mountPoint: '/mnt/tools' } },
      });
      await daemon.client.guest(sandboxId, 'mount --bind /dev /mnt/tools/dev && mount -t proc proc /mnt/tools/proc');
    }
    const seconds = bench.quick ? 1 : 4;
    for (let round = 0; round < (bench.quick ? 1 : 3); round += 1) {
      for (const variant of VARIANTS) await measure(daemon, directory, variant, seconds, samples);
    }
  });
  return {
    name: 'fio',
    title: 'fio in the guest',
    rows: samples.rows(),
    ratios: [],
    notes: ['2 vCPUs, one disk file of 256 MiB on the disk of the host, direct I/O in the guest, libaio.'],
  };
}

async function measure(
  daemon: TestDaemon,
  directory: string,
  { name, sandbox, spec }: (typeof VARIANTS)[number],
  seconds: number,
  samples: Samples,
): Promise<void> {
  const path = join(directory, 'disk.raw');
  // Written, so that no hole is read.
  await execa('dd', ['if=/dev/zero', `of=${path}`, 'bs=1M', `count=${DISK_BYTES / 2 ** 20}`, 'conv=fsync']);
  const volume = await daemon.client.attach({
    sandboxId: sandbox,
    volumeId: 'disk',
    spec: { ...spec, rawFile: { path } },
  });
  for (const { what, options, unit } of JOBS) {
    const common = `--name=job --filename=${volume.guestDevice} --direct=1 --ioengine=libaio --time_based`;
    const command = `chroot /mnt/tools /usr/bin/fio ${common} --runtime=${seconds} ${options.join(' ')} --output-format=json`;
    const [job] = (JSON.parse(await daemon.client.guest(sandbox, command)) as FioOutput).jobs;
    const side = options[0].includes('read') ? job?.read : job?.write;
    samples.add(what, name, unit === 'IOPS' ? (side?.iops ?? Number.NaN) : (side?.bw ?? Number.NaN) / MIB, unit);
  }
  await daemon.client.detach({ sandboxId: sandbox, volumeId: 'disk' });
}

interface FioSide {
  readonly iops: number;
  /** KiB a second. */
  readonly bw: number;
}
interface FioOutput {
  readonly jobs: readonly { readonly read: FioSide; readonly write: FioSide }[];
}

/** An ext4 image with fio and all that it needs, from Debian's packages. */
async function toolsDisk(directory: string): Promise<string> {
  const debs = await mkdtemp(join(directory, 'debs-'));
  const root = await mkdtemp(join(directory, 'root-'));
  const depends = await execa('apt-cache', [
    ...['depends', '--recurse', '--no-recommends', '--no-suggests', '--no-conflicts', '--no-breaks', '--no-replaces'],
    ...['--no-enhances', '--no-pre-depends', 'fio'],
  ]);
  const packages = [...new Set(depends.stdout.split('\n').filter((line) => /^[a-z0-9]/.test(line)))];
  const needed = packages.filter((name) => name === 'fio' || name.startsWith('lib') || name.startsWith('zlib'));
  await execa('apt-get', ['download', ...needed], { cwd: debs });
  for (const name of await readdir(debs)) await execa('dpkg', ['-x', join(debs, name), root]);
  await execa('mkdir', ['-p', join(root, 'dev'), join(root, 'proc'), join(root, 'tmp')]);
  const image = join(directory, 'tools.raw');
  await execa('truncate', ['-s', String(TOOLS_BYTES), image]);
  await execa('mkfs.ext4', ['-q', '-O', '^has_journal', '-d', root, image]);
  return image;
}
