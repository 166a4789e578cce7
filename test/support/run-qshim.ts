import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { execa } from 'execa';
import type { FakeApi } from './fake-api.ts';

/** The launcher in this checkout. */
export const QSHIM = resolve(import.meta.dirname, '../../bin/qshim');
const RUN_TIMEOUT_MS = 60_000;

export interface Ran {
  readonly exitCode: number | undefined;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs `qshim` as a process of its own to its end. */
export async function run(
  args: readonly string[],
  options: { readonly socket?: string; readonly input?: Buffer; readonly cwd?: string } = {},
): Promise<Ran> {
  const result = await execa(QSHIM, args, {
    reject: false,
    encoding: 'buffer',
    stripFinalNewline: false,
    timeout: RUN_TIMEOUT_MS,
    killSignal: 'SIGKILL',
    env: { QSHIM_SOCKET: options.socket ?? '' },
    ...(options.input === undefined ? {} : { input: options.input }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  return {
    exitCode: result.exitCode,
    stdout: Buffer.from(result.stdout),
    stderr: Buffer.from(result.stderr).toString('utf8'),
  };
}

/** Starts `qshim` without waiting for it; it is killed when a test leaves it behind. */
export function start(args: readonly string[]) {
  return execa(QSHIM, args, {
    reject: false,
    stdin: 'ignore',
    stripFinalNewline: false,
    timeout: RUN_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
}

/** Runs it with --json and parses what it prints. */
export async function runJson(api: FakeApi, ...args: string[]): Promise<unknown> {
  const { stdout, stderr, exitCode } = await run([...args, '--json'], { socket: api.socketPath });
  assert.equal(exitCode, 0, stderr);
  assert.equal(stderr, '');
  return JSON.parse(stdout.toString('utf8'));
}

/** A parsed JSON document as a record, for assertions on single fields. */
export function record(value: unknown): Record<string, unknown> {
  assert.ok(typeof value === 'object' && value !== null && !Array.isArray(value));
  return { ...value };
}
