import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { identify, type ProcessIdentity } from '../../src/qemu/process.ts';
import { until } from './until.ts';

/** Somebody else's process, which the daemon has to leave alone. It is ended with its disposal. */
export interface Stranger extends AsyncDisposable {
  readonly identity: ProcessIdentity;
}

/** @param args what its command line has besides, such as the UUID of a sandbox */
export async function stranger(...args: readonly string[]): Promise<Stranger> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', '--', ...args], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  await once(child, 'spawn');
  const identity = await until('the process', () => identify(child.pid ?? 0));
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  return { identity, [Symbol.asyncDispose]: end };
}
