import type { Cells } from '../confine/cells.ts';
import type { AcceleratorChoice } from '../qemu/accelerator.ts';
import type { WarmPool } from '../template/pool.ts';
import type { Templates } from '../template/templates.ts';
import type { HoldBootImages } from '../volume/boot-images.ts';
import type { IoBudgets } from './io-budgets.ts';
import { afterReset, observe } from './observe.ts';
import { Sandbox, type SandboxIdentity, type SandboxParts } from './sandbox.ts';
import type { GuestAgent } from '../guest/agent.ts';

/** What all sandboxes of a daemon share. */
export interface SandboxEnvironment extends Omit<SandboxParts, 'onConnected' | 'afterReset'> {
  readonly accelerators: AcceleratorChoice;
  readonly cells: Cells;
  readonly ioBudgets: IoBudgets;
  readonly templates: Templates;
  readonly pool: WarmPool;
  readonly holdImages: HoldBootImages;
}

/** A sandbox that is observed from its first connection on. @param agent as Sandbox takes it */
export function makeSandbox(environment: SandboxEnvironment, identity: SandboxIdentity, agent?: GuestAgent): Sandbox {
  const { config, log, events, claims, staleCopies, budgets, keys, ioBudgets } = environment;
  const parts = { config, log, events, claims, staleCopies, budgets, keys, ioBudgets };
  return new Sandbox({ ...parts, onConnected: observe, afterReset }, identity, agent);
}
