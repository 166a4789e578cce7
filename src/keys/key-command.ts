import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { run } from '../base/run.ts';
import { keyError } from './errors.ts';
import { KEY_BYTES_MAX, KeyMaterial } from './material.ts';

export interface KeyCommand {
  /** For messages and metadata. */
  readonly what: string;
  /** An absolute path. There is no shell. */
  readonly file: string;
  readonly args: readonly string[];
  /** The whole environment of the command. */
  readonly env: Readonly<Record<string, string>>;
  /** For its standard input. */
  readonly input?: Uint8Array;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Runs a command whose standard output is the key, byte for byte. Its standard error is dropped, since it may quote the
 * key. The command and all that it started are one process group, which is killed when time or output run over or the
 * signal fires.
 * @throws ShimError KEY_SOURCE_DOWN (it cannot be run, or failed), KEY_SOURCE_TIMEOUT, KEY_EMPTY, KEY_TOO_LONG; or the
 * signal's reason
 */
export async function runKeyCommand(command: KeyCommand): Promise<KeyMaterial> {
  const { what, file, args, env, input, timeoutMs, signal } = command;
  signal?.throwIfAborted();
  const metadata = { source: what };
  const subprocess = run(file, args, {
    env: { ...env },
    extendEnv: false,
    cwd: '/',
    shell: false,
    ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
    stderr: 'ignore',
    encoding: 'buffer',
    // execa's own buffer could not be zeroed.
    buffer: false,
    reject: false,
    detached: true,
  });
  const output = Buffer.alloc(KEY_BYTES_MAX + 1);
  let length = 0;
  let stopped: (() => void) | undefined;
  const stop = (because: () => void): void => {
    stopped ??= because;
    killGroup(subprocess);
  };
  const timer = setTimeout(() => {
    stop(() => {
      throw keyError('KEY_SOURCE_TIMEOUT', `${what}: not done within ${timeoutMs} ms`, { metadata });
    });
  }, timeoutMs);
  const onAbort = (): void => {
    stop(() => signal?.throwIfAborted());
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  subprocess.stdout.on('data', (chunk: Buffer) => {
    length += chunk.copy(output, length);
    chunk.fill(0);
    if (length > KEY_BYTES_MAX) {
      stop(() => {
        throw keyError('KEY_TOO_LONG', `${what}: printed more than ${KEY_BYTES_MAX} bytes`, { metadata });
      });
    }
  });
  try {
    // Settles when it has ended and nobody holds its standard output any more.
    const result = await subprocess;
    stopped?.();
    if (result.failed) throw keyError('KEY_SOURCE_DOWN', `${what}: ${howItEnded(result)}`, { metadata });
    return KeyMaterial.take(output.subarray(0, length));
  } finally {
    output.fill(0);
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** Not execa's error nor its message: they repeat the command's arguments. */
function howItEnded(result: {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly code?: string | undefined;
}): string {
  if (result.exitCode !== undefined) return `ended with exit code ${result.exitCode}`;
  return result.signal === undefined ? `cannot be run (${result.code ?? 'no reason'})` : `ended by ${result.signal}`;
}

/**
 * Its leader may have ended, and been reaped, while others of the group hold the output. As long as there are any, the
 * kernel gives its number to nobody; where there are none, a process that has it now is a stranger.
 */
function killGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid === undefined) return;
  const isReaped = exitCode !== null || signalCode !== null;
  if (isReaped && existsSync(`/proc/${pid}`)) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
