/** From the options of `qshim sandbox ...` to the messages of qshim.v1. Pure. */
import type { CreateSandboxRequest } from '../grpc/generated/qshim/v1/CreateSandboxRequest.ts';
import type { ExecRequest } from '../grpc/generated/qshim/v1/ExecRequest.ts';
import { absolutePath, present } from './options.ts';

export const ACCELERATORS = {
  auto: 'ACCELERATOR_AUTO',
  kvm: 'ACCELERATOR_KVM',
  tcg: 'ACCELERATOR_TCG',
} as const;

export const READY_WHEN = {
  agent: 'READY_WHEN_AGENT',
  started: 'READY_WHEN_STARTED',
} as const;

export const TEMPLATE_USES = {
  auto: 'TEMPLATE_AUTO',
  off: 'TEMPLATE_OFF',
  required: 'TEMPLATE_REQUIRED',
} as const;

export interface CreateOptions {
  readonly vcpus?: number | undefined;
  readonly memory?: number | undefined;
  readonly kernel?: string | undefined;
  readonly initrd?: string | undefined;
  readonly kernelParameters?: string | undefined;
  readonly accelerator?: keyof typeof ACCELERATORS | undefined;
  readonly volumeCapacity?: number | undefined;
  readonly iothreads?: number | undefined;
  readonly label?: Readonly<Record<string, string>> | undefined;
  readonly readyWhen?: keyof typeof READY_WHEN | undefined;
  readonly template?: keyof typeof TEMPLATE_USES | undefined;
}

/** What is not given is left out, so that the daemon's configuration decides it. */
export function createRequest(sandboxId: string, options: CreateOptions, cwd: string): CreateSandboxRequest {
  const { kernel, initrd, accelerator, readyWhen, template, label } = options;
  return {
    sandboxId,
    spec: present({
      vcpus: options.vcpus,
      memoryMib: options.memory,
      kernel: kernel === undefined ? undefined : absolutePath(cwd, kernel),
      initrd: initrd === undefined ? undefined : absolutePath(cwd, initrd),
      kernelParameters: options.kernelParameters,
      accelerator: accelerator === undefined ? undefined : ACCELERATORS[accelerator],
      volumeCapacity: options.volumeCapacity,
      iothreads: options.iothreads,
      labels: label === undefined ? undefined : { ...label },
      readyWhen: readyWhen === undefined ? undefined : READY_WHEN[readyWhen],
      template: template === undefined ? undefined : TEMPLATE_USES[template],
    }),
  };
}

export interface ExecOptions {
  readonly env?: readonly string[] | undefined;
  readonly timeout?: number | undefined;
}

/** `command` is the program's path in the guest and its arguments. */
export function execRequest(
  sandboxId: string,
  command: { readonly path: string; readonly arguments: readonly string[] },
  options: ExecOptions,
  standardInput: Buffer,
): ExecRequest {
  return {
    sandboxId,
    path: command.path,
    arguments: [...command.arguments],
    environment: [...(options.env ?? [])],
    standardInput,
    ...present({ timeoutMs: options.timeout }),
  };
}
