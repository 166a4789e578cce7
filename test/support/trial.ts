import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '../../src/base/log.ts';
import { withBareQemu, type BareQemu } from '../../src/qemu/bare-qemu.ts';
import { LINE_BYTES_MAX } from '../../src/qmp/framing.ts';
import { probe, type CommandTarget } from '../../src/qemu/trial.ts';
import type { QemuCapabilities, TriedCommand } from '../../src/qmp/qemu-capabilities.ts';
import { bareQemuBinary, bareQemuMissing } from './bare-qemu.ts';

export type ProbeConfig = CommandTarget['config'];

/** Gives `work` a QEMU of the binary under test, and what a daemon would know about it. */
export async function withProbe<T>(work: (bare: BareQemu, config: ProbeConfig) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-trial-'));
  const config = {
    ...{ state_dir: directory, cache_dir: join(directory, 'cache'), qemu_binary: bareQemuBinary },
    ...{ qmp_line_bytes_max: LINE_BYTES_MAX, qmp_reply_timeout_ms: 30_000 },
  };
  // Nothing else keeps this process alive while it waits for the end of a QEMU.
  const alive = setInterval(() => undefined, 60_000);
  try {
    return await withBareQemu(config, silentLogger(), (bare) => work(bare, config));
  } finally {
    clearInterval(alive);
    await rm(directory, { recursive: true });
  }
}

/** What the binary under test can do; the commands are tried as a daemon would. */
export async function probeBinary(needed: readonly TriedCommand[]): Promise<QemuCapabilities> {
  return await withProbe(async ({ qmp, qemu }, config) => {
    const target = { binary: `/proc/${qemu.pid}/exe`, config, log: silentLogger() };
    return await probe(qmp, target, needed);
  });
}

/** How drivers are seen to be live on the binary under test; where there is none, no test asks. */
export async function driverEvidence(): Promise<'virtio-status' | 'block-reads'> {
  if (bareQemuMissing() !== false) return 'virtio-status';
  const { trials } = await probeBinary(['x-query-virtio-status']);
  return trials['x-query-virtio-status']?.outcome === 'works' ? 'virtio-status' : 'block-reads';
}
