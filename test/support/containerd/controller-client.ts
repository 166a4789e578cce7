import { credentials, Metadata } from '@grpc/grpc-js';
import { CRI_NAMESPACE } from '../../../src/containerd/ids.ts';
import { loadContainerdApi, messageCodec } from '../../../src/containerd/wire/schema.ts';
import type { ControllerClient as Client } from '../../../src/grpc/generated/containerd/services/sandbox/v1/Controller.ts';
import type { Any } from '../../../src/grpc/generated/google/protobuf/Any.ts';
import type { PodVolumes } from '../../../src/grpc/generated/qshim/v1/PodVolumes.ts';
import type { VolumeToAttach } from '../../../src/grpc/generated/qshim/v1/VolumeToAttach.ts';

/**
 * Calls the sandbox Controller on containerd's own socket, as a control plane would that knows nothing of qshim's
 * sockets.
 */
export class ControllerClient implements Disposable {
  readonly #client: Client;

  constructor(socket: string) {
    const { Controller } = loadContainerdApi().containerd.services.sandbox.v1;
    this.#client = new Controller(`unix:${socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  async updateVolumes(podId: string, volumes: readonly VolumeToAttach[]): Promise<void> {
    const value = messageCodec<PodVolumes, PodVolumes>('qshim.v1.PodVolumes').serialize({ volumes: [...volumes] });
    await this.update(podId, ['extensions.volumes'], { volumes: { type_url: 'qshim.v1.PodVolumes', value } });
  }

  async update(podId: string, fields: readonly string[], extensions: Record<string, Any>): Promise<void> {
    const metadata = new Metadata();
    metadata.set('containerd-namespace', CRI_NAMESPACE);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // containerd 2.1 panics when the sandbox has no runtime.
    const sandbox = { sandboxId: podId, runtime: { name: 'io.containerd.qshim.v2' }, extensions, sandboxer: 'qshim' };
    const request = { sandboxId: podId, sandboxer: 'qshim', sandbox, fields: [...fields] };
    this.#client.update(request, metadata, (error) => (error === null ? resolve() : reject(error)));
    await promise;
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
