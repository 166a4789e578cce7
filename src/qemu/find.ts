import { readdir, readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { QemuProcess, identify, type ProcessIdentity } from './process.ts';

/**
 * Of confine/command.ts: they have QEMU's words behind their own, and stay until QEMU has ended, or become QEMU. One
 * whose daemon was killed at the wrong moment waits for ever.
 */
const LAUNCHERS: ReadonlySet<string> = new Set(['bwrap', 'setpriv']);

/**
 * The QEMU process that serves the QMP socket of a state directory, by its command line; undefined when there is none.
 * VMs that this daemon's configuration did not make have other socket paths, and are never found.
 */
export async function findQemu(
  qmpSocket: string,
): Promise<{ readonly identity: ProcessIdentity; readonly args: readonly string[] } | undefined> {
  const wanted = `path=${qmpSocket.replaceAll(',', ',,')},`;
  let starting: { readonly identity: ProcessIdentity; readonly args: readonly string[] } | undefined;
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    // Processes end while they are looked at.
    const text = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    const args = text.split('\0');
    if (!args.some((arg) => arg.startsWith('socket,id=qmp,') && arg.includes(wanted))) continue;
    const identity = await identify(Number(name));
    if (identity === undefined) continue;
    if (!LAUNCHERS.has(basename(args[0] ?? ''))) return { identity, args };
    // Two of them while QEMU is being started: the younger one is to become QEMU.
    if (starting === undefined || identity.startTicks >= starting.identity.startTicks) starting = { identity, args };
  }
  return starting;
}

/**
 * Ends the QEMU that serves this QMP socket, and answers with its pid once it is gone; undefined when there is none.
 */
export async function endQemuOf(qmpSocket: string): Promise<number | undefined> {
  const found = await findQemu(qmpSocket);
  const qemu = found && (await QemuProcess.adopt(found.identity));
  await qemu?.kill('SIGKILL');
  await qemu?.exited;
  return qemu?.pid;
}
