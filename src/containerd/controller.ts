import { availableParallelism } from 'node:os';
import { invalidArgument } from '../base/errors.ts';
import type { ControllerCreateRequest__Output } from '../grpc/generated/containerd/services/sandbox/v1/ControllerCreateRequest.ts';
import type { ControllerMetricsResponse } from '../grpc/generated/containerd/services/sandbox/v1/ControllerMetricsResponse.ts';
import type { ControllerPlatformResponse } from '../grpc/generated/containerd/services/sandbox/v1/ControllerPlatformResponse.ts';
import type { ControllerStartResponse } from '../grpc/generated/containerd/services/sandbox/v1/ControllerStartResponse.ts';
import type { ControllerStatusResponse } from '../grpc/generated/containerd/services/sandbox/v1/ControllerStatusResponse.ts';
import type { ControllerStopRequest__Output } from '../grpc/generated/containerd/services/sandbox/v1/ControllerStopRequest.ts';
import type { ControllerUpdateRequest__Output } from '../grpc/generated/containerd/services/sandbox/v1/ControllerUpdateRequest.ts';
import type { ControllerWaitResponse } from '../grpc/generated/containerd/services/sandbox/v1/ControllerWaitResponse.ts';
import { volumeSpecFrom } from '../api/convert.ts';
import { untilGone, type Caller } from './caller.ts';
import type { Pod } from './pod.ts';
import { checkPodConfig, podSize } from './pod-config.ts';
import type { Pods } from './pods.ts';
import { processMetrics } from './process-metrics.ts';
import { metricsAny, podSandboxConfig, podVolumes, timestampOf } from './wire/messages.ts';

/**
 * The version of containerd's shim protocol that is spoken; only with 3 does containerd group containers in a sandbox.
 */
export const SHIM_VERSION = 3;
/** Extension of `Update` that names volumes. */
const VOLUMES_EXTENSION = 'volumes';

interface SandboxRequest {
  readonly sandboxId: string;
}

interface ControllerOptions {
  /** Where containerd finds the Task service: a bare path, without a scheme. */
  readonly taskSocket: string;
  readonly stopTimeoutMs: number;
}

/**
 * `containerd.services.sandbox.v1.Controller` (sandboxer of type "sandbox" among containerd's proxy plugins), free of
 * the transport. Create takes note of the pod, Start boots its VM, Shutdown leaves nothing.
 */
export class SandboxController {
  readonly #pods: Pods;
  readonly #options: ControllerOptions;

  constructor(pods: Pods, options: ControllerOptions) {
    this.#pods = pods;
    this.#options = options;
  }

  async create(request: ControllerCreateRequest__Output, { namespace }: Caller): Promise<{ sandboxId: string }> {
    const config = podSandboxConfig(request.options);
    const notApplied = config === undefined ? [] : checkPodConfig(config);
    const annotations = { ...request.annotations, ...config?.annotations };
    await this.#pods.create(
      { namespace, id: request.sandboxId },
      {
        ...{ implicit: false, annotations, labels: podLabels(namespace, config?.metadata ?? undefined), notApplied },
        size: config === undefined ? undefined : podSize(config, availableParallelism()),
      },
    );
    return { sandboxId: request.sandboxId };
  }

  async start({ sandboxId }: SandboxRequest, caller: Caller): Promise<ControllerStartResponse> {
    const pod = this.#pod(sandboxId, caller);
    const { qemuPid } = await this.#pods.start(pod, caller);
    return {
      sandboxId,
      pid: qemuPid,
      createdAt: timestampOf(pod.record.createdAtMs),
      address: `grpc+${this.#options.taskSocket}`,
      version: SHIM_VERSION,
    };
  }

  platform({ sandboxId }: SandboxRequest, caller: Caller): ControllerPlatformResponse {
    this.#pod(sandboxId, caller);
    return { platform: { os: 'linux', architecture: 'amd64' } };
  }

  async stop({ sandboxId, timeoutSecs }: ControllerStopRequest__Output, caller: Caller): Promise<object> {
    // Without a time of the caller's each graceful step has the configured one.
    await this.#pod(sandboxId, caller).stop(timeoutSecs === 0 ? 2 * this.#options.stopTimeoutMs : timeoutSecs * 1000);
    return {};
  }

  async wait({ sandboxId }: SandboxRequest, caller: Caller): Promise<ControllerWaitResponse> {
    const exit = await untilGone(this.#pod(sandboxId, caller).ended, caller);
    return { exitStatus: exit.code, exitedAt: timestampOf(exit.atMs) };
  }

  status(
    { sandboxId, verbose }: SandboxRequest & { readonly verbose: boolean },
    caller: Caller,
  ): ControllerStatusResponse {
    const pod = this.#pod(sandboxId, caller);
    const { record, snapshot } = pod;
    return {
      sandboxId,
      pid: pod.pid,
      state: snapshot?.state === 'running' ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY',
      info: verbose ? podInfo(pod) : {},
      createdAt: timestampOf(record.createdAtMs),
      exitedAt: record.exit === undefined ? null : timestampOf(record.exit.atMs),
      address: `grpc+${this.#options.taskSocket}`,
      version: SHIM_VERSION,
    };
  }

  /** Forgets a pod and ends what still runs of it. @throws ShimError NOT_FOUND, which containerd takes for done */
  async shutdown({ sandboxId }: SandboxRequest, caller: Caller): Promise<object> {
    await this.#pods.destroy(this.#pod(sandboxId, caller));
    return {};
  }

  /** What the pod's QEMU uses of this host. */
  async metrics({ sandboxId }: SandboxRequest, caller: Caller): Promise<ControllerMetricsResponse> {
    const { pid } = this.#pod(sandboxId, caller);
    return {
      metrics: { timestamp: timestampOf(Date.now()), id: sandboxId, data: metricsAny(await processMetrics(pid)) },
    };
  }

  /** @throws ShimError INVALID_ARGUMENT for anything but the extension "volumes": nothing is changed in silence */
  async update(request: ControllerUpdateRequest__Output, caller: Caller): Promise<object> {
    const { sandboxId, fields, sandbox } = request;
    const pod = this.#pod(sandboxId, caller);
    for (const field of fields) {
      if (field === 'extensions' || field === `extensions.${VOLUMES_EXTENSION}`) continue;
      throw invalidArgument('fields', field, `only "extensions.${VOLUMES_EXTENSION}" can be updated`);
    }
    const extension = sandbox?.extensions[VOLUMES_EXTENSION];
    if (fields.length === 0 || extension === undefined) {
      throw invalidArgument('sandbox.extensions', VOLUMES_EXTENSION, 'is missing, or not named in fields');
    }
    const { volumes } = podVolumes(extension);
    const wanted = new Map(volumes.map(({ volumeId, spec }) => [volumeId, volumeSpecFrom(spec)]));
    if (wanted.size !== volumes.length) throw invalidArgument('volumes', volumes.length, 'two have the same volume_id');
    await pod.updateVolumes(wanted, caller.signal);
    return {};
  }

  #pod(id: string, { namespace }: Caller): Pod {
    return this.#pods.get({ namespace, id });
  }
}

/** So that `qshim sandbox list` says whose sandbox it is. */
function podLabels(
  namespace: string,
  metadata: { readonly name: string; readonly namespace: string; readonly uid: string } | undefined,
): Record<string, string> {
  const labels: Record<string, string> = { 'containerd.namespace': namespace };
  for (const [name, value] of Object.entries({
    'pod.name': metadata?.name,
    'pod.namespace': metadata?.namespace,
    'pod.uid': metadata?.uid,
  })) {
    if (value !== undefined && value !== '') labels[name] = value;
  }
  return labels;
}

function podInfo({ snapshot, record }: Pod): Record<string, string> {
  const { sandboxId, notApplied = [] } = record;
  const dropped = notApplied.length === 0 ? {} : { notApplied: notApplied.join(',') };
  if (snapshot === undefined) return { sandboxId, ...dropped };
  const { id, state, accelerator, acceleratorReason, qemuVersion, volumesInUse, directory } = snapshot;
  const info = {
    ...dropped,
    id,
    state,
    accelerator,
    acceleratorReason,
    qemuVersion,
    volumesInUse,
    stateDir: directory,
  };
  return Object.fromEntries(Object.entries(info).map(([name, value]) => [name, String(value)]));
}
