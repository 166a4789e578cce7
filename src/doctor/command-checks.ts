import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { withBareQemu } from '../qemu/bare-qemu.ts';
import { hasFenceDevice } from '../qemu/fence-device.ts';
import { probe } from '../qemu/trial.ts';
import { LINE_BYTES_MAX } from '../qmp/framing.ts';
import { TRIED_COMMANDS, type QemuCapabilities, type TriedCommand } from '../qmp/qemu-capabilities.ts';
import type { Finding } from './finding.ts';

const REPLY_TIMEOUT_MS = 30_000;
const FINDINGS_SHOWN = 5;

/** What qshim does without a command. */
const WITHOUT: Readonly<Record<TriedCommand, string>> = {
  'x-query-virtio-status': "a live driver is known by the guest's reads, and one that gives up only by the time limit",
  'x-blockdev-amend': 'key slots of host_luks images cannot be changed',
};

/**
 * What QEMU says of its commands against what qshim sends, and those about which it says too little tried in a VM that
 * nobody uses. Nothing is kept: the daemon finds out for itself.
 */
export async function checkCommands(options: {
  readonly qemuBinary: string;
  readonly log: Logger;
}): Promise<Finding[]> {
  const { qemuBinary, log } = options;
  try {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-doctor-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true, force: true }));
    const config = {
      ...{ state_dir: directory, cache_dir: directory, qemu_binary: qemuBinary },
      ...{ qmp_line_bytes_max: LINE_BYTES_MAX, qmp_reply_timeout_ms: REPLY_TIMEOUT_MS },
    };
    return await withBareQemu(config, log, async ({ qmp, qemu }) => [
      ...commandFindings(await probe(qmp, { binary: `/proc/${qemu.pid}/exe`, config, log }, TRIED_COMMANDS)),
      fenceFinding(await hasFenceDevice(qmp)),
    ]);
  } catch (error) {
    return [{ check: 'qemu commands', status: 'warning', detail: `cannot be tried: ${messageOf(error)}` }];
  }
}

export function commandFindings({
  contractFindings,
  trials,
}: Pick<QemuCapabilities, 'contractFindings' | 'trials'>): Finding[] {
  return [
    contractFinding(contractFindings),
    ...TRIED_COMMANDS.map((command) => trialFinding(command, trials[command])),
  ];
}

/** Of the device by which a slot that was freed is known to be settled. */
export function fenceFinding(there: boolean): Finding {
  const check = 'qemu pci-testdev';
  if (there) return { check, status: 'ok', detail: 'is there: a slot is used again once the guest has done with it' };
  return {
    check,
    status: 'warning',
    detail: 'QEMU was built without it: nobody knows when a slot that was just freed may be used again',
    remedy: 'a disk that comes into such a slot may be ejected: use a QEMU that has it',
  };
}

function contractFinding(lacking: readonly string[]): Finding {
  const check = 'qemu commands';
  if (lacking.length === 0) return { check, status: 'ok', detail: 'QEMU describes all that qshim sends and reads' };
  const more = lacking.length > FINDINGS_SHOWN ? `; and ${lacking.length - FINDINGS_SHOWN} more` : '';
  return {
    check,
    status: 'warning',
    detail: `${lacking.slice(0, FINDINGS_SHOWN).join('; ')}${more}`,
    remedy: 'calls that need these fail: use a QEMU that docs/limits.md names',
  };
}

function trialFinding(command: TriedCommand, trial: QemuCapabilities['trials'][TriedCommand]): Finding {
  const check = `qemu ${command}`;
  if (trial?.outcome === 'works') return { check, status: 'ok', detail: 'tried in a VM of its own: works' };
  const detail = trial === undefined ? 'not tried' : `${trial.outcome} when tried in a VM of its own: ${trial.detail}`;
  return {
    check,
    status: 'warning',
    detail,
    remedy: `qshim does not send it: ${WITHOUT[command]}; another QEMU may have it`,
  };
}
