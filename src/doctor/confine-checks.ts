import { messageOf } from '../base/errors.ts';
import { CELL_PARTS, type CellPart, type MissingPart } from '../confine/facts.ts';
import { lookAtWalls } from '../confine/host.ts';
import { parseUidRange } from '../confine/uids.ts';
import { chooseAllocator } from '../qemu/allocator.ts';
import type { Finding } from './finding.ts';

const REMEDIES: Readonly<Record<CellPart, string>> = {
  namespaces: 'install bubblewrap and util-linux, and name QEMU by its binary, not by a script',
  uid: 'give the daemon the capabilities that docs/security.md lists',
  cgroup:
    'mount cgroup2 with the controllers cpu, io, memory and pids; run the daemon as root, and where systemd is, with busctl and a system bus',
  landlock: 'install util-linux 2.40 or newer',
};

/** Which walls a QEMU of this host would have, found out by running one in a cell. */
export async function checkConfinement(options: {
  readonly qemuBinary: string;
  readonly qemuAllocator: string;
  readonly confine: 'full' | 'degraded' | 'off';
  readonly confineUids: string;
}): Promise<Finding> {
  const { allocator } = await chooseAllocator(options.qemuBinary, options.qemuAllocator);
  const { first: uid } = parseUidRange(options.confineUids);
  try {
    const { missing, groups } = await lookAtWalls({ qemuBinary: options.qemuBinary, allocator, uid });
    return confinementFinding(options.confine, missing, groups?.by);
  } catch (error) {
    return {
      check: 'confinement',
      status: 'failure',
      detail: `what QEMU can be confined by could not be tried: ${messageOf(error)}`,
      remedy: 'try again when this host has processes, memory and descriptors to give',
    };
  }
}

/**
 * What is there, and what is missing and why. Only `confine = full` cannot do without.
 * @param groups who makes control groups, in words
 */
export function confinementFinding(
  confine: 'full' | 'degraded' | 'off',
  missing: readonly MissingPart[],
  groups?: string,
): Finding {
  const check = 'confinement';
  const parts = CELL_PARTS.filter((part) => !missing.some((one) => one.part === part));
  const there = parts.map((part) => (part === 'cgroup' && groups !== undefined ? `cgroup (${groups})` : part));
  const asked = `confine = ${confine}; this host has ${there.length === 0 ? 'no wall' : there.join(', ')}`;
  if (missing.length === 0) return { check, status: 'ok', detail: asked };
  return {
    check,
    status: confine === 'full' ? 'failure' : 'warning',
    detail: `${asked}; missing: ${missing.map(({ part, why }) => `${part} (${why})`).join('; ')}`,
    remedy: missing.map(({ part }) => REMEDIES[part]).join('; '),
  };
}
