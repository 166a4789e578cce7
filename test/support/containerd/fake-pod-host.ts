import { ShimError } from '../../../src/base/errors.ts';
import { configWith } from '../../../src/config.ts';
import type { PodRules } from '../../../src/containerd/annotations.ts';
import type { PodHost } from '../../../src/containerd/pod.ts';
import type { GuestContainers } from '../../../src/guest/containers/types.ts';
import type { SandboxSnapshot } from '../../../src/sandbox/sandbox.ts';
import type { VolumeSnapshot } from '../../../src/volume/volume.ts';

/** What pods may ask for by default. */
export const RULES: PodRules = configWith({});

interface FakeSandbox {
  state: SandboxSnapshot['state'];
  readonly boot: PromiseWithResolvers<void>;
  readonly stopped: PromiseWithResolvers<void>;
}

/** Sandboxes without VMs, for tests of the pods over them: what is there, and what was asked for, in order. */
export class FakePodHost implements PodHost {
  readonly calls: string[] = [];
  readonly attached = new Set<string>();
  readonly sandboxes = new Map<string, FakeSandbox>();
  /** What the guest of every sandbox is. */
  guest: GuestContainers | undefined;
  /** What a boot waits for. */
  boot: () => Promise<void> = () => Promise.resolve();
  onAttach: (volumeId: string, signal: AbortSignal | undefined) => Promise<void> = () => Promise.resolve();
  onDetach: (volumeId: string) => Promise<void> = () => Promise.resolve();

  async create(sandboxId: string): Promise<SandboxSnapshot> {
    if (this.sandboxes.has(sandboxId)) {
      throw new ShimError('ALREADY_EXISTS', 'another spec', { reason: 'SANDBOX_EXISTS' });
    }
    this.calls.push(`create ${sandboxId}`);
    const sandbox = this.#add(sandboxId, 'creating');
    this.boot().then(sandbox.boot.resolve, sandbox.boot.reject);
    try {
      await sandbox.boot.promise;
    } catch (error) {
      this.sandboxes.delete(sandboxId);
      throw error;
    }
    sandbox.state = 'running';
    return this.get(sandboxId);
  }

  /** As if somebody else had made it. */
  foreign(sandboxId: string): void {
    this.#add(sandboxId, 'running');
  }

  async booted(sandboxId: string): Promise<SandboxSnapshot> {
    await this.sandboxes.get(sandboxId)?.boot.promise;
    return this.get(sandboxId);
  }

  get(sandboxId: string): SandboxSnapshot {
    return { id: sandboxId, state: this.#find(sandboxId).state, qemuPid: 4711 } as SandboxSnapshot;
  }

  sandbox(sandboxId: string): { readonly stopped: Promise<void>; readonly containers: GuestContainers } {
    const { stopped } = this.#find(sandboxId);
    if (this.guest === undefined) throw new Error('the test has not given a guest');
    return { stopped: stopped.promise, containers: this.guest };
  }

  stop(sandboxId: string): Promise<SandboxSnapshot> {
    this.calls.push(`stop ${sandboxId}`);
    const sandbox = this.#find(sandboxId);
    sandbox.state = 'stopped';
    sandbox.stopped.resolve();
    return Promise.resolve(this.get(sandboxId));
  }

  delete(sandboxId: string): Promise<boolean> {
    this.calls.push(`delete ${sandboxId}`);
    this.sandboxes.get(sandboxId)?.stopped.resolve();
    const found = this.sandboxes.delete(sandboxId);
    return Promise.resolve(found);
  }

  async attach(
    _sandboxId: string,
    volumeId: string,
    _spec: unknown,
    options: { readonly callerWait?: AbortSignal },
  ): Promise<VolumeSnapshot> {
    this.calls.push(`attach ${volumeId}`);
    await this.onAttach(volumeId, options.callerWait);
    this.attached.add(volumeId);
    return {
      id: volumeId,
      spec: { serial: volumeId },
      guest: { pciAddress: '0000:00:01.0' },
    } as unknown as VolumeSnapshot;
  }

  volume(_sandboxId: string, volumeId: string): VolumeSnapshot {
    const state = this.attached.has(volumeId) ? 'attached' : 'removed';
    return { id: volumeId, state: { state } } as unknown as VolumeSnapshot;
  }

  async detach(_sandboxId: string, volumeId: string): Promise<VolumeSnapshot> {
    this.calls.push(`detach ${volumeId}`);
    await this.onDetach(volumeId);
    this.attached.delete(volumeId);
    return { id: volumeId } as unknown as VolumeSnapshot;
  }

  #add(sandboxId: string, state: FakeSandbox['state']): FakeSandbox {
    const sandbox = { state, boot: Promise.withResolvers<void>(), stopped: Promise.withResolvers<void>() };
    if (state !== 'creating') sandbox.boot.resolve();
    sandbox.boot.promise.catch(() => undefined);
    this.sandboxes.set(sandboxId, sandbox);
    return sandbox;
  }

  #find(sandboxId: string): FakeSandbox {
    const sandbox = this.sandboxes.get(sandboxId);
    if (sandbox !== undefined) return sandbox;
    throw new ShimError('NOT_FOUND', `there is no sandbox ${sandboxId}`, { reason: 'SANDBOX_NOT_FOUND' });
  }
}
