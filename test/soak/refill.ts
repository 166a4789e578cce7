import type { ApiClient, TestDaemon } from '../support/daemon.ts';

export interface RefillOptions {
  readonly volumes: number;
  readonly rounds: number;
  readonly vcpus: number;
  /** Processes in the guest that take its CPUs. */
  readonly busy: number;
  readonly say: (line: string) => void;
}

const FILE_BYTES = 1024 * 1024;
/** Tells a disk that never comes or goes from a machine that is busy. */
const PATIENT_MS = 600_000;
/** Volumes that are attached in a call of their own, in every second round. */
const SINGLE = 8;

/**
 * Fills all slots of a VM, empties them in one call, and fills them again at once: a slot that was just freed must keep
 * the disk that comes next. Answers with what went wrong.
 */
export async function refill(daemon: TestDaemon, options: RefillOptions): Promise<readonly string[]> {
  const { volumes: count, rounds, vcpus, busy, say } = options;
  const { client } = daemon;
  const volumes = await Promise.all(
    Array.from({ length: count }, async (_, index) => ({
      volumeId: `v${index}`,
      spec: { rawFile: { path: await daemon.rawFile(`v${index}.raw`, FILE_BYTES) } },
    })),
  );
  await client.createSandbox({ sandboxId: 'vm', spec: { vcpus, volumeCapacity: count } });
  const spin = '(while :; do :; done) </dev/null >/dev/null 2>&1 &';
  if (busy > 0) await client.guest('vm', Array.from({ length: busy }, () => spin).join('\n'));
  const problems: string[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const startedMs = performance.now();
    const single = volumes.slice(0, round % 2 === 0 ? SINGLE : 0);
    const found = [await attachEach(client, single), await attachAll(client, volumes.slice(single.length))];
    const attachedMs = performance.now();
    found.push(await look(client, volumes), await detachAll(client, volumes));
    const [attachMs, detachMs] = [attachedMs - startedMs, performance.now() - attachedMs];
    // The first that was seen of each: a disk that was lost has more to tell later.
    const firsts = new Map(found.flatMap((each) => [...each]).reverse());
    problems.push(...[...firsts].map(([volumeId, problem]) => `round ${round}: ${volumeId} ${problem}`));
    const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
    say(
      `  round ${round}: attached in ${seconds(attachMs)}, detached in ${seconds(detachMs)}, ${firsts.size} problems`,
    );
  }
  await client.deleteSandbox('vm');
  return problems;
}

type Wanted = Parameters<ApiClient['attach']>[0] & { readonly volumeId: string };
/** What is wrong, by volume. */
type Problems = ReadonlyMap<string, string>;

async function attachEach(client: ApiClient, volumes: readonly Wanted[]): Promise<Problems> {
  const problems = new Map<string, string>();
  for (const { volumeId, spec = null } of volumes) {
    try {
      await client.attach({ sandboxId: 'vm', volumeId, spec, timeoutMs: PATIENT_MS });
    } catch (error) {
      problems.set(volumeId, `was not attached: ${String(error)}`);
    }
  }
  return problems;
}

async function attachAll(client: ApiClient, volumes: readonly Wanted[]): Promise<Problems> {
  const results = await client.attachMany({ sandboxId: 'vm', volumes: [...volumes], timeoutMs: PATIENT_MS });
  return new Map(
    results.flatMap(({ volumeId, problem }) =>
      problem === null ? [] : [[volumeId, `was not attached: ${problem.reason}`] as const],
    ),
  );
}

/** What the guest itself has, and what the daemon says of each. */
async function look(client: ApiClient, volumes: readonly Wanted[]): Promise<Problems> {
  const serials = (await client.guest('vm', 'for disk in /sys/block/vd*; do echo "$(cat $disk/serial)"; done')).split(
    '\n',
  );
  const inGuest = new Set(serials);
  const missing = volumes.filter(({ volumeId }) => !inGuest.has(volumeId));
  const left = (await client.listVolumes('vm')).filter(({ state }) => state !== 'VOLUME_STATE_ATTACHED');
  return new Map([
    ...missing.map(({ volumeId }) => [volumeId, 'is not in the guest'] as const),
    ...left.map(({ volumeId, state, cause }) => [volumeId, `is ${state}: ${cause?.reason ?? ''}`] as const),
  ]);
}

/** A disk that had gone before anybody asked for it says so in its cause. */
async function detachAll(client: ApiClient, volumes: readonly Wanted[]): Promise<Problems> {
  const volumeIds = volumes.map(({ volumeId }) => volumeId);
  const results = await client.detachMany({ sandboxId: 'vm', volumeIds, timeoutMs: PATIENT_MS });
  const problems = new Map<string, string>();
  for (const { volumeId, problem, volume } of results) {
    if (problem !== null) problems.set(volumeId, `was not detached: ${problem.reason}`);
    else if (volume?.cause?.reason === 'DEVICE_VANISHED') problems.set(volumeId, 'had vanished');
  }
  return problems;
}
