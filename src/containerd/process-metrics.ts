import { readFile } from 'node:fs/promises';
import type { Metrics } from '../grpc/generated/io/containerd/cgroups/v2/Metrics.ts';

/** Linux's USER_HZ, in which /proc counts processor time. */
const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;

/** What a process of this host uses, from /proc (proc(5)): processor time and resident memory. Empty when it is gone. */
export async function processMetrics(pid: number): Promise<Metrics> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may hold blanks; field 3 is the first behind it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const field = (number: number): number => Number(fields[number - 3]);
    const user = (field(14) * 1e6) / TICKS_PER_SECOND;
    const system = (field(15) * 1e6) / TICKS_PER_SECOND;
    return {
      cpu: { usageUsec: user + system, userUsec: user, systemUsec: system },
      memory: { usage: field(24) * PAGE_BYTES },
      pids: { current: field(20) },
    };
  } catch {
    return {};
  }
}
