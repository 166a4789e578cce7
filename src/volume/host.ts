import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { GuestAgent } from '../guest/agent.ts';
import type { KeySource } from '../keys/sources.ts';
import type { DiskNames } from '../guest/disk-names.ts';
import type { DriverWatch } from './driver-wait.ts';
import type { GuestAddresses } from './guest-addresses.ts';
import type { GuestEvents } from '../guest/guest-events.ts';
import type { QmpLink } from '../qmp/link.ts';
import type { VolumeStore } from './store.ts';

/** What attaching and detaching need to know of the VM. Implemented by Sandbox. */
export interface VolumeHost {
  readonly id: string;
  readonly log: Logger;
  readonly config: Config;
  readonly link: QmpLink;
  readonly agent: GuestAgent;
  readonly volumes: VolumeStore;
  readonly addresses: GuestAddresses;
  /** Gives keys by reference. */
  readonly keys: KeySource;
  /** The guest's names of its disks. */
  readonly disks: DiskNames;
  readonly drivers: DriverWatch;
  /** What the guest's kernel announces. */
  readonly guestEvents: Pick<GuestEvents, 'expect' | 'missed'>;
  /**
   * Aborted, with a ShimError that says why, as soon as the VM is being stopped or is gone: it pre-empts every wait
   * (locking rule 5).
   */
  readonly gone: AbortSignal;
  /** Resolves once QEMU has been seen to be gone and every volume is REMOVED. */
  readonly stopped: Promise<void>;
  /** Counts the resets of the guest that were seen: what was seen in one boot says nothing about the next. */
  readonly boot: number;
  /** True when the guest agent has answered in this boot of the guest. */
  readonly agentReady: boolean;
  /** How the device properties of this QEMU can be observed. */
  readonly virtioStatus: boolean;
  /** Makes the present state durable; awaited before QEMU is changed. */
  commit(): Promise<void>;
  /** Makes the present state durable soon; a failure is logged. */
  commitSoon(): void;
}
