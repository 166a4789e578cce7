import type { ContainerStats } from '../guest/containers/types.ts';
import type { MemoryStat } from '../grpc/generated/io/containerd/cgroups/v2/MemoryStat.ts';
import type { Metrics } from '../grpc/generated/io/containerd/cgroups/v2/Metrics.ts';

/** What containerd's memory figures are called in the kernel's memory.stat. */
const MEMORY_FIGURES = {
  anon: 'anon',
  file: 'file',
  kernelStack: 'kernel_stack',
  slab: 'slab',
  sock: 'sock',
  shmem: 'shmem',
  fileMapped: 'file_mapped',
  fileDirty: 'file_dirty',
  fileWriteback: 'file_writeback',
  inactiveAnon: 'inactive_anon',
  activeAnon: 'active_anon',
  inactiveFile: 'inactive_file',
  activeFile: 'active_file',
  unevictable: 'unevictable',
  slabReclaimable: 'slab_reclaimable',
  slabUnreclaimable: 'slab_unreclaimable',
  pgfault: 'pgfault',
  pgmajfault: 'pgmajfault',
} as const satisfies Partial<Record<keyof MemoryStat, string>>;

/** A guest cgroup's figures as containerd wants them. Pure. */
export function cgroupMetrics(stats: ContainerStats): Metrics {
  const { cpu, memory, memoryEvents } = stats;
  const figures = Object.entries(MEMORY_FIGURES).map(([name, file]) => [name, memory[file] ?? 0] as const);
  return {
    pids: { ...optional('current', stats.pidsCurrent), ...optional('limit', stats.pidsMax) },
    cpu: {
      usageUsec: cpu.usage_usec ?? 0,
      userUsec: cpu.user_usec ?? 0,
      systemUsec: cpu.system_usec ?? 0,
      nrPeriods: cpu.nr_periods ?? 0,
      nrThrottled: cpu.nr_throttled ?? 0,
      throttledUsec: cpu.throttled_usec ?? 0,
    },
    memory: {
      ...Object.fromEntries(figures),
      ...optional('usage', stats.memoryCurrentBytes),
      ...optional('usageLimit', stats.memoryMaxBytes),
    },
    memoryEvents: {
      low: memoryEvents.low ?? 0,
      high: memoryEvents.high ?? 0,
      max: memoryEvents.max ?? 0,
      oom: memoryEvents.oom ?? 0,
      oomKill: memoryEvents.oom_kill ?? 0,
    },
    io: {
      usage: Object.entries(stats.io).map(([device, { rbytes = 0, wbytes = 0, rios = 0, wios = 0 }]) => {
        const [major = 0, minor = 0] = device.split(':').map(Number);
        return { major, minor, rbytes, wbytes, rios, wios };
      }),
    },
  };
}

function optional<K extends string>(name: K, value: number | undefined): Partial<Record<K, number>> {
  return value === undefined ? {} : ({ [name]: value } as Record<K, number>);
}
