import type { Deadline } from '../base/deadline.ts';
import type { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { GuestAgent } from '../guest/agent.ts';
import type { DiskArrival } from '../guest/disk-arrivals.ts';
import type { DiskNames } from '../guest/disk-names.ts';
import type { DiskHolders } from '../guest/holders.ts';
import type { KeySource } from '../keys/sources.ts';
import type { Inventory } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { QmpLink } from '../qmp/link.ts';
import type { GuestAddresses } from './guest-addresses.ts';
import type { IoLimits } from './model/limits.ts';
import type { Slot } from './model/slots.ts';
import type { Evidence } from './model/state.ts';
import type { Relays } from './relays.ts';
import type { VolumeStore } from './store.ts';
import type { Volume } from './volume.ts';
import type { Unplugs } from './unplugs.ts';

/** Waits until guests' drivers are live (driver-wait.ts). */
export interface Drivers {
  untilLive(
    volume: { readonly id: string; readonly names: { readonly device: string } },
    deadline: Deadline,
    news?: Promise<string | undefined>,
  ): Promise<Evidence>;
  untilCalm(): Promise<void>;
}

/** Waits until the guest has no request left to let go of a slot (fence.ts). */
export interface Fences {
  untilSettled(slot: Slot, deadline: Deadline): Promise<boolean>;
}

/** Splits the daemon's budgets of I/O among the volumes that draw on them (sandbox/io-budgets.ts). */
export interface Budgets {
  refusal(name: string): ShimError | undefined;
  admit(volume: Volume): Promise<void>;
}

/** Holds disks to limits of I/O (throttles.ts). */
export interface Limiter {
  set(volume: Volume, limits: IoLimits): Promise<void>;
  share(parts: ReadonlyMap<Volume, IoLimits>): Promise<void>;
  settleAll(qmp: QmpClient): Promise<void>;
  readonly looked: boolean;
}

/** What the guest's kernel announces (guest/guest-events.ts). */
export interface Announcements {
  expect(address: string, mayBeThere: boolean): DiskArrival;
  missed(arrival: DiskArrival): void;
}

/** What QEMU counts of volumes (stats/looks.ts). */
export interface Counting {
  mayLackHistograms(): void;
}

/** What is seen of the guest in its present boot. */
export interface GuestBoot {
  /** Counts the resets of the guest that were seen: what was seen in one boot says nothing about the next. */
  readonly boot: number;
  /** True when the guest agent has answered in this boot of the guest. */
  readonly agentReady: boolean;
  /** QMP RunState as it was seen last; empty before. */
  readonly runState: string;
}

/** What work on volumes needs to know of the VM, and no more. Implemented by Sandbox. */
export interface VolumeHost extends GuestBoot {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly log: Logger;
  readonly config: Config;
  readonly link: Pick<QmpLink, 'ready' | 'within' | 'current'>;
  readonly agent: GuestAgent;
  readonly volumes: VolumeStore;
  readonly addresses: GuestAddresses;
  /** Gives keys by reference. */
  readonly keys: KeySource;
  /** The guest's names of its disks. */
  readonly disks: Pick<DiskNames, 'find'>;
  /** Who uses disks in the guest. */
  readonly holders: Pick<DiskHolders, 'of'>;
  readonly drivers: Drivers;
  readonly guestEvents: Announcements;
  /** How the guest is asked to let go of devices. */
  readonly unplugs: Unplugs;
  /** Tells when the guest has no request left for a slot. */
  readonly fence: Fences;
  /** By which QEMU holds disks to limits. */
  readonly throttles: Limiter;
  /** The daemon's budgets of I/O. */
  readonly ioBudgets: Budgets;
  /** By which a confined QEMU reaches servers. */
  readonly relays: Pick<Relays, 'start' | 'ensure' | 'end' | 'adopt' | 'serverOf' | 'endUnused' | 'sockets'>;
  /** What QEMU counts. */
  readonly stats: Counting;
  /** What QEMU lists. */
  readonly inventory: Inventory;
  /**
   * Aborted, with a ShimError that says why, as soon as the VM is being stopped or is gone: it pre-empts every wait
   * (locking rule 5).
   */
  readonly gone: AbortSignal;
  /** Resolves once QEMU has been seen to be gone and every volume is REMOVED. */
  readonly stopped: Promise<void>;
  /** The program that runs the VM: a path. */
  readonly binary: string;
  /** x-query-virtio-status was tried on this QEMU, and it works. */
  readonly virtioStatus: boolean;
  /** Takes note that the guest agent has answered in this boot of the guest. */
  agentAnswered(): void;
  /** Makes the present state durable; awaited before QEMU is changed. */
  commit(): Promise<void>;
  /** Makes the present state durable soon; a failure is logged. */
  commitSoon(): void;
  /** Keeps a promise that nobody waits for: its failure is logged, and the daemon's end awaits it. */
  inBackground(purpose: string, work: Promise<void>): void;
}
