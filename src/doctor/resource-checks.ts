import { access, constants, readFile } from 'node:fs/promises';
import { errnoOf, messageOf } from '../base/errors.ts';
import { isDenied, type Finding } from './finding.ts';

/** What QEMU itself takes beside the memory of its guest, roughly. */
const QEMU_OVERHEAD_MIB = 128;

export async function checkMemory(memoryMib: number): Promise<Finding> {
  try {
    return memoryFinding(await readFile('/proc/meminfo', 'utf8'), memoryMib);
  } catch (error) {
    return { check: 'memory', status: 'warning', detail: messageOf(error) };
  }
}

/** The kernel's own estimate (MemAvailable, in KiB) against one sandbox of the default size. */
export function memoryFinding(meminfo: string, memoryMib: number): Finding {
  const check = 'memory';
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1];
  if (kibibytes === undefined) return { check, status: 'warning', detail: '/proc/meminfo has no MemAvailable' };
  const availableMib = Math.floor(Number(kibibytes) / 1024);
  const sandboxes = Math.floor(availableMib / (memoryMib + QEMU_OVERHEAD_MIB));
  const detail = `${availableMib} MiB available: room for ${sandboxes} sandboxes of ${memoryMib} MiB`;
  if (sandboxes > 0) return { check, status: 'ok', detail };
  return { check, status: 'warning', detail, remedy: 'free some memory, or give sandboxes less with --memory' };
}

/** Only those need loop devices who make block devices out of files, as the tests and the demonstration do. */
export async function checkLoopDevices(controlPath = '/dev/loop-control'): Promise<Finding> {
  const check = 'loop devices';
  try {
    await access(controlPath, constants.R_OK | constants.W_OK);
    return { check, status: 'ok', detail: `${controlPath} is usable` };
  } catch (error) {
    return {
      check,
      status: 'warning',
      detail: `${controlPath} is not usable: ${messageOf(error)}`,
      remedy: isDenied(errnoOf(error))
        ? 'run as root, or in the group that owns it; only --block volumes that are made out of files need it'
        : '`modprobe loop` as root; only --block volumes that are made out of files need it',
    };
  }
}
