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
    const found = [...(await attachEach(client, single)), ...(await attachAll(client, volumes.slice(single.length)))];
    const attachedMs = performance.now();
    found.push(...(await look(client, count)), ...(await detachAll(client, volumes)));
    const [attach, detach] = [attachedMs - startedMs, performance.now() - attachedMs];
    problems.push(...found.map((problem) => `round ${round}: ${problem}`));
    const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
    say(`  round ${round}: attached in ${seconds(attach)}, detached in ${seconds(detach)}, ${found.length} problems`);
  }
  await client.deleteSandbox('vm');
  return problems;
}

type Wanted = Parameters<ApiClient['attach']>[0] & { readonly volumeId: string };

async function attachEach(client: ApiClient, volumes: readonly Wanted[]): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const { volumeId, spec } of volumes) {
    try {
      await client.attach({ sandboxId: 'vm', volumeId, ...(spec ? { spec } : {}), timeoutMs: PATIENT_MS });
    } catch (error) {
      problems.push(`${volumeId} not attached: ${String(error)}`);
    }
  }
  return problems;
}

async function attachAll(client: ApiClient, volumes: readonly Wanted[]): Promise<readonly string[]> {
  const results = await client.attachMany({ sandboxId: 'vm', volumes: [...volumes], timeoutMs: PATIENT_MS });
  return results.flatMap(({ volumeId, problem }) =>
    problem === null ? [] : [`${volumeId} not attached: ${problem.reason}`],
  );
}

/** What the guest itself has, and what the daemon says of each. */
async function look(client: ApiClient, count: number): Promise<readonly string[]> {
  const seen = Number(await client.guest('vm', 'ls -d /sys/block/vd* | wc -l'));
  const left = (await client.listVolumes('vm')).filter(({ state }) => state !== 'VOLUME_STATE_ATTACHED');
  return [
    ...(seen === count ? [] : [`the guest has ${seen} disks of ${count}`]),
    ...left.map(({ volumeId, state, cause }) => `${volumeId} is ${state}, ${cause?.reason ?? ''}`),
  ];
}

/** A disk that had gone before anybody asked for it says so in its cause. */
async function detachAll(client: ApiClient, volumes: readonly Wanted[]): Promise<readonly string[]> {
  const volumeIds = volumes.map(({ volumeId }) => volumeId);
  const results = await client.detachMany({ sandboxId: 'vm', volumeIds, timeoutMs: PATIENT_MS });
  return results.flatMap(({ volumeId, problem, volume }) => {
    const reason = problem?.reason ?? volume?.cause?.reason ?? '';
    if (problem !== null) return [`${volumeId} not detached: ${reason}`];
    return reason === 'DEVICE_VANISHED' ? [`${volumeId} had vanished`] : [];
  });
}
