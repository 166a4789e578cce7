import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { silentLogger } from '../../src/base/log.ts';
import { fdsets } from '../../src/qemu/inventory.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import type { ApiClient } from '../support/daemon.ts';
import { until } from '../support/until.ts';
import { sha256, type VolumeFile } from './model.ts';

/** Looks at the real things: QEMU through its spare monitor, the guest through its agent, files on the host. */

/** What a QEMU has, by its own lists. */
export interface QemuLook {
  readonly status: string;
  /** Devices and block nodes of volumes, by their names. */
  readonly devices: readonly string[];
  readonly nodes: readonly string[];
  /** Sets of descriptors of volumes, by their names. */
  readonly fdSets: readonly string[];
  /** Everything else that could be left behind; must never change. */
  readonly baseline: string;
}

const VOLUME_NAME = /^vol-\d+-/;
const FENCE = /^fence-\d+$/;

export async function lookAtQemu(stateDir: string): Promise<QemuLook> {
  await using qmp = await QmpClient.connect({ path: join(stateDir, 'spare.sock'), log: silentLogger() });
  const names = async (path: string): Promise<readonly string[]> =>
    (await qmp.run('qom-list', { path })).map((child) => child.name).sort();
  // A daemon that comes back has the guest let go of the fence of the one before (volume/fence.ts), in its time.
  await until('no fence is left', async () => !(await names('/machine/peripheral')).some((name) => FENCE.test(name)));
  const [peripherals, objects, blockNodes, fdSets, { status }] = await Promise.all([
    names('/machine/peripheral'),
    names('/objects'),
    qmp.run('query-named-block-nodes', { flat: true }),
    fdsets(qmp),
    qmp.run('query-status'),
  ]);
  const sets = fdSets.map(({ name }) => name).sort();
  const nodes = blockNodes.map((node) => node['node-name'] ?? '').sort();
  const others = (all: readonly string[]): readonly string[] => all.filter((name) => !VOLUME_NAME.test(name));
  return {
    status,
    devices: peripherals.filter((name) => VOLUME_NAME.test(name)),
    nodes: nodes.filter((name) => VOLUME_NAME.test(name)),
    fdSets: sets.filter((name) => VOLUME_NAME.test(name)),
    baseline: JSON.stringify({
      peripherals: others(peripherals),
      objects,
      nodes: others(nodes),
      fdSets: others(sets),
    }),
  };
}

export interface GuestDisk {
  /** "vdb". */
  readonly name: string;
  readonly readOnly: boolean;
  /** Of all its bytes; undefined for a disk that was not asked about. */
  readonly sha256: string | undefined;
}

export interface GuestLook {
  readonly bootId: string;
  readonly disks: ReadonlyMap<string, GuestDisk>;
  /** Mount points below /mnt by device name. */
  readonly mounts: ReadonlyMap<string, string>;
  /** SHA-256 of each file below them. */
  readonly files: ReadonlyMap<string, string>;
}

/** One script for all of it: each program costs 10 to 40 ms under TCG. $1: serials of the disks to hash, in blanks. */
const GUEST_SCRIPT = `
read -r boot < /proc/sys/kernel/random/boot_id; echo "boot $boot"
for path in /sys/block/vd*; do
  [ -e "$path" ] || continue
  serial=; read -r serial < "$path/serial"; read -r ro < "$path/ro"; name=\${path##*/}
  case "$1" in *" $serial "*) sum=$(sha256sum < "/dev/$name"); sum=\${sum%% *};; *) sum=none;; esac
  echo "disk $serial $name $ro $sum"
done
while read -r device point rest; do
  case "$point" in /mnt/*) echo "mount \${device##*/} $point"; set -- "$point"/f*; [ -e "$1" ] && sha256sum "$@";; esac
done < /proc/mounts
exit 0
`;

export async function lookAtGuest(client: ApiClient, sandboxId: string, hashed: readonly string[]): Promise<GuestLook> {
  const text = await client.guest(sandboxId, `set -- " ${hashed.join(' ')} "\n${GUEST_SCRIPT}`);
  const disks = new Map<string, GuestDisk>();
  const mounts = new Map<string, string>();
  const files = new Map<string, string>();
  let bootId = '';
  for (const line of text.split('\n').filter((each) => each !== '')) {
    const [what = '', one = '', two = '', three = '', four = ''] = line.split(/ +/);
    if (what === 'boot') bootId = one;
    else if (what === 'disk')
      disks.set(one, { name: two, readOnly: three === '1', sha256: four === 'none' ? undefined : four });
    else if (what === 'mount') mounts.set(one, two);
    else files.set(one, what);
  }
  return { bootId, disks, mounts, files };
}

/**
 * Reads volumes on the host; only for volumes that no VM has. What did not change since the last look is not read
 * again.
 */
export class HostLook {
  readonly #scratch: string;
  readonly #seen = new Map<string, { readonly stamp: string; readonly sha256: string }>();

  constructor(scratchDirectory: string) {
    this.#scratch = scratchDirectory;
  }

  /** SHA-256 of the bytes that a guest would see. */
  async disk(file: VolumeFile): Promise<string> {
    const { mtimeNs, ctimeNs } = await stat(file.path, { bigint: true });
    const stamp = `${mtimeNs}/${ctimeNs}`;
    const known = this.#seen.get(file.id);
    if (known?.stamp === stamp) return known.sha256;
    const hash = sha256(file.format === 'raw' ? await readFile(file.path) : await this.#flat(file));
    this.#seen.set(file.id, { stamp, sha256: hash });
    return hash;
  }

  async #flat(file: VolumeFile): Promise<Buffer> {
    const flat = join(this.#scratch, `${file.id}.flat`);
    await execa('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', file.path, flat]);
    const bytes = await readFile(flat);
    await rm(flat);
    return bytes;
  }

  /** SHA-256 of files in an ext4 that was unmounted, by name. */
  async files(file: VolumeFile): Promise<ReadonlyMap<string, string>> {
    const found = new Map<string, string>();
    for (const name of file.files.keys()) {
      const { stdout } = await execa('debugfs', ['-R', `cat /${name}`, file.path], {
        encoding: 'buffer',
        stripFinalNewline: false,
      });
      found.set(name, sha256(Buffer.from(stdout)));
    }
    return found;
  }
}
