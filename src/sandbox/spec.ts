import { z } from 'zod';
import { invalidArgument } from '../base/errors.ts';
import type { Config } from '../config.ts';
import { VOLUME_CAPACITY_MAX } from '../volume/model/slots.ts';
import { checkHostPath } from '../volume/model/disk.ts';

export const sandboxStateSchema = z.enum(['creating', 'running', 'stopping', 'stopped']);
export type SandboxState = z.infer<typeof sandboxStateSchema>;

/** A sandbox as the caller asked for it, with every default filled in. */
export const sandboxSpecSchema = z
  .object({
    vcpus: z.int(),
    memoryMib: z.int(),
    kernel: z.string(),
    initrd: z.string(),
    /** The caller's own parameters, without the configured ones. */
    kernelParameters: z.string(),
    accelerator: z.enum(['auto', 'kvm', 'tcg']),
    volumeCapacity: z.int(),
    /** Threads of QEMU that serve volumes; 0: its main loop does. */
    iothreads: z.int(),
    labels: z.record(z.string(), z.string()).readonly(),
    readyWhen: z.enum(['agent', 'started']),
    template: z.enum(['auto', 'off', 'required']),
  })
  .readonly();
export type SandboxSpec = z.infer<typeof sandboxSpecSchema>;
export type TemplateUse = SandboxSpec['template'];

/** A spec as it comes from a caller: zeroes, empty strings and undefined stand for the configured defaults. */
export type RequestedSandboxSpec = Omit<SandboxSpec, 'template'> & { readonly template: TemplateUse | undefined };

/** How a VM came to run. */
export const startKindSchema = z
  .object({
    kind: z.enum(['cold', 'clone', 'pool']),
    /** The template's key; empty for a cold boot. */
    templateId: z.string(),
    /** Why it was a cold boot although a template was wanted; else empty. */
    reason: z.string(),
  })
  .readonly();
export type StartKind = z.infer<typeof startKindSchema>;

const VCPUS_MAX = 255;
const MEMORY_MIB_MIN = 64;
const IOTHREADS_MAX = 64;
const MEMORY_MIB_MAX = 4_194_304;
const KERNEL_PARAMETERS_BYTES_MAX = 1024;
const HOSTNAME_LENGTH_MAX = 63;
const LABELS_MAX = 64;
const LABEL_BYTES_MAX = 256;

/**
 * Fills in the configured defaults (for zeroes and empty strings) and refuses what cannot be.
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function completeSandboxSpec(
  requested: RequestedSandboxSpec,
  config: Pick<Config, 'vcpus' | 'memory_mib' | 'kernel' | 'initrd' | 'volume_capacity' | 'iothreads' | 'template'>,
): SandboxSpec {
  const spec: SandboxSpec = {
    ...requested,
    vcpus: requested.vcpus === 0 ? config.vcpus : requested.vcpus,
    memoryMib: requested.memoryMib === 0 ? config.memory_mib : requested.memoryMib,
    kernel: requested.kernel === '' ? config.kernel : requested.kernel,
    initrd: requested.initrd === '' ? config.initrd : requested.initrd,
    volumeCapacity: requested.volumeCapacity === 0 ? config.volume_capacity : requested.volumeCapacity,
    iothreads: requested.iothreads === 0 ? config.iothreads : requested.iothreads,
    template: requested.template ?? (requested.readyWhen === 'agent' ? config.template : 'off'),
  };
  checkRange('spec.vcpus', spec.vcpus, 1, VCPUS_MAX);
  checkRange('spec.memory_mib', spec.memoryMib, MEMORY_MIB_MIN, MEMORY_MIB_MAX);
  checkRange('spec.volume_capacity', spec.volumeCapacity, 1, VOLUME_CAPACITY_MAX);
  checkRange('spec.iothreads', spec.iothreads, 0, IOTHREADS_MAX);
  checkHostPath('spec.kernel', spec.kernel);
  checkHostPath('spec.initrd', spec.initrd);
  checkKernelParameters(spec.kernelParameters);
  checkLabels('spec.labels', spec.labels);
  // A template is saved when its agent answers, and a clone is known to run by the same sign.
  if (spec.template === 'required' && spec.readyWhen === 'started') {
    throw invalidArgument('spec.template', 'required', 'needs ready_when = agent');
  }
  return spec;
}

/**
 * Which sandboxes can have the same members of the warm pool. Whether a member still fits is seen by its template's
 * key.
 */
export function poolKind({
  labels: _labels,
  readyWhen: _readyWhen,
  template: _template,
  ...launch
}: SandboxSpec): string {
  return JSON.stringify(launch);
}

/** The guest's host name: what the kernel parameters say (qshim.hostname=), else the sandbox's id made fit. */
export function hostnameOf(sandboxId: string, kernelParameters: string): string {
  const given = [...kernelParameters.matchAll(/(?:^|\s)qshim\.hostname=(\S+)/g)].at(-1)?.[1];
  return (given ?? sandboxId.replaceAll(/[._]/g, '-')).slice(0, HOSTNAME_LENGTH_MAX).replace(/-+$/, '');
}

function checkRange(field: string, value: number, min: number, max: number): void {
  if (value < min || value > max) throw invalidArgument(field, value, `must be from ${min} to ${max}`);
}

function checkKernelParameters(text: string): void {
  if (Buffer.byteLength(text) > KERNEL_PARAMETERS_BYTES_MAX) {
    throw invalidArgument('spec.kernel_parameters', text, `is longer than ${KERNEL_PARAMETERS_BYTES_MAX} bytes`);
  }
  if (!/^[\x20-\x7e]*$/.test(text)) {
    throw invalidArgument('spec.kernel_parameters', text, 'may hold only printable ASCII characters');
  }
}

/** Labels of a sandbox, or those to look for. @throws ShimError INVALID_ARGUMENT */
export function checkLabels(field: string, labels: Readonly<Record<string, string>>): void {
  const entries = Object.entries(labels);
  if (entries.length > LABELS_MAX) throw invalidArgument(field, entries.length, `at most ${LABELS_MAX} are allowed`);
  for (const [key, value] of entries) {
    if (key === '') throw invalidArgument(field, key, 'a label must have a name');
    if (Buffer.byteLength(key) > LABEL_BYTES_MAX || Buffer.byteLength(value) > LABEL_BYTES_MAX) {
      throw invalidArgument(field, key, `name and value may have at most ${LABEL_BYTES_MAX} bytes each`);
    }
  }
}
