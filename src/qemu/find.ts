import { readdir, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { MOVED_FROM_FILE } from './files.ts';
import { QemuProcess, argumentsOf, identify, type IsOurs, type ProcessIdentity } from './process.ts';

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
  const serves = await servesSocket(qmpSocket);
  let starting: { readonly identity: ProcessIdentity; readonly args: readonly string[] } | undefined;
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    // Processes end while they are looked at.
    const args = await argumentsOf(Number(name)).catch(() => []);
    if (!serves(args)) continue;
    const identity = await identify(Number(name));
    if (identity === undefined) continue;
    if (!LAUNCHERS.has(basename(args[0] ?? ''))) return { identity, args };
    // Two of them while QEMU is being started: the younger one is to become QEMU.
    if (starting === undefined || identity.startTicks >= starting.identity.startTicks) starting = { identity, args };
  }
  return starting;
}

/** Tells a QEMU whose QMP socket this is, also when its directory has moved since it was started. */
async function servesSocket(qmpSocket: string): Promise<IsOurs> {
  const movedFrom = await readFile(join(dirname(qmpSocket), MOVED_FROM_FILE), 'utf8').catch(() => undefined);
  const paths = [qmpSocket, ...(movedFrom === undefined ? [] : [join(movedFrom, basename(qmpSocket))])];
  const wanted = paths.map((path) => `path=${path.replaceAll(',', ',,')},`);
  return (args) => args.some((arg) => arg.startsWith('socket,id=qmp,') && wanted.some((path) => arg.includes(path)));
}

/** Tells the QEMU of a sandbox, which has its UUID on the command line, from every other process. */
export function hasUuid(uuid: string): IsOurs {
  return (args) => args.some((arg, index) => arg === '-uuid' && args[index + 1] === uuid);
}

/**
 * Ends the QEMU that serves this QMP socket, and answers with its pid once it is gone; undefined when there is none.
 */
export async function endQemuOf(qmpSocket: string): Promise<number | undefined> {
  const found = await findQemu(qmpSocket);
  const qemu = found && (await QemuProcess.adopt(found.identity, await servesSocket(qmpSocket)));
  await qemu?.kill('SIGKILL');
  await qemu?.exited;
  return qemu?.pid;
}
