import type { QemuVersion } from './protocol.ts';

/**
 * Commands that QEMU calls experimental (`x-`). Its schema says that it has them, not that it survives them: 11.1.3
 * ends with a failed assertion at the first x-query-virtio-status. So each is tried on the binary, in a VM that nobody
 * uses, before it is sent to a VM that somebody does (qemu/trial.ts).
 */
export const TRIED_COMMANDS = ['x-query-virtio-status', 'x-blockdev-amend'] as const;
export type TriedCommand = (typeof TRIED_COMMANDS)[number];

/**
 * What became of a command on this binary. `works`: QEMU did it. `refused`: QEMU answered with an error, or does not
 * have the command. `fatal`: QEMU ended at it. `untried`: it could not be tried. Only `works` is a yes.
 */
export interface Trial {
  readonly outcome: 'works' | 'refused' | 'fatal' | 'untried';
  /** For people; empty when it works. */
  readonly detail: string;
}

/** Of those commands that were needed so far. */
export type Trials = Readonly<Partial<Record<TriedCommand, Trial>>>;

/** What one QEMU binary can do: from its version, its own description of its commands, and what was tried. */
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
  /** The `iothread-vq-mapping` property of virtio-blk. Not in the schema: 9.0 and later. */
  readonly iothreadVqMapping: boolean;
  /** blockdev-create and blockdev-add of `luks` take a detached header. */
  readonly detachedLuksHeader: boolean;
  /** `-run-with user=`. Not in the schema: 9.1 and later. */
  readonly runWithUser: boolean;
  /** `reconnect-ms` of socket character devices. */
  readonly chardevReconnectMs: boolean;
  readonly trials: Trials;
  /** What qshim uses and this binary does not have; empty for every version that the tests cover. */
  readonly contractFindings: readonly string[];
}
