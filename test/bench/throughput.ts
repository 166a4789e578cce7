import { randomBytes } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestDaemon } from '../support/daemon.ts';
import { ratio, Samples, type Section } from './figures.ts';
import { startDaemon, withDirectory, type Bench } from './rig.ts';

const MIB = 1024 * 1024;
const KEY_BYTES = 32;
/** Little, since the key is random, and opening is not what is measured. */
const ITERATION_MS = 50;
/** Beside what is written: headers, and the tags of dm-integrity. */
const ROOM_MIB = 40;
const SECTORS = [512, 4096] as const;

type Spec = NonNullable<Parameters<TestDaemon['client']['attach']>[0]['spec']>;

interface Disk {
  readonly kind: string;
  readonly sector: number;
  /** The device that is written and read in the guest. */
  readonly device: string;
}

/** What encryption costs in throughput, beside a plain volume, with sectors of 512 and of 4096 bytes. */
export async function throughput(bench: Bench): Promise<Section> {
  const samples = new Samples();
  const mib = bench.quick ? 16 : 64;
  await withDirectory(bench.diskDirectory, async (directory) => {
    const config = { allowed_roots: directory, key_directories: bench.directory };
    await using daemon = await startDaemon(bench, { config });
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2, template: 'TEMPLATE_OFF' } });
    const file = join(bench.directory, 'throughput-key');
    await writeFile(file, randomBytes(KEY_BYTES / 2).toString('hex'), { mode: 0o600 });
    const disks: Disk[] = [];
    for (const sector of SECTORS) {
      for (const [kind, spec] of kindsOf(file, sector)) {
        const path = join(directory, `${disks.length}.raw`);
        await writeFile(path, '');
        await truncate(path, (mib + ROOM_MIB) * MIB);
        const request = { sandboxId: 'vm', volumeId: `disk${disks.length}`, spec: { ...spec, rawFile: { path } } };
        const volume = await daemon.client.attach({ ...request, timeoutMs: 120_000 });
        const mapped = volume.encryption?.mappedDevice ?? '';
        disks.push({ kind, sector, device: mapped === '' ? volume.guestDevice : mapped });
      }
    }
    // The first round makes the blocks of the files, and is not counted. Within a round all take turns.
    for (let round = 0; round <= (bench.quick ? 1 : 5); round += 1) {
      for (const disk of disks) await measure(daemon, disk, mib, round === 0 ? new Samples() : samples);
    }
  });
  const kinds = ['host_luks', 'guest_luks2', 'guest_luks2 with integrity'];
  return {
    name: 'throughput',
    title: 'Throughput of encrypted volumes',
    rows: samples.rows(),
    ratios: samples.rows().flatMap((row) => kinds.map((kind) => ratio(row, kind, 'plain'))),
    notes: [
      `${mib} MiB from the start of the disk, by dd in the guest, in blocks of 1 MiB, by the guest's own clock; all kinds in one VM.`,
      "Writes end with fsync; before reads the guest's page cache is dropped. Files on the disk of the host, cache mode writeback.",
      'Sectors: the logical block of the disk; for guest_luks2 that of the encryption. LUKS1 (host_luks) encrypts by 512 bytes always.',
    ],
  };
}

function kindsOf(file: string, sector: number): readonly (readonly [string, Spec])[] {
  const guest = { providedKey: { file }, mode: 'LUKS_MODE_CREATE', sectorSize: sector } as const;
  const hostLuks = { key: { file }, format: 'FORMAT_IF_EMPTY', iterationMs: ITERATION_MS } as const;
  return [
    ['plain', { logicalBlockSize: sector }],
    ['host_luks', { logicalBlockSize: sector, encryption: { hostLuks } }],
    ['guest_luks2', { encryption: { guestLuks2: guest } }],
    ['guest_luks2 with integrity', { encryption: { guestLuks2: { ...guest, integrity: true } } }],
  ];
}

async function measure(
  daemon: TestDaemon,
  { kind, sector, device }: Disk,
  mib: number,
  samples: Samples,
): Promise<void> {
  const rate = async (command: string): Promise<number> => {
    // By the guest's own clock, so that the agent's way is not in it. Its ticks are of 10 ms.
    const script = `read begin _ < /proc/uptime; ${command} 2> /dev/null; read end _ < /proc/uptime; echo "$begin $end"`;
    const [begin = 0, end = 0] = (await daemon.client.guest('vm', script)).trim().split(' ').map(Number);
    return mib / Math.max(end - begin, 0.01);
  };
  const write = await rate(`dd if=/dev/zero of=${device} bs=1048576 count=${mib} conv=fsync`);
  samples.add(`write, sectors of ${sector} bytes`, kind, write, 'MiB/s');
  await daemon.client.guest('vm', 'echo 3 > /proc/sys/vm/drop_caches');
  const read = await rate(`dd if=${device} of=/dev/null bs=1048576 count=${mib}`);
  samples.add(`read, sectors of ${sector} bytes`, kind, read, 'MiB/s');
}
