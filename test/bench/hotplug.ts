import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestDaemon } from '../support/daemon.ts';
import { BareScript, type BareDisk } from './bare.ts';
import { allocatorEnvironment, findAllocator } from '../../src/qemu/allocator.ts';
import { SecondAgent } from './second-agent.ts';
import { Samples, ratio, type Section } from './figures.ts';
import { Libvirt, diskXml } from './libvirt.ts';
import { DISK_BYTES, SETTLE_MS, startDaemon, timed, type Bench } from './rig.ts';
import { BlockUevents, UEVENT_SCRIPT } from './uevents.ts';

const BATCH = 16;
const VCPUS = 2;
/** Two bridges of 31 slots; qshim uses 46 of them, and leaves the last 16 to the bare script. */
const CAPACITY = 46;

/** One of those that are compared. */
interface Contestant {
  readonly name: string;
  /** Resolves when the caller knows that the guest has the disks. */
  attach(count: number): Promise<void>;
  detach(count: number): Promise<void>;
  readonly uevents: BlockUevents;
  /** Starts what writes the guest's uevents, in a guest of its own. */
  listen?(): Promise<void>;
}

const LIBVIRT = 'libvirt';
const LIBVIRT_ALLOCATOR = 'libvirt, same allocator';

/** Done when the guest's drivers are live, and when it has told its names of the disks too. */
const BARE = 'bare QMP';
const BARE_NAMED = 'bare QMP and names';

const ONE = {
  attach: 'attach 1, the caller knows that the guest has it',
  uevent: "attach 1, the guest's uevent",
  detach: 'detach 1, gone',
};
const MANY = {
  attach: `attach ${BATCH}, the caller knows that the guest has them`,
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
  const uevents = stack.use(await plugUeventConsole(script, sandbox.stateDir));
  const libvirts: Contestant[] = [];
  for (const [name, environment] of [
    [LIBVIRT, {}],
    [LIBVIRT_ALLOCATOR, allocatorEnvironment((await findAllocator()) ?? 'system')],
  ] as const) {
    const libvirt = stack.use(await Libvirt.start(bench.directory, environment));
    await libvirt.startDomain('bench', { vcpus: VCPUS, ports: BATCH });
    await libvirt.untilAgent('bench');
    const theirs = stack.use(await BlockUevents.connect(libvirt.ueventSocket('bench')));
    libvirts.push(await libvirtContestant(name, libvirt, theirs));
  }
  const agent = stack.use(await SecondAgent.start(script, sandbox.stateDir, guest));
  const all = [
    await bareContestant(daemon, script, uevents),
    await bareContestant(daemon, script, uevents, agent),
    await qshimContestant(daemon, uevents),
    ...libvirts,
  ];
  // Without a listener in the guest first; one round of each is not counted.
  const rounds = bench.quick ? 3 : 25;
  for (let round = -1; round < rounds; round += 1) {
    for (const one of all) await plainRound(one, round < 0 ? new Samples() : samples, 1, ONE);
  }
  for (let round = 0; round < (bench.quick ? 1 : 5); round += 1) {
    for (const one of all) await plainRound(one, samples, BATCH, MANY);
  }
  await guest(UEVENT_SCRIPT);
  for (const one of libvirts) await one.listen?.();
  for (let round = -1; round < (bench.quick ? 2 : 15); round += 1) {
    for (const one of all.filter(({ name }) => name !== BARE_NAMED))
      await ueventRound(one, round < 0 ? new Samples() : samples);
  }
  const bar = (kind: 'at most' | 'at least', value: number) => ({ kind, value }) as const;
  return {
    name: 'hotplug',
    title: 'Attach and detach: a bare QMP script, qshim through gRPC, libvirt',
    rows: samples.rows(),
    ratios: [
      ratio(samples.row(ONE.attach), 'qshim', BARE, bar('at most', 1.15)),
      ratio(samples.row(ONE.attach), 'qshim', BARE_NAMED, bar('at most', 1.15)),
      ratio(samples.row(ONE.detach), 'qshim', BARE, bar('at most', 1.15)),
      ratio(samples.row(ONE.attach), 'qshim', 'libvirt', bar('at most', 1)),
      ratio(samples.row(ONE.detach), 'qshim', 'libvirt', bar('at most', 1)),
      ratio(samples.row(MANY.attach), 'libvirt', 'qshim', bar('at least', 3)),
      ratio(samples.row(MANY.attach), 'libvirt', BARE),
      ratio(samples.row(MANY.attach), LIBVIRT_ALLOCATOR, 'qshim'),
      ratio(samples.row(MANY.detach), LIBVIRT_ALLOCATOR, 'qshim'),
      ratio(samples.row(MANY.detach), 'libvirt', 'qshim', bar('at least', 3)),
      ratio(samples.row(MANY.attach), 'qshim', BARE),
      ratio(samples.row(MANY.attach), 'qshim', BARE_NAMED),
      ratio(samples.row(MANY.detach), 'qshim', BARE),
    ],
    notes: [
      'The bare script and qshim work on the same VM; libvirt has one of its own, with the same guest.',
      'bare QMP knows by DRIVER_OK in the virtio status, looked at every millisecond; it learns no name of the disk.',
      'bare QMP and names: the same, and then the guest is asked for its names of the disks, through an agent of its own.',
      "qshim knows by DRIVER_OK and by the guest's own name of the disk; its record was on disk before QEMU was touched.",
      'qshim gives QEMU an allocator (qemu_allocator), so the bare script has it too; libvirt as it is does not, hence the last column.',
      'libvirt does not wait for the guest. Its caller asks the guest agent (guest-get-disks) until the disks are listed.',
      'The uevent comes out of the guest through a virtio console, in rounds of their own: the console slows the guest down.',
    ],
  };
}

async function plainRound(
  one: Contestant,
  samples: Samples,
  count: number,
  rows: { readonly attach: string; readonly detach: string },
): Promise<void> {
  samples.add(rows.attach, one.name, await timed(() => one.attach(count)));
  await sleep(SETTLE_MS * Math.sqrt(count));
  samples.add(rows.detach, one.name, await timed(() => one.detach(count)));
  await sleep(SETTLE_MS);
}

async function ueventRound(one: Contestant, samples: Samples): Promise<void> {
  one.uevents.reset();
  const start = performance.now();
  await one.attach(1);
  samples.add(ONE.uevent, one.name, (await one.uevents.until(1)) - start);
  await sleep(SETTLE_MS);
  await one.detach(1);
  await sleep(SETTLE_MS);
}

/** A console that is hot-plugged into a sandbox, for the uevents; a sandbox has none by itself. */
async function plugUeventConsole(script: BareScript, stateDir: string): Promise<BlockUevents> {
  const path = join(stateDir, 'uevent.sock');
  await script.plugSocket({ id: 'uevent', path }, { driver: 'virtconsole', bus: 'serial0.0', nr: 9 });
  return await BlockUevents.connect(path);
}

/** @param agent with it, the script waits for the guest's names of its disks as well */
async function bareContestant(
  daemon: TestDaemon,
  script: BareScript,
  uevents: BlockUevents,
  agent?: SecondAgent,
): Promise<Contestant> {
  const paths = await Promise.all(Array.from({ length: BATCH }, (_, n) => daemon.rawFile(`bare${n}.raw`, DISK_BYTES)));
  let generation = 0;
  let present: readonly BareDisk[] = [];
  return {
    name: agent === undefined ? BARE : BARE_NAMED,
    uevents,
    attach: async (count) => {
      generation += 1;
      present = paths.slice(0, count).map((path, index) => ({
        id: `bare${generation}-${index}`,
        bus: 'bridge1',
        addr: `0x${(31 - index).toString(16)}`,
        path,
      }));
      agent?.warmUp();
      await script.attach(present);
      await agent?.untilNamed(present);
    },
    detach: () => script.detach(present),
  };
}

async function qshimContestant(daemon: TestDaemon, uevents: BlockUevents): Promise<Contestant> {
  const paths = await Promise.all(Array.from({ length: BATCH }, (_, n) => daemon.rawFile(`q${n}.raw`, DISK_BYTES)));
  const idOf = (index: number): string => `v${index}`;
  return {
    name: 'qshim',
    uevents,
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
    listen: () => libvirt.guest('bench', UEVENT_SCRIPT),
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
