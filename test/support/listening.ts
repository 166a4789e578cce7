import { readdir, readFile, readlink } from 'node:fs/promises';

/** State 0A of /proc/net/tcp: TCP_LISTEN. */
const LISTEN = '0A';

/** Addresses, in the kernel's hexadecimal, on which a process of this network namespace listens over TCP. */
export async function tcpListeners(pid: number): Promise<readonly string[]> {
  const names = await readdir(`/proc/${pid}/fd`);
  const links = await Promise.all(names.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
  const own = new Set(links);
  const found: string[] = [];
  for (const table of ['tcp', 'tcp6']) {
    const lines = (await readFile(`/proc/net/${table}`, 'utf8')).trim().split('\n').slice(1);
    for (const line of lines) {
      const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/);
      if (state === LISTEN && own.has(`socket:[${inode}]`)) found.push(local);
    }
  }
  return found;
}

/** What a process does with a signal: has a handler for it, or has it blocked (SigCgt, SigBlk of /proc/PID/status). */
export async function onSignal(pid: number, signal: number): Promise<{ handled: boolean; blocked: boolean }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const has = (name: string): boolean => {
    const mask = BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? ''}`);
    return ((mask >> BigInt(signal - 1)) & 1n) === 1n;
  };
  return { handled: has('SigCgt'), blocked: has('SigBlk') };
}

/** The process whose command line has all of these texts. @throws Error when there is none */
export async function pidOf(...texts: readonly string[]): Promise<number> {
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (texts.every((text) => command.includes(text))) return Number(name);
  }
  throw new Error(`no process has ${texts.join(' and ')} in its command line`);
}
