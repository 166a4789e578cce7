import { ShimError, invalidArgument } from '../base/errors.ts';
import type { Config } from '../config.ts';
import type { RequestedSandboxSpec } from '../sandbox/spec.ts';
import type { PodSize } from './pod-config.ts';

/** Prefix of the pod annotations that choose what kind of sandbox a pod gets. */
export const ANNOTATION_PREFIX = 'io.qshim.';

interface Annotation {
  /** What stands behind the prefix. */
  readonly name: string;
  readonly meaning: string;
  readonly apply: (spec: RequestedSandboxSpec, field: string, value: string) => RequestedSandboxSpec;
}

/** Every annotation that is known; docs/containerd.md has the same table. */
export const ANNOTATIONS: readonly Annotation[] = [
  {
    name: 'vcpus',
    meaning: 'virtual CPUs, 1 to 255',
    apply: (spec, field, value) => ({ ...spec, vcpus: wholeNumber(field, value) }),
  },
  {
    name: 'memory-mib',
    meaning: 'guest memory in MiB, 64 or more',
    apply: (spec, field, value) => ({ ...spec, memoryMib: wholeNumber(field, value) }),
  },
  {
    name: 'volume-capacity',
    meaning: 'volumes at once, root file systems included',
    apply: (spec, field, value) => ({ ...spec, volumeCapacity: wholeNumber(field, value) }),
  },
  {
    name: 'iothreads',
    meaning: 'threads of QEMU for volume I/O',
    apply: (spec, field, value) => ({ ...spec, iothreads: wholeNumber(field, value) }),
  },
  {
    name: 'kernel',
    meaning: 'guest kernel, below boot_roots',
    apply: (spec, _field, value) => ({ ...spec, kernel: value }),
  },
  {
    name: 'initrd',
    meaning: 'initial ramdisk, below boot_roots',
    apply: (spec, _field, value) => ({ ...spec, initrd: value }),
  },
  {
    name: 'kernel-parameters',
    meaning: 'added behind the configured kernel parameters',
    apply: (spec, _field, value) => ({ ...spec, kernelParameters: value }),
  },
  {
    name: 'accelerator',
    meaning: '`auto`, `kvm` or `tcg`',
    apply: (spec, field, value) => {
      if (value !== 'auto' && value !== 'kvm' && value !== 'tcg') {
        throw invalidArgument(field, value, 'must be auto, kvm or tcg');
      }
      return { ...spec, accelerator: value };
    },
  },
  {
    name: 'template',
    meaning: 'start as a clone of a template: `auto`, `off` or `required`',
    apply: (spec, field, value) => {
      if (value !== 'auto' && value !== 'off' && value !== 'required') {
        throw invalidArgument(field, value, 'must be auto, off or required');
      }
      return { ...spec, template: value };
    },
  },
];

const DEFAULTS: RequestedSandboxSpec = {
  vcpus: 0,
  memoryMib: 0,
  kernel: '',
  initrd: '',
  kernelParameters: '',
  accelerator: 'auto',
  volumeCapacity: 0,
  labels: {},
  readyWhen: 'agent',
  template: undefined,
  iothreads: 0,
};

/** What containerd says of a pod. */
export interface PodRequest {
  readonly annotations: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  /** What its limits come to; absent where CRI names none. */
  readonly size?: PodSize | undefined;
}

/** What the operator allows a pod to ask for. */
export type PodRules = Pick<Config, 'containerd_annotations' | 'containerd_memory_min_mib'>;

/**
 * The sandbox that a pod asks for: as large as its limits and its overhead, unless an annotation says otherwise that
 * the operator has enabled. Zeroes and empty strings mean the configured default. Ranges are checked where sandboxes
 * are made (sandbox/spec.ts).
 * @throws ShimError INVALID_ARGUMENT for a wrong value, and for an annotation of ours that does not exist: a misspelt
 *   one would otherwise be a pod of another size than was asked for; PERMISSION_DENIED / ANNOTATION_NOT_ENABLED
 */
export function specOfPod({ annotations, labels, size }: PodRequest, rules: PodRules): RequestedSandboxSpec {
  let spec: RequestedSandboxSpec = { ...DEFAULTS, labels, ...(size && sized(size, rules)) };
  for (const [field, value] of Object.entries(annotations)) {
    if (!field.startsWith(ANNOTATION_PREFIX)) continue;
    const known = ANNOTATIONS.find(({ name }) => field === ANNOTATION_PREFIX + name);
    if (known === undefined) {
      const names = ANNOTATIONS.map(({ name }) => ANNOTATION_PREFIX + name).join(', ');
      throw invalidArgument(field, value, `is no annotation of qshim; there are ${names}`);
    }
    if (!isEnabled(known.name, rules.containerd_annotations)) throw notEnabled(field, rules);
    spec = known.apply(spec, field, value);
  }
  return spec;
}

/** A guest of less than the least would not boot. */
function sized({ vcpus, memoryMib }: PodSize, rules: PodRules): Partial<RequestedSandboxSpec> {
  return {
    ...(vcpus === undefined ? {} : { vcpus }),
    ...(memoryMib === undefined ? {} : { memoryMib: Math.max(memoryMib, rules.containerd_memory_min_mib) }),
  };
}

function isEnabled(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => new RegExp(`^${pattern.replaceAll('*', '.*')}$`).test(name));
}

function notEnabled(annotation: string, { containerd_annotations: enabled }: PodRules): ShimError {
  const those = enabled.length === 0 ? 'none' : enabled.join(', ');
  return new ShimError(
    'PERMISSION_DENIED',
    `pods may not use the annotation ${annotation}: the option containerd_annotations enables ${those}`,
    { reason: 'ANNOTATION_NOT_ENABLED', metadata: { annotation, option: 'containerd_annotations' } },
  );
}

function wholeNumber(field: string, value: string): number {
  if (!/^[1-9][0-9]{0,8}$/.test(value)) throw invalidArgument(field, value, 'must be a whole number above 0');
  return Number(value);
}
