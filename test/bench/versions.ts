import { setTimeout as sleep } from 'node:timers/promises';
import type { TestDaemon } from '../support/daemon.ts';
import { Tree } from '../versions/tree.ts';
import { Samples, ratio, type Section } from './figures.ts';
import { BATCH, CAPACITY, VCPUS, qshimDisks } from './hotplug.ts';
import { SETTLE_MS, startDaemon, timed, type Bench } from './rig.ts';

const ATTACH_ONE = 'attach 1';
const DETACH_ONE = 'detach 1';
const ATTACH_MANY = `attach ${BATCH}`;
const DETACH_MANY = `detach ${BATCH}`;

type Contestant = { readonly name: string } & Awaited<ReturnType<typeof qshimDisks>>;

/**
 * What `hotplug` measures of qshim, for this tree beside another version: each has a daemon and a VM of its own, and
 * they take turns. Who begins changes from round to round.
 * @param ref a commit, tag or branch of this repository
 */
export async function versions(bench: Bench, ref: string): Promise<Section> {
  await using stack = new AsyncDisposableStack();
  const other = stack.use(await Tree.checkOut(ref));
  const here = Tree.here();
  const contestants: Contestant[] = [];
  for (const tree of [other, here]) {
    const daemon: TestDaemon = stack.use(await startDaemon(bench, { tree: tree.directory, config: guestOf(here) }));
    const spec = { vcpus: VCPUS, volumeCapacity: CAPACITY, template: 'TEMPLATE_OFF' } as const;
    await daemon.client.createSandbox({ sandboxId: 'vm', spec });
    contestants.push({ name: tree.name, ...(await qshimDisks(daemon)) });
  }
  const samples = new Samples();
  const round = async (into: Samples, count: number, attach: string, detach: string): Promise<void> => {
    for (const one of contestants) {
      into.add(attach, one.name, await timed(() => one.attach(count)));
      await sleep(SETTLE_MS * Math.sqrt(count));
      into.add(detach, one.name, await timed(() => one.detach(count)));
      await sleep(SETTLE_MS);
    }
    contestants.reverse();
  };
  // One round of each is not counted.
  for (let n = -1; n < (bench.quick ? 3 : 40); n += 1) {
    await round(n < 0 ? new Samples() : samples, 1, ATTACH_ONE, DETACH_ONE);
  }
  for (let n = -1; n < (bench.quick ? 1 : 10); n += 1) {
    await round(n < 0 ? new Samples() : samples, BATCH, ATTACH_MANY, DETACH_MANY);
  }
  return {
    name: 'versions',
    title: `Attach and detach: ${other.name} and ${here.name}, taking turns`,
    rows: samples.rows(),
    ratios: [ATTACH_ONE, DETACH_ONE, ATTACH_MANY, DETACH_MANY].map((what) =>
      ratio(samples.row(what), here.name, other.name),
    ),
    notes: ['Both have the guest image of this tree, and the same settings.'],
  };
}

/** An older tree has no guest image of its own. */
function guestOf(tree: Tree): { readonly kernel: string; readonly initrd: string } {
  return { kernel: `${tree.directory}/build/guest/vmlinuz`, initrd: `${tree.directory}/build/guest/initrd.img` };
}
