/**
 * How fast a clone is, beside a cold boot and beside QEMU's own start. Run by hand:
 *
 *   node test/bench/template.ts [rounds]
 *
 * Prints one line of JSON a round and the medians. In every round the three take turns, so that a machine that is busy for
 * a while is busy for all of them.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { monotonicMs } from '../../src/base/deadline.ts';
import { silentLogger } from '../../src/base/log.ts';
import { TemplateStore, type TemplateLease } from '../../src/qemu/template-store.ts';
import { START_TIMEOUT_MS, startTestClone, startVm, templateBuild, testLaunch } from '../support/template-vm.ts';

const rounds = Number(process.argv[2] ?? '5');
const launch = { ...testLaunch, memoryMib: 512 };
const alive = setInterval(() => undefined, 1000);
await using cleanup = new AsyncDisposableStack();
cleanup.defer(() => clearInterval(alive));
const root = await mkdtemp('/dev/shm/qshim-bench-');
cleanup.defer(() => rm(root, { recursive: true }));
const store = cleanup.use(
  await TemplateStore.open({ directory: join(root, 'store'), bytesMax: 2 ** 31, log: silentLogger() }),
);
const build = await templateBuild(launch);
const makeMs = await timed(() => store.build(build));
const lease = await store.lookup(build.key);
if (lease === undefined) throw new Error('there is no template');
using held = lease;
say({ makeMs, bytes: store.bytes });
const all: Record<'greetMs' | 'coldMs' | 'cloneMs', number[]> = { greetMs: [], coldMs: [], cloneMs: [] };
for (let round = 0; round < rounds; round += 1) {
  const result = { greetMs: await greet(), coldMs: await cold(), cloneMs: await clone(held) };
  for (const name of ['greetMs', 'coldMs', 'cloneMs'] as const) all[name].push(result[name]);
  say(result);
}
const [greetMs, coldMs, cloneMs] = [median(all.greetMs), median(all.coldMs), median(all.cloneMs)];
say({
  median: { greetMs, coldMs, cloneMs },
  coldOverClone: ratio(coldMs, cloneMs),
  cloneOverGreet: ratio(cloneMs, greetMs),
});

function say(facts: object): void {
  process.stdout.write(`${JSON.stringify(facts)}\n`);
}

/** From spawn to QMP's greeting. */
async function greet(): Promise<number> {
  await using stack = new AsyncDisposableStack();
  return await timed(async () => {
    stack.use(await startVm(launch));
  });
}

/** From spawn to the agent's first answer. */
async function cold(): Promise<number> {
  await using stack = new AsyncDisposableStack();
  return await timed(async () => {
    const vm = stack.use(await startVm(launch));
    await vm.agent.waitReady({ timeoutMs: START_TIMEOUT_MS });
  });
}

/** From spawn to the agent's first answer in a guest with an identity of its own. */
async function clone(from: TemplateLease): Promise<number> {
  await using stack = new AsyncDisposableStack();
  return await timed(async () => {
    stack.use(await startTestClone(launch, from, 'bench'));
  });
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = monotonicMs();
  await work();
  return Math.round(monotonicMs() - start);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function ratio(one: number, other: number): number {
  return Math.round((one / other) * 10) / 10;
}
