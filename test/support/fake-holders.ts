import { guestScript } from '../../src/guest/programs.ts';
import type { FakeRequest } from './fake-agent.ts';

/** The script that tells who uses disks (holders.sh), played for a guest that is not there. */

const HOLDERS = guestScript('holders');

/** The PCI addresses that a guest-exec of the script asks about; undefined for any other program. */
export function disksAsked(request: FakeRequest): readonly string[] | undefined {
  const args = request.arguments['arg'];
  if (!Array.isArray(args) || args[1] !== HOLDERS) return undefined;
  // -c SCRIPT sh, then address and serial of each.
  return args.slice(3).flatMap((arg, index) => (index % 2 === 0 ? [String(arg)] : []));
}

/** @param uses lines PID WHAT COMMAND of each user of the disk at an address */
export function printHolders(addresses: readonly string[], uses: (pci: string) => readonly string[]): string {
  const lines = addresses.flatMap((pci, index) => [
    `disk=${pci} 254:${index * 16}`,
    ...uses(pci).map((use) => `use=254:${index * 16} ${use}`),
  ]);
  return [...lines, 'looked=1', ''].join('\n');
}
