import { ShimError } from '../../base/errors.ts';
import type { Ports } from './port.ts';

const PORT_TRIES = 4;

/** Ports that QEMU has and the guest has not: plug them again, and repeat. Only `withPorts` sees it. */
export class PortsAbsent extends Error {
  readonly numbers: readonly number[];
  constructor(numbers: readonly number[]) {
    super(`the guest has not seen the ports ${numbers.join(', ')}`);
    this.name = 'PortsAbsent';
    this.numbers = numbers;
  }
}

/**
 * Runs a step in the guest. Ports that the guest has missed are plugged again, and the step is repeated.
 * @throws ShimError UNAVAILABLE / PORT_NOT_SEEN, and what the step throws
 */
export async function withPorts<T>(ports: Pick<Ports, 'renew'>, step: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await step();
    } catch (error) {
      if (!(error instanceof PortsAbsent)) throw error;
      if (attempt === PORT_TRIES) {
        throw new ShimError('UNAVAILABLE', error.message, { reason: 'PORT_NOT_SEEN', cause: error });
      }
      for (const nr of error.numbers) await ports.renew(nr);
    }
  }
}
