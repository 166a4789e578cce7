import { credentials, loadPackageDefinition, Metadata } from '@grpc/grpc-js';
import type { ProtoGrpcType } from '../../../src/grpc/generated/cri.ts';
import type { ContainerConfig } from '../../../src/grpc/generated/runtime/v1/ContainerConfig.ts';
import type { ContainerStats__Output } from '../../../src/grpc/generated/runtime/v1/ContainerStats.ts';
import type { ContainerStatus__Output } from '../../../src/grpc/generated/runtime/v1/ContainerStatus.ts';
import type { ExecSyncResponse__Output } from '../../../src/grpc/generated/runtime/v1/ExecSyncResponse.ts';
import type { PodSandbox__Output } from '../../../src/grpc/generated/runtime/v1/PodSandbox.ts';
import type { PodSandboxConfig } from '../../../src/grpc/generated/runtime/v1/PodSandboxConfig.ts';
import type { PodSandboxStatus__Output } from '../../../src/grpc/generated/runtime/v1/PodSandboxStatus.ts';
import type { RuntimeServiceClient } from '../../../src/grpc/generated/runtime/v1/RuntimeService.ts';
import { containerdDefinition } from '../../../src/containerd/wire/schema.ts';
import { IMAGE } from './image.ts';

const CALL_MS = 300_000;

/** A pod as kubelet would ask for it, without a network of its own. */
export function podConfig(name: string, annotations: Record<string, string> = {}): PodSandboxConfig {
  return {
    metadata: { name, uid: `${name}-uid`, namespace: 'default', attempt: 0 },
    hostname: name,
    annotations,
    linux: { securityContext: { namespaceOptions: { network: 'NODE', pid: 'CONTAINER' } } },
  };
}

/** What kubelet does, over CRI v1. */
export class CriClient implements Disposable {
  readonly #client: RuntimeServiceClient;

  constructor(socket: string) {
    const api = loadPackageDefinition(containerdDefinition()) as unknown as ProtoGrpcType;
    this.#client = new api.runtime.v1.RuntimeService(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
    });
  }

  async runPod(config: PodSandboxConfig): Promise<string> {
    const { podSandboxId } = await call<{ podSandboxId: string }>((done) =>
      this.#client.runPodSandbox({ config, runtimeHandler: 'qshim' }, new Metadata(), deadline(), done),
    );
    return podSandboxId;
  }

  async podStatus(podSandboxId: string): Promise<PodSandboxStatus__Output> {
    const { status } = await call<{ status: PodSandboxStatus__Output | null }>((done) =>
      this.#client.podSandboxStatus({ podSandboxId, verbose: true }, new Metadata(), deadline(), done),
    );
    if (status === null) throw new Error('a pod without a status');
    return status;
  }

  async pods(): Promise<readonly PodSandbox__Output[]> {
    const { items } = await call<{ items: PodSandbox__Output[] }>((done) =>
      this.#client.listPodSandbox({}, new Metadata(), deadline(), done),
    );
    return items;
  }

  async stopPod(podSandboxId: string): Promise<void> {
    await call((done) => this.#client.stopPodSandbox({ podSandboxId }, new Metadata(), deadline(), done));
  }

  async removePod(podSandboxId: string): Promise<void> {
    await call((done) => this.#client.removePodSandbox({ podSandboxId }, new Metadata(), deadline(), done));
  }

  async createContainer(
    podSandboxId: string,
    pod: PodSandboxConfig,
    name: string,
    config: Partial<ContainerConfig>,
  ): Promise<string> {
    const linux = { securityContext: { namespaceOptions: { network: 'NODE' as const, pid: 'CONTAINER' as const } } };
    const whole: ContainerConfig = { metadata: { name, attempt: 0 }, image: { image: IMAGE }, linux, ...config };
    const { containerId } = await call<{ containerId: string }>((done) =>
      this.#client.createContainer(
        { podSandboxId, config: whole, sandboxConfig: pod },
        new Metadata(),
        deadline(),
        done,
      ),
    );
    return containerId;
  }

  async startContainer(containerId: string): Promise<void> {
    await call((done) => this.#client.startContainer({ containerId }, new Metadata(), deadline(), done));
  }

  async stopContainer(containerId: string, seconds: number): Promise<void> {
    await call((done) =>
      this.#client.stopContainer({ containerId, timeout: seconds }, new Metadata(), deadline(), done),
    );
  }

  async removeContainer(containerId: string): Promise<void> {
    await call((done) => this.#client.removeContainer({ containerId }, new Metadata(), deadline(), done));
  }

  async status(containerId: string): Promise<ContainerStatus__Output> {
    const { status } = await call<{ status: ContainerStatus__Output | null }>((done) =>
      this.#client.containerStatus({ containerId }, new Metadata(), deadline(), done),
    );
    if (status === null) throw new Error('a container without a status');
    return status;
  }

  async stats(containerId: string): Promise<ContainerStats__Output> {
    const { stats } = await call<{ stats: ContainerStats__Output | null }>((done) =>
      this.#client.containerStats({ containerId }, new Metadata(), deadline(), done),
    );
    if (stats === null) throw new Error('a container without figures');
    return stats;
  }

  exec(containerId: string, cmd: readonly string[]): Promise<ExecSyncResponse__Output> {
    return call((done) =>
      this.#client.execSync({ containerId, cmd: [...cmd], timeout: 120 }, new Metadata(), deadline(), done),
    );
  }

  /** A shell command's standard output; throws when it fails. */
  async shell(containerId: string, script: string): Promise<string> {
    const result = await this.exec(containerId, ['/bin/sh', '-c', script]);
    if (result.exitCode === 0) return result.stdout.toString();
    throw new Error(`${script}: exit code ${result.exitCode}: ${result.stderr.toString()}`);
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function deadline(): { deadline: number } {
  return { deadline: Date.now() + CALL_MS };
}

function call<T>(start: (done: (error: Error | null, response?: T) => void) => unknown): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  start((error, response) => {
    if (error === null && response !== undefined) resolve(response);
    else reject(error ?? new Error('no response'));
  });
  return promise;
}
