import { access, constants } from 'node:fs/promises';
import { monotonicMs } from '../base/deadline.ts';
import { errnoOf, messageOf, oneSentence } from '../base/errors.ts';
import { isShortage, run } from '../base/run.ts';
import { tiedCommand } from './tied.ts';
import { unnamedFile } from './unnamed-file.ts';

export interface AcceleratorProbe {
  readonly usable: boolean;
  /** One sentence: what was seen. */
  readonly reason: string;
  readonly milliseconds: number;
  /** KVM's device kept the payload from being tried: there is none, or this user may not open it. */
  readonly notTried?: 'missing' | 'refused';
}

const KVM_DEVICE = '/dev/kvm';
/** What the payload writes to the debug-exit port; QEMU exits with (value << 1) | 1. */
const PAYLOAD_VALUE = 0x2a;
const PAYLOAD_EXIT_CODE = (PAYLOAD_VALUE << 1) | 1;
const FIRMWARE_BYTES = 65_536;
const RESET_VECTOR = 0xfff0;
/** QEMU inherits the payload, which has no name, as its standard input. */
const FIRMWARE_PATH = '/proc/self/fd/0';

/**
 * Firmware of 64 KiB that counts down from 2^24 and leaves through isa-debug-exit. Native code does that in some 10 ms.
 * A KVM that emulates every instruction is about a thousand times slower and runs into the time limit.
 */
export function payloadFirmware(): Buffer {
  const firmware = Buffer.alloc(FIRMWARE_BYTES, 0xf4); // hlt
  Buffer.from([
    ...[0x66, 0xb9, 0x00, 0x00, 0x00, 0x01], // mov ecx, 1 << 24
    ...[0x66, 0x49], // dec ecx
    ...[0x75, 0xfc], // jnz back to dec
    ...[0xba, 0xf4, 0x00], // mov dx, 0xf4
    ...[0xb0, PAYLOAD_VALUE], // mov al, value
    0xee, // out dx, al
    0xf4, // hlt
  ]).copy(firmware, 0);
  Buffer.from([0xe9, 0x0d, 0x00]).copy(firmware, RESET_VECTOR); // jmp to offset 0 of this segment
  return firmware;
}

/**
 * Finds out whether an accelerator works by running a tiny payload under it with a time limit. That /dev/kvm exists,
 * opens, or even creates a VM says nothing: QEMU may still die on an assertion, or run a thousand times too slowly.
 * Never throws for what the host is like: the answer is the result.
 * @throws the error by which it could not be tried
 */
export async function probeAccelerator(options: {
  readonly binary: string;
  readonly timeoutMs: number;
  readonly accelerator?: 'kvm' | 'tcg';
  /** Of KVM. Tests have another. */
  readonly device?: string;
}): Promise<AcceleratorProbe> {
  const { accelerator = 'kvm', device = KVM_DEVICE } = options;
  const start = monotonicMs();
  const answer = (usable: boolean, reason: string): AcceleratorProbe => ({
    usable,
    reason,
    milliseconds: monotonicMs() - start,
  });
  if (accelerator === 'kvm') {
    try {
      await access(device, constants.R_OK | constants.W_OK);
    } catch (error) {
      const missing = errnoOf(error) === 'ENOENT';
      const kept = missing ? `${device} does not exist` : `${device} may not be opened by this user`;
      return { ...answer(false, kept), notTried: missing ? 'missing' : 'refused' };
    }
  }
  // Without a name: a daemon that is killed during the probe leaves no file behind.
  await using firmware = await unnamedFile(payloadFirmware());
  // Dies with this process: a daemon that is killed during the probe must not leave a QEMU that runs for ever.
  const { file, prefix } = await tiedCommand(options.binary);
  const result = await run(file, [...prefix, ...payloadArguments(accelerator)], {
    reject: false,
    // A stream over a descriptor is inherited as that descriptor; nothing is piped.
    stdin: firmware.createReadStream({ autoClose: false }),
    stdout: 'ignore',
    timeout: options.timeoutMs,
    killSignal: 'SIGKILL',
    maxBuffer: 65_536,
  });
  if (result instanceof Error && isShortage(result)) throw result;
  if (result.exitCode === PAYLOAD_EXIT_CODE) return answer(true, 'a test payload ran');
  if (result.timedOut) return answer(false, `a test payload did not finish within ${options.timeoutMs} ms`);
  const said = lastLine(result.stderr);
  const how = result.signal === undefined ? `exit code ${result.exitCode ?? 'unknown'}` : result.signal;
  return answer(false, `QEMU failed on a test payload (${how})${said === '' ? '' : `: ${said}`}`);
}

function payloadArguments(accelerator: 'kvm' | 'tcg'): readonly string[] {
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', `q35,accel=${accelerator}`, '-cpu', accelerator === 'kvm' ? 'host' : 'max', '-m', '16M'],
    ...['-bios', FIRMWARE_PATH, '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04'],
  ];
}

function lastLine(text: string): string {
  return oneSentence(text.trim().split('\n').at(-1)?.slice(0, 300) ?? '');
}

/**
 * Remembers what a payload has shown. A probe that could not be made is no answer, and is made again when somebody asks
 * next; and so is one that found no device that it might open: a module is loaded, a group is given, at any time.
 */
export class AcceleratorChoice {
  readonly #binary: string;
  readonly #timeoutMs: number;
  readonly #device: string;
  #kvm: Promise<AcceleratorProbe> | undefined;

  /** @param device of KVM; tests have another */
  constructor(binary: string, timeoutMs: number, device = KVM_DEVICE) {
    this.#binary = binary;
    this.#timeoutMs = timeoutMs;
    this.#device = device;
  }

  /** Whether KVM works here, as far as is known. Never rejects. */
  kvm(): Promise<AcceleratorProbe> {
    this.#kvm ??= this.#probe();
    return this.#kvm;
  }

  async #probe(): Promise<AcceleratorProbe> {
    const start = monotonicMs();
    try {
      const [binary, timeoutMs, device] = [this.#binary, this.#timeoutMs, this.#device];
      const probe = await probeAccelerator({ binary, timeoutMs, device });
      if (probe.notTried !== undefined) this.#kvm = undefined;
      return probe;
    } catch (error) {
      // No room for the payload, no descriptor left: that says nothing about KVM.
      this.#kvm = undefined;
      const reason = `whether KVM works could not be tried: ${messageOf(error)}`;
      return { usable: false, reason, milliseconds: monotonicMs() - start };
    }
  }
}
