import type { QemuVersion } from './protocol.ts';

/** What one QEMU binary can do: from its version and its own description of its commands. */
export interface QemuCapabilities {
  readonly version: QemuVersion;
  /** "7.2.22" */
  readonly versionText: string;
  /** The distribution's name of the build, may be empty. */
  readonly package: string;
  readonly commands: ReadonlySet<string>;
  readonly events: ReadonlySet<string>;
  /** Block drivers of blockdev-add. */
  readonly blockDrivers: ReadonlySet<string>;
  /** `aio: io_uring` is compiled in. The host's kernel or seccomp may still refuse it when a node is opened. */
  readonly ioUring: boolean;
  /** x-query-virtio-status: the host sees whether the guest's driver is live. */
  readonly virtioStatus: boolean;
  /** The `iothread-vq-mapping` property of virtio-blk. Not in the schema: 9.0 and later. */
  readonly iothreadVqMapping: boolean;
  /** blockdev-create and blockdev-add of `luks` take a detached header. */
  readonly detachedLuksHeader: boolean;
  /** `-run-with user=`. Not in the schema: 9.1 and later. */
  readonly runWithUser: boolean;
  /** `reconnect-ms` of socket character devices. */
  readonly chardevReconnectMs: boolean;
  /** What qshim uses and this binary does not have; empty for every version that the tests cover. */
  readonly contractFindings: readonly string[];
}
