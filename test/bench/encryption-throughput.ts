/**
 * What encryption costs in throughput, beside a plain volume, with sectors of 512 and of 4096 bytes. Run by hand:
 *
 *   node test/bench/encryption-throughput.ts [rounds] [MiB]
 *
 * Each volume is written from end to end, and read back, past the guest's page cache. In every round all take turns, so that a
 * machine that is busy for a while is busy for all of them. Prints one line of JSON a round, and the medians relative to plain. For
 * host_luks the sector is the disk's logical block: LUKS1 itself has 512 bytes always.
 */
import { randomBytes } from 'node:crypto';
import type { VolumeSpec } from '../../src/rpc/generated/qshim/v1/VolumeSpec.ts';
import { ConfidentialRig, guestLuks2, hostLuks, MIB } from '../support/confidential.ts';

const rounds = Number(process.argv[2] ?? '3');
const mib = Number(process.argv[3] ?? '64');

interface Rate {
  readonly writeMibS: number;
  readonly readMibS: number;
}

await using rig = await ConfidentialRig.start();
const file = await rig.daemon.keyFile('key', randomBytes(24).toString('hex'));
const specs: readonly (readonly [string, Partial<VolumeSpec>])[] = [512, 4096].flatMap((sectorSize) => [
  [`plain ${sectorSize}`, { logicalBlockSize: sectorSize }] as const,
  [`host_luks ${sectorSize}`, { logicalBlockSize: sectorSize, ...hostLuks({ key: { file } }) }] as const,
  [`guest_luks2 ${sectorSize}`, guestLuks2({ providedKey: { file }, sectorSize })] as const,
]);
const all = new Map<string, Rate[]>(specs.map(([name]) => [name, []]));
for (let round = 0; round < rounds; round += 1) {
  for (const [name, spec] of specs) {
    const rate = await measure(name.replace(' ', '-'), spec);
    all.get(name)?.push(rate);
    process.stdout.write(`${JSON.stringify({ round, name, ...rate })}\n`);
  }
}
for (const [name, rates] of all) {
  const plain = all.get(`plain ${name.split(' ')[1] ?? ''}`) ?? [];
  const relative = (of: keyof Rate): number => Number((median(rates, of) / median(plain, of)).toFixed(2));
  process.stdout.write(`${JSON.stringify({ name, write: relative('writeMibS'), read: relative('readMibS') })}\n`);
}

async function measure(volumeId: string, spec: Partial<VolumeSpec>): Promise<Rate> {
  const path = await rig.daemon.rawFile(`${volumeId}.raw`, (mib + 32) * MIB);
  const volume = await rig.attach(volumeId, { rawFile: { path }, ...spec });
  const device = volume.encryption?.mappedDevice ?? '';
  const target = device === '' ? volume.guestDevice : device;
  const writeMibS = await rate(`dd if=/dev/zero of=${target} bs=1048576 count=${mib} conv=fsync 2> /dev/null`);
  const readMibS = await rate(
    `echo 3 > /proc/sys/vm/drop_caches; dd if=${target} of=/dev/null bs=1048576 count=${mib} 2> /dev/null`,
  );
  await rig.detach(volumeId);
  return { writeMibS, readMibS };
}

/** By the guest's own clock, so that the agent's way is not in it. */
async function rate(command: string): Promise<number> {
  const script = `read begin _ < /proc/uptime; ${command}; read end _ < /proc/uptime; echo "$begin $end"`;
  const [begin = 0, end = 0] = (await rig.guest(script)).trim().split(' ').map(Number);
  return Number((mib / Math.max(end - begin, 0.01)).toFixed(1));
}

function median(rates: readonly Rate[], of: keyof Rate): number {
  const sorted = rates.map((one) => one[of]).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
