/**
 * How fast a sandbox from a template is, and one from the warm pool, beside a cold boot and beside QEMU's own start.
 * Run by hand:
 *
 *   node test/bench/template.ts [rounds]
 *
 * All but QEMU's own start (spawn to QMP's greeting) go through the daemon's gRPC Create, to its answer. Prints one
 * line of JSON a round, the medians, and the phases of the clones. In every round the four take turns, so that a
 * machine that is busy for a while is busy for all of them.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { monotonicMs, sleep } from '../../src/base/deadline.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import { TestDaemon } from '../support/daemon.ts';
import { startVm, testLaunch } from '../support/template-vm.ts';

const NAMES = ['greetMs', 'coldMs', 'cloneMs', 'poolMs'] as const;
type Round = Readonly<Record<(typeof NAMES)[number], number>>;

const rounds = Number(process.argv[2] ?? '5');
const templates = await mkdtemp('/dev/shm/qshim-bench-');
await using cleanup = new AsyncDisposableStack();
cleanup.defer(() => rm(templates, { recursive: true }));
const config = { templates_dir: templates, template: 'required', vcpus: 2, log_level: 'info' } as const;
const plain = cleanup.use(await TestDaemon.start({ config }));
const pooled = cleanup.use(await TestDaemon.start({ config: { ...config, pool_size: 1 } }));
// The first of each: templates, probes, caches.
for (const daemon of [plain, pooled]) await create(daemon, {});
const done: Round[] = [];
const phases = new Map<string, number[]>();
for (let round = 0; round < rounds; round += 1) {
  const cloned = await create(plain, {});
  for (const { phase, milliseconds } of cloned.sandbox.timings) {
    phases.set(phase, [...(phases.get(phase) ?? []), milliseconds]);
  }
  const result: Round = {
    greetMs: await greet(),
    coldMs: (await create(plain, { template: 'TEMPLATE_OFF' })).milliseconds,
    cloneMs: cloned.milliseconds,
    poolMs: await fromPool(),
  };
  done.push(result);
  say(result);
}
const [greetMs = 0, coldMs = 0, cloneMs = 0, poolMs = 0] = NAMES.map((name) => median(done.map((one) => one[name])));
say({
  median: { greetMs, coldMs, cloneMs, poolMs },
  coldOverClone: coldMs / cloneMs,
  cloneOverGreet: cloneMs / greetMs,
});
say(Object.fromEntries([...phases].map(([phase, values]) => [phase, median(values)])));

function say(facts: object): void {
  const text = JSON.stringify(facts, (_, value: unknown) =>
    typeof value === 'number' ? Number(value.toFixed(1)) : value,
  );
  process.stdout.write(`${text}\n`);
}

/** From spawn to QMP's greeting. */
async function greet(): Promise<number> {
  const start = monotonicMs();
  await using _vm = await startVm({ ...testLaunch, memoryMib: 512 });
  return monotonicMs() - start;
}

/** One Create, to its answer; the sandbox is deleted again. */
async function create(
  { client }: TestDaemon,
  { template }: { readonly template?: 'TEMPLATE_OFF' },
): Promise<{ readonly sandbox: Sandbox__Output; readonly milliseconds: number }> {
  const start = monotonicMs();
  const spec = { accelerator: 'ACCELERATOR_TCG' as const, ...(template && { template }) };
  const sandbox = await client.createSandbox({ sandboxId: 'bench', spec });
  const milliseconds = monotonicMs() - start;
  await client.deleteSandbox('bench');
  return { sandbox, milliseconds };
}

/** Takes until one came from the pool: it is filled in the background. */
async function fromPool(): Promise<number> {
  for (;;) {
    await sleep(1000);
    const { sandbox, milliseconds } = await create(pooled, {});
    if (sandbox.start?.kind === 'START_KIND_POOL') return milliseconds;
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
