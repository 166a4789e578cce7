import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { run } from '../base/run.ts';
import { probeAccelerator, type AcceleratorProbe } from '../qemu/accelerator.ts';
import { chooseAllocator } from '../qemu/allocator.ts';
import { probeAio, type AioProbe } from '../qemu/aio.ts';
import { SOURCES } from '../volume/source/registry.ts';
import { isDenied, type Finding } from './finding.ts';

/** The baseline: the oldest QEMU that the whole test suite passes on. */
const QEMU_MAJOR_MIN = 7;
const QEMU_MINOR_MIN = 2;

const HELP_TIMEOUT_MS = 10_000;
const AIO_TIMEOUT_MS = 10_000;

/** What src/qemu/argv.ts and hot-plug ask of the binary, and with which help option QEMU tells that it has it. */
const FEATURES: readonly { readonly helpArguments: readonly string[]; readonly names: readonly string[] }[] = [
  { helpArguments: ['-machine', 'help'], names: ['q35'] },
  {
    helpArguments: ['-device', 'help'],
    names: ['virtio-blk-pci', 'virtio-serial-pci', 'virtserialport', 'virtio-rng-pci', 'pci-bridge'],
  },
  { helpArguments: ['-help'], names: ['-sandbox'] },
];

export interface QemuCheck {
  /** False when there is nothing that the other checks could start. */
  readonly runs: boolean;
  readonly findings: readonly Finding[];
}

/** The binary, its version, and the devices and options that qshim uses. */
export async function checkQemu(binary: string): Promise<QemuCheck> {
  let version: string;
  try {
    version = await help(binary, ['-version']);
  } catch (error) {
    return { runs: false, findings: [notStarted(binary, error)] };
  }
  const versionFinding = qemuVersionFinding(binary, version);
  const missing: string[] = [];
  try {
    for (const { helpArguments, names } of FEATURES) {
      missing.push(...missingWords(await help(binary, helpArguments), names));
    }
  } catch (error) {
    const failed: Finding = { check: 'qemu features', status: 'failure', detail: messageOf(error).slice(0, 300) };
    return { runs: true, findings: [versionFinding, failed] };
  }
  return { runs: true, findings: [versionFinding, featuresFinding(missing), await sourcesFinding(binary)] };
}

/** What `-version` says against the baseline: "QEMU emulator version 7.2.22 (Debian ...)". */
export function qemuVersionFinding(binary: string, text: string): Finding {
  const check = 'qemu';
  const [, version, major, minor] = /version ((\d+)\.(\d+)(?:\.\d+)*)/.exec(text) ?? [];
  if (version === undefined) {
    return {
      check,
      status: 'failure',
      detail: `${binary} does not tell its version`,
      remedy: 'name a qemu-system-x86_64 with the option qemu_binary',
    };
  }
  const enough =
    Number(major) > QEMU_MAJOR_MIN || (Number(major) === QEMU_MAJOR_MIN && Number(minor) >= QEMU_MINOR_MIN);
  if (enough) return { check, status: 'ok', detail: `${binary} is version ${version}` };
  return {
    check,
    status: 'failure',
    detail: `${binary} is version ${version}, older than ${QEMU_MAJOR_MIN}.${QEMU_MINOR_MIN}`,
    remedy: `install QEMU ${QEMU_MAJOR_MIN}.${QEMU_MINOR_MIN} or newer, or name another one with the option qemu_binary`,
  };
}

/** Those names that do not stand in the help text as words of their own. */
export function missingWords(text: string, names: readonly string[]): string[] {
  const words = new Set(text.split(/[\s"',]+/));
  return names.filter((name) => !words.has(name));
}

function featuresFinding(missing: readonly string[]): Finding {
  const check = 'qemu features';
  if (missing.length === 0) {
    return { check, status: 'ok', detail: FEATURES.flatMap(({ names }) => names).join(', ') };
  }
  return {
    check,
    status: 'failure',
    detail: `missing: ${missing.join(', ')}`,
    remedy: 'this QEMU was built without them: install the full qemu-system-x86 package',
  };
}

/** Which kinds of sources this QEMU can open, by its own list of block drivers. */
async function sourcesFinding(binary: string): Promise<Finding> {
  const check = 'volume sources';
  try {
    const text = await help(binary, ['-drive', 'format=help']);
    const lacking = SOURCES.flatMap(({ apiName, demands }) => {
      const missing = missingWords(text, demands.blockDrivers);
      return missing.length === 0 ? [] : [`${apiName} (no block driver ${missing.join(', ')})`];
    });
    if (lacking.length === 0) return { check, status: 'ok', detail: SOURCES.map(({ apiName }) => apiName).join(', ') };
    return {
      check,
      status: 'warning',
      detail: `this QEMU cannot open ${lacking.join('; ')}`,
      remedy: 'volumes of these kinds are refused: install a QEMU that has the drivers, if you need them',
    };
  } catch (error) {
    return { check, status: 'warning', detail: `cannot be tried: ${messageOf(error).slice(0, 300)}` };
  }
}

/** Whether KVM runs a payload; without it everything works, slowly. */
export async function checkKvm(options: {
  readonly qemuBinary: string;
  readonly kvmProbeTimeoutMs: number;
  /** Tests have another. */
  readonly device?: string;
}): Promise<Finding> {
  const check = 'kvm';
  const { qemuBinary: binary, kvmProbeTimeoutMs: timeoutMs, device } = options;
  try {
    const probe = await probeAccelerator({ binary, timeoutMs, ...(device !== undefined && { device }) });
    const detail = `${probe.reason} (${probe.milliseconds.toFixed(0)} ms)`;
    if (probe.usable) return { check, status: 'ok', detail };
    return {
      check,
      status: 'warning',
      detail,
      remedy: `sandboxes run under TCG, which is slow; ${kvmRemedy(probe)}`,
    };
  } catch (error) {
    return { check, status: 'warning', detail: `cannot be tried: ${messageOf(error)}` };
  }
}

function kvmRemedy({ notTried }: AcceleratorProbe): string {
  if (notTried === 'missing')
    return 'load kvm_intel or kvm_amd, on a host that has KVM; in a VM, allow nested KVM for it';
  if (notTried === 'refused') return 'allow this user to open /dev/kvm (group kvm)';
  return 'this user may open /dev/kvm, but guests do not run with it: in a VM, its nested KVM may be at fault';
}

/** With which allocator QEMU would run, found out by running it with it. */
export async function checkAllocator(options: {
  readonly qemuBinary: string;
  readonly qemuAllocator: string;
}): Promise<Finding> {
  const check = 'qemu allocator';
  const { allocator, problem } = await chooseAllocator(options.qemuBinary, options.qemuAllocator);
  if (problem === undefined) {
    return { check, status: 'ok', detail: allocator === 'system' ? "the system's own, as configured" : allocator };
  }
  return {
    check,
    status: 'warning',
    detail: `the system's own: ${problem}`,
    remedy:
      'disks come and go up to twice as fast with tcmalloc (Debian 12: libtcmalloc-minimal4); qemu_allocator names another',
  };
}

/** Which aio modes QEMU may really use here. */
export async function checkAio(options: { readonly qemuBinary: string; readonly log: Logger }): Promise<Finding> {
  try {
    return aioFinding(await probeAio({ binary: options.qemuBinary, timeoutMs: AIO_TIMEOUT_MS, log: options.log }));
  } catch (error) {
    return { check: 'aio', status: 'failure', detail: `cannot be tried: ${messageOf(error)}` };
  }
}

export function aioFinding(probes: readonly AioProbe[]): Finding {
  const check = 'aio';
  const usable = probes.filter((probe) => probe.usable).map(({ mode }) => mode);
  const refused = probes.filter((probe) => !probe.usable);
  const detail = [
    usable.length === 0 ? 'no aio mode is usable' : `usable: ${usable.join(', ')}`,
    ...refused.map(({ mode, reason }) => `${mode}: ${reason}`),
  ].join('; ');
  if (!usable.includes('threads')) {
    return { check, status: 'failure', detail, remedy: 'QEMU cannot open files here: see its message' };
  }
  if (refused.length === 0) return { check, status: 'ok', detail };
  return {
    check,
    status: 'warning',
    detail,
    remedy: 'volumes with aio auto take what is left; io_uring needs `sysctl kernel.io_uring_disabled=0`',
  };
}

function notStarted(binary: string, error: unknown): Finding {
  const cause = error instanceof Error ? error.cause : undefined;
  const missing = errnoOf(error) === 'ENOENT' || errnoOf(cause) === 'ENOENT';
  const denied = isDenied(errnoOf(error)) || isDenied(errnoOf(cause));
  return {
    check: 'qemu',
    status: 'failure',
    detail: missing ? `${binary} was not found` : `${binary} does not run: ${messageOf(error).slice(0, 300)}`,
    remedy: denied
      ? 'let the user of the daemon execute it'
      : 'install it (Debian and Ubuntu: qemu-system-x86), or name it with the option qemu_binary',
  };
}

async function help(binary: string, helpArguments: readonly string[]): Promise<string> {
  const { stdout } = await run(binary, helpArguments, { timeout: HELP_TIMEOUT_MS, stdin: 'ignore' });
  return stdout;
}
