import type { Logger } from '../../base/log.ts';
import type { GuestAgent } from '../agent.ts';
import type { Ports } from './port.ts';

/** What the containers need of their sandbox. */
export interface ContainerHost {
  readonly id: string;
  readonly log: Logger;
  readonly config: { readonly container_processes_max: number; readonly container_timeout_ms: number };
  readonly agent: GuestAgent;
  readonly agentReady: boolean;
  readonly ports: Ports;
  readonly gone: AbortSignal;
  commit(): Promise<void>;
  commitSoon(): void;
  inBackground(purpose: string, work: Promise<void>): void;
}
