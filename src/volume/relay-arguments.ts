import { basename } from 'node:path';
import { z } from 'zod';

/** The command line of a relay (nbd-relay-main.ts), by which daemons that come later know what it does. */

export const serverSchema = z.union([
  z.object({ type: z.literal('unix'), path: z.string() }).readonly(),
  z.object({ type: z.literal('inet'), host: z.string(), port: z.int() }).readonly(),
]);
/** Where a server listens, as QAPI's SocketAddress has it, but for the port, which is a number. */
export type ServerAddress = z.infer<typeof serverSchema>;

export interface RelayPlace {
  /** Where QEMU connects. */
  readonly socket: string;
  /** The only user that may connect; 0: the daemon's own. */
  readonly uid: number;
  /** The process whose end is the relay's. */
  readonly qemu: { readonly pid: number; readonly startTicks: number };
  readonly server: ServerAddress;
}

const PROGRAM = 'nbd-relay-main.ts';
const NUMBER = /^[0-9]{1,15}$/;

export function relayArguments({ socket, uid, qemu, server }: RelayPlace): readonly string[] {
  return [socket, String(uid), String(qemu.pid), String(qemu.startTicks), JSON.stringify(server)];
}

/** @throws Error when they are not what relayArguments makes */
export function relayFromArguments(args: readonly string[]): RelayPlace {
  const [socket = '', ...rest] = args;
  const [uid = '', pid = '', startTicks = '', server = ''] = rest;
  const whole = socket.startsWith('/') && [uid, pid, startTicks].every((text) => NUMBER.test(text));
  if (!whole) throw new Error('usage: nbd-relay-main SOCKET UID PID START SERVER; qshimd starts it');
  return {
    socket,
    uid: Number(uid),
    qemu: { pid: Number(pid), startTicks: Number(startTicks) },
    server: serverSchema.parse(JSON.parse(server)),
  };
}

/** What a process does as a relay, by its whole command line; undefined when it is none. */
export function relayOfCommandLine(args: readonly string[]): RelayPlace | undefined {
  const at = args.findIndex((arg) => basename(arg) === PROGRAM);
  if (at < 0) return undefined;
  try {
    return relayFromArguments(args.slice(at + 1));
  } catch {
    return undefined;
  }
}
