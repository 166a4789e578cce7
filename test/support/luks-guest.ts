import assert from 'node:assert/strict';
import { missingCommands } from '../../scripts/lib/packages.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent, type ExecResult } from '../../src/guest/agent.ts';
import type { DiskIdentity } from '../../src/guest/disks.ts';
import {
  closeLuks2,
  openLuks2,
  type CloseLuks2Request,
  type LuksKey,
  type OpenLuks2Request,
} from '../../src/guest/luks.ts';
import { shimFailure } from './agent-pair.ts';
import { rawVmMissing, startRawVm, type RawDisk, type RawVm } from './raw-vm.ts';

const isRoot = process.getuid?.() === 0;
const noTools = !isRoot && missingCommands(['cryptsetup']).length > 0 ? 'cryptsetup is not installed' : false;
/** Why such a guest cannot run here, or false. */
export const luksGuestMissing = rawVmMissing() || noTools;
const BOOT_TIMEOUT_MS = 120_000;
export const LUKS_TIMEOUT_MS = 120_000;
const timeoutMs = LUKS_TIMEOUT_MS;

/** Which disk of the VM a serial means. */
function identity(serial: string, list: readonly RawDisk[]): DiskIdentity {
  const disk = list.find((each) => each.serial === serial);
  assert.ok(disk, serial);
  return { pci: { domain: 0, bus: 0, slot: disk.slot }, serial };
}

export const refused = (reason: string, code = 'FAILED_PRECONDITION'): ((error: unknown) => boolean) =>
  shimFailure(code, reason);

/** A guest that nothing of qshim started, and its encrypted disks. A mapping is called `vol-SERIAL`. */
export interface LuksGuest extends AsyncDisposable {
  readonly vm: RawVm;
  readonly agent: GuestAgent;
  identity(serial: string): DiskIdentity;
  sh(script: string, ...args: string[]): Promise<ExecResult>;
  /** Runs a script that must succeed; its output without the last newline. */
  output(script: string, ...args: string[]): Promise<string>;
  open(serial: string, changes?: Partial<OpenLuks2Request>): ReturnType<typeof openLuks2>;
  close(serial: string, changes?: Partial<CloseLuks2Request>): ReturnType<typeof closeLuks2>;
}

export async function startLuksGuest(list: readonly RawDisk[]): Promise<LuksGuest> {
  await using stack = new AsyncDisposableStack();
  const vm = stack.use(await startRawVm({ disks: list }));
  const agent = stack.use(new GuestAgent({ path: vm.agentPath, log: silentLogger() }));
  await agent.waitReady({ timeoutMs: BOOT_TIMEOUT_MS });
  const sh = async (script: string, ...args: string[]): Promise<ExecResult> =>
    await agent.exec({ path: '/bin/sh', args: ['-c', script, 'sh', ...args], timeoutMs });
  const owned = stack.move();
  return {
    vm,
    agent,
    identity: (serial) => identity(serial, list),
    sh,
    output: async (script, ...args) => {
      const result = await sh(script, ...args);
      assert.equal(result.exitCode, 0, result.stderr.toString());
      return result.stdout.toString().trimEnd();
    },
    open: async (serial, changes = {}) =>
      await openLuks2(agent, {
        ...identity(serial, list),
        name: `vol-${serial}`,
        mode: 'open_or_create_if_empty',
        integrity: false,
        sectorSize: 4096,
        uuid: '',
        key: { kind: 'ephemeral' },
        readOnly: false,
        timeoutMs,
        ...changes,
      }),
    close: async (serial, changes = {}) =>
      await closeLuks2(agent, {
        ...identity(serial, list),
        name: `vol-${serial}`,
        force: false,
        forget: false,
        timeoutMs,
        ...changes,
      }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export const ext4 = (serial: string): NonNullable<OpenLuks2Request['mount']> => ({
  fsType: 'ext4',
  mountPoint: `/mnt/${serial}`,
  options: ['noatime'],
  format: 'if_empty',
});

export const provided = (material: Buffer): LuksKey => ({ kind: 'provided', material });
