import { readProcStat } from '../base/proc-stat.ts';
import type { Metrics } from '../grpc/generated/io/containerd/cgroups/v2/Metrics.ts';

/** What a process of this host uses: processor time and resident memory. Empty when it is gone. */
export async function processMetrics(pid: number): Promise<Metrics> {
  try {
    const { userMs, systemMs, threads, residentBytes } = await readProcStat(pid);
    const [user, system] = [userMs * 1000, systemMs * 1000];
    return {
      cpu: { usageUsec: user + system, userUsec: user, systemUsec: system },
      memory: { usage: residentBytes },
      pids: { current: threads },
    };
  } catch {
    return {};
  }
}
