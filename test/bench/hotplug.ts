import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestDaemon } from '../support/daemon.ts';
import { BareScript, type BareDisk } from './bare.ts';
import { allocatorEnvironment, findAllocator } from '../../src/qemu/allocator.ts';
import { Samples, ratio, type Section } from './figures.ts';
import { Libvirt, diskXml } from './libvirt.ts';
import { DISK_BYTES, SETTLE_MS, startDaemon, timed, type Bench } from './rig.ts';
import { BlockUevents, UEVENT_PORT, UEVENT_SCRIPT } from './uevents.ts';

export const BATCH = 16;
export const VCPUS = 2;
/** Two bridges of 31 slots; qshim uses 46 of them, and leaves the last 16 to the bare script. */
export const CAPACITY = 46;

/** One of those that are compared. */
interface Contestant {
  readonly name: string;
  /** Resolves when the caller knows that the guest has the disks. */
  attach(count: number): Promise<void>;
  detach(count: number): Promise<void>;
  readonly uevents: BlockUevents;
}

const LIBVIRT = 'libvirt';
const LIBVIRT_ALLOCATOR = 'libvirt, same allocator';

/** Done when the guest's drivers are live: some milliseconds before the guest has the disks. */
const BARE_DRIVER = 'bare QMP, driver live';
/** Done when its kernel has announced them: what "the guest has it" means. It looks at nothing else. */
const BARE = 'bare QMP, guest has it';

const ONE = {
  attach: 'attach 1, the caller knows that the guest has it',
  uevent: "attach 1, the guest's uevent",
  detach: 'detach 1, gone',
};
const MANY: typeof ONE = {
  attach: `attach ${BATCH}, the caller knows that the guest has them`,
  uevent: `attach ${BATCH}, the guest's last uevent`,
  detach: `detach ${BATCH}, gone`,
};

/** Attach and detach, one and sixteen: the bare script and qshim on the same VM, libvirt on one of its own. */
export async function hotplug(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using stack = new AsyncDisposableStack();
  const daemon = stack.use(await startDaemon(bench));
  const sandbox = await daemon.client.createSandbox({
    sandboxId: 'vm',
    spec: { vcpus: VCPUS, volumeCapacity: CAPACITY, template: 'TEMPLATE_OFF' },
  });
  const script = stack.use(await BareScript.connect(sandbox.stateDir, VCPUS));
  const guest = (text: string): Promise<unknown> => daemon.client.guest('vm', text);
  const uevents = stack.use(await plugUeventPort(script, sandbox.stateDir));
  await guest(UEVENT_SCRIPT);
  const libvirts: Contestant[] = [];
  for (const [name, environment] of [
    [LIBVIRT, {}],
    [LIBVIRT_ALLOCATOR, allocatorEnvironment((await findAllocator()) ?? 'system')],
  ] as const) {
    const libvirt = stack.use(await Libvirt.start(bench.directory, environment));
    await libvirt.startDomain('bench', { vcpus: VCPUS, ports: BATCH });
    await libvirt.untilAgent('bench');
    const theirs = stack.use(await BlockUevents.connect(libvirt.ueventSocket('bench')));
    await libvirt.guest('bench', UEVENT_SCRIPT);
    libvirts.push(await libvirtContestant(name, libvirt, theirs));
  }
  const all = [
    await bareContestant(BARE_DRIVER, daemon, script, uevents),
    await bareContestant(BARE, daemon, script, uevents),
    await qshimContestant(daemon, uevents),
    ...libvirts,
  ];
  // One round of each is not counted.
  const rounds = bench.quick ? 3 : 25;
  for (let round = -1; round < rounds; round += 1) {
    for (const one of all) await plainRound(one, round < 0 ? new Samples() : samples, 1, ONE);
  }
  for (let round = 0; round < (bench.quick ? 1 : 7); round += 1) {
    for (const one of all) await plainRound(one, samples, BATCH, MANY);
  }
  const bar = (kind: 'at most' | 'at least', value: number) => ({ kind, value }) as const;
  return {
    name: 'hotplug',
    title: 'Attach and detach: a bare QMP script, qshim through gRPC, libvirt',
    rows: samples.rows(),
    ratios: [
      ratio(samples.row(ONE.attach), 'qshim', BARE, bar('at most', 1.15)),
      ratio(samples.row(ONE.attach), 'qshim', BARE_DRIVER),
      ratio(samples.row(ONE.detach), 'qshim', BARE, bar('at most', 1.15)),
      ratio(samples.row(ONE.attach), 'qshim', LIBVIRT, bar('at most', 1)),
      ratio(samples.row(ONE.detach), 'qshim', LIBVIRT, bar('at most', 1)),
      ratio(samples.row(MANY.attach), LIBVIRT, 'qshim', bar('at least', 3)),
      ratio(samples.row(MANY.attach), LIBVIRT, BARE),
      ratio(samples.row(MANY.attach), LIBVIRT_ALLOCATOR, 'qshim'),
      ratio(samples.row(MANY.detach), LIBVIRT, 'qshim', bar('at least', 3)),
      ratio(samples.row(MANY.detach), LIBVIRT_ALLOCATOR, 'qshim'),
      ratio(samples.row(MANY.attach), 'qshim', BARE),
      ratio(samples.row(MANY.detach), 'qshim', BARE),
    ],
    notes: [
      'The bare script and qshim work on the same VM; libvirt has one of its own, with the same guest.',
      'bare QMP, driver live: knows by DRIVER_OK in the virtio status, looked at every millisecond. The disk cannot be opened yet.',
      "bare QMP, guest has it: knows by the guest's own kernel, which announces the disk (its uevent) when it can be used; looks at nothing.",
      "qshim knows by DRIVER_OK and by the guest's announcement; its record was on disk before QEMU was touched.",
      'qshim gives QEMU an allocator (qemu_allocator), so the bare script has it too; libvirt as it is does not, hence the last column.',
      'libvirt does not wait for the guest. Its caller asks the guest agent (guest-get-disks) until the disks are listed.',
      "The uevent is taken at a virtio-serial port of the benchmark's own, in every guest; qshim's guest serves a second one, for qshim.",
    ],
  };
}

async function plainRound(one: Contestant, samples: Samples, count: number, rows: typeof ONE): Promise<void> {
  one.uevents.reset();
  const start = performance.now();
  await one.attach(count);
  samples.add(rows.attach, one.name, performance.now() - start);
  samples.add(rows.uevent, one.name, (await one.uevents.until(count)) - start);
  await sleep(SETTLE_MS * Math.sqrt(count));
  samples.add(rows.detach, one.name, await timed(() => one.detach(count)));
  await sleep(SETTLE_MS);
}

/** A port that is hot-plugged into a sandbox, for the benchmark's own look at the uevents. */
async function plugUeventPort(script: BareScript, stateDir: string): Promise<BlockUevents> {
  const path = join(stateDir, 'bench-uevents.sock');
  await script.plugSocket(
    { id: 'bench-uevents', path },
    { driver: 'virtserialport', bus: 'serial0.0', name: UEVENT_PORT },
  );
  return await BlockUevents.connect(path);
}

async function bareContestant(
  name: typeof BARE | typeof BARE_DRIVER,
  daemon: TestDaemon,
  script: BareScript,
  uevents: BlockUevents,
): Promise<Contestant> {
  const paths = await Promise.all(Array.from({ length: BATCH }, (_, n) => daemon.rawFile(`bare${n}.raw`, DISK_BYTES)));
  let generation = 0;
  let present: readonly BareDisk[] = [];
  return {
    name,
    uevents,
    attach: async (count) => {
      generation += 1;
      present = paths.slice(0, count).map((path, index) => ({
        id: `bare${generation}-${index}`,
        bus: 'bridge1',
        addr: `0x${(31 - index).toString(16)}`,
        path,
      }));
      if (name === BARE_DRIVER) {
        await script.attach(present);
      } else {
        await script.add(present);
        await uevents.until(count);
      }
    },
    detach: () => script.detach(present),
  };
}

async function qshimContestant(daemon: TestDaemon, uevents: BlockUevents): Promise<Contestant> {
  return { name: 'qshim', uevents, ...(await qshimDisks(daemon)) };
}

/** Raw files that a daemon attaches to its sandbox `vm` and detaches again: one by itself, several as a batch. */
export async function qshimDisks(daemon: TestDaemon): Promise<Pick<Contestant, 'attach' | 'detach'>> {
  const paths = await Promise.all(Array.from({ length: BATCH }, (_, n) => daemon.rawFile(`q${n}.raw`, DISK_BYTES)));
  const idOf = (index: number): string => `v${index}`;
  return {
    attach: async (count) => {
      const volumes = paths
        .slice(0, count)
        .map((path, index) => ({ volumeId: idOf(index), spec: { rawFile: { path } } }));
      const [first] = volumes;
      if (count === 1 && first !== undefined) await daemon.client.attach({ sandboxId: 'vm', ...first });
      else mustBeWell(await daemon.client.attachMany({ sandboxId: 'vm', volumes }));
    },
    detach: async (count) => {
      const volumeIds = Array.from({ length: count }, (_, index) => idOf(index));
      if (count === 1) await daemon.client.detach({ sandboxId: 'vm', volumeId: idOf(0) });
      else mustBeWell(await daemon.client.detachMany({ sandboxId: 'vm', volumeIds }));
    },
  };
}

function mustBeWell(results: readonly { readonly problem: { readonly message: string } | null }[]): void {
  for (const { problem } of results) if (problem !== null) throw new Error(problem.message);
}

async function libvirtContestant(name: string, libvirt: Libvirt, uevents: BlockUevents): Promise<Contestant> {
  const disks = await Promise.all(
    Array.from({ length: BATCH }, async (_, index) =>
      diskXml(await libvirt.rawFile(`l${index}.raw`, DISK_BYTES), `vd${String.fromCharCode(97 + index)}`),
    ),
  );
  return {
    name,
    uevents,
    attach: async (count) => {
      for (const xml of disks.slice(0, count)) await libvirt.call('attach', 'bench', xml);
      await libvirt.untilListed('bench', count);
    },
    detach: async (count) => {
      for (const [index, xml] of disks.slice(0, count).entries()) {
        await libvirt.detach('bench', xml, count - 1 - index);
      }
    },
  };
}
