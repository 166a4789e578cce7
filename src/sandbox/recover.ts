import { SLOTS_PER_BRIDGE } from '../volume/model/slots.ts';
import { HOSTNAME_PARAMETER } from '../qemu/argv.ts';
import type { ProcessIdentity } from '../qemu/process.ts';
import type { JournalSandbox } from '../store/journal.ts';

/**
 * Adoption without a journal: what can be known of a sandbox from its QEMU process. Used when the journal is missing or
 * cannot be understood. Labels are lost; what QEMU has of volumes is read back by volume/recover.ts.
 */

const OWN_HOSTNAME = new RegExp(`^${HOSTNAME_PARAMETER.replaceAll('.', '\\.')}\\S+ ?`);

/** The id of the sandbox whose QEMU has these arguments; undefined when they are not ours. */
export function idFromArguments(args: readonly string[]): string | undefined {
  const name = args[args.indexOf('-name') + 1] ?? '';
  return /^guest=qshim-(.+?),debug-threads=on$/.exec(name)?.[1]?.replaceAll(',,', ',');
}

/**
 * The sandbox's own record, read back from the arguments that qemu/argv.ts made; undefined when they are not ours.
 * @param templateId of the template whose memory that QEMU has (template/memory.ts); empty: none, or not known
 */
export function sandboxFromArguments(
  args: readonly string[],
  identity: ProcessIdentity,
  configuredParameters: string,
  templateId: string,
): JournalSandbox | undefined {
  const valueOf = (flag: string): string => args[args.indexOf(flag) + 1] ?? '';
  const id = idFromArguments(args);
  const vcpus = Number(/^cpus=([0-9]+)/.exec(valueOf('-smp'))?.[1]);
  const memoryMib = Number(/^size=([0-9]+)M/.exec(valueOf('-m'))?.[1]);
  if (id === undefined || !Number.isInteger(vcpus) || !Number.isInteger(memoryMib)) return undefined;
  const accelerator = valueOf('-machine').includes('accel=kvm') ? 'kvm' : 'tcg';
  const iothreads = args.filter((arg) => arg.startsWith('iothread,id=iothread')).length;
  const bridges = args.filter((arg) => arg.startsWith('pci-bridge,id=bridge')).length;
  const parameters = valueOf('-append').replace(OWN_HOSTNAME, '');
  const cloned = args.some((arg) => arg.startsWith('memory-backend-file,'));
  return {
    id,
    spec: {
      vcpus,
      memoryMib,
      kernel: valueOf('-kernel'),
      initrd: valueOf('-initrd'),
      kernelParameters: parameters.startsWith(configuredParameters)
        ? parameters.slice(configuredParameters.length).trim()
        : parameters,
      accelerator: 'auto',
      volumeCapacity: bridges * SLOTS_PER_BRIDGE,
      iothreads,
      labels: {},
      readyWhen: 'agent',
      template: 'auto',
    },
    uuid: valueOf('-uuid'),
    createdAtMs: Date.now(),
    accelerator,
    acceleratorReason: 'seen in the running QEMU',
    state: 'running',
    cause: undefined,
    process: identity,
    nextGeneration: 1,
    timings: [],
    start: { kind: cloned ? 'clone' : 'cold', templateId, reason: '' },
  };
}
