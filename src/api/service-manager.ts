import { sendDatagram } from '../files/native.ts';

const MICROSECONDS = 1000;

/** What a supervisor is told of the daemon. */
export interface ServiceManager {
  ready(): void;
  stopping(): void;
  /** It gets on with its work. Quick to repeat: told as often as the supervisor wants to hear it. */
  alive(nowMs: number): void;
}

/**
 * systemd's protocol for services (sd_notify(3), sd_watchdog_enabled(3)); does nothing without systemd. The variables
 * are taken out of the environment: they are not for QEMU and other children.
 * @param send for tests; a datagram that does not go is lost, and systemd goes by what it has heard
 */
export function serviceManager(
  environment: NodeJS.ProcessEnv,
  send: (path: string, text: string) => void = (path, text) => sendDatagram(path, Buffer.from(text)),
): ServiceManager {
  const { NOTIFY_SOCKET: path, WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid } = environment;
  for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) Reflect.deleteProperty(environment, name);
  const mine = pid === undefined || pid === String(process.pid);
  // Twice in its time, as the protocol asks.
  const everyMs = mine && microseconds !== undefined ? Number(microseconds) / MICROSECONDS / 2 : Infinity;
  let toldMs = -Infinity;
  const tell = (text: string): void => {
    if (path === undefined || path === '') return;
    try {
      send(path, text);
    } catch {
      // Nobody is there to be told.
    }
  };
  return {
    ready: () => tell('READY=1'),
    stopping: () => tell('STOPPING=1'),
    alive: (nowMs) => {
      if (nowMs - toldMs < everyMs || everyMs === Infinity) return;
      toldMs = nowMs;
      tell('WATCHDOG=1');
    },
  };
}
