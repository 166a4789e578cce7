import { z } from 'zod';
import type { GuestBudget } from '../../base/budget.ts';

/** What a port of the guest's virtio-serial controller is for: one direction, or both for a terminal. */
const portKindSchema = z.enum(['output', 'input', 'duplex']);
export type PortKind = z.infer<typeof portKindSchema>;

/** A port as the journal keeps it. */
export const portRecordSchema = z.object({ nr: z.int(), kind: portKindSchema, ended: z.boolean() }).readonly();
export type PortRecord = z.infer<typeof portRecordSchema>;

/**
 * One virtio-serial port and the FIFOs on the host behind it, which QEMU holds open for reading and writing: bytes that
 * nobody has read stay in the FIFO, and the guest waits when it is full, whether a daemon runs or not.
 */
export interface Port {
  /** The N of the guest's /dev/vportDpN, D being the same for all. */
  readonly nr: number;
  readonly kind: PortKind;
  /** Where the host reads what the guest writes. */
  readonly outputPath: string | undefined;
  /** Where the host writes what the guest reads. */
  readonly inputPath: string | undefined;
  /** An input whose end of file was asked for. */
  readonly ended: boolean;
}

/** The ports of one sandbox. Implemented by sandbox/ports.ts. */
export interface Ports {
  /** What is read of them is counted here. None: nobody counts. */
  readonly budget?: GuestBudget | undefined;
  /**
   * Plugs new ports, all or none. That QEMU has them says nothing about the guest, which loses some in silence: look
   * for the node there, and `renew` those that are missing.
   * @throws ShimError RESOURCE_EXHAUSTED / NO_PORT; UNAVAILABLE
   */
  add(kinds: readonly PortKind[]): Promise<readonly Port[]>;
  /** Takes a port out and plugs it again, under the same number and before the same FIFOs: what is in them stays. */
  renew(nr: number): Promise<void>;
  /** Gives the guest end of file after everything that was written. Whoever writes must have closed the FIFO. */
  endInput(nr: number): Promise<void>;
  /** Resolves once QEMU has been seen to have none of them, nor what was behind them. */
  remove(numbers: readonly number[]): Promise<void>;
  get(nr: number): Port | undefined;
  /** Every port that is not known to be gone. */
  all(): readonly Port[];
}
