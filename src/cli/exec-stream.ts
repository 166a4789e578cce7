/** `qshim sandbox exec -i -t`: the streams of this process joined to those of a command in the guest. */
import { once } from 'node:events';
import type { ClientDuplexStream } from '@grpc/grpc-js';
import type { ExecStreamRequest } from '../grpc/generated/qshim/v1/ExecStreamRequest.ts';
import type { ExecStreamResponse__Output } from '../grpc/generated/qshim/v1/ExecStreamResponse.ts';
import type { ExecStreamStart } from '../grpc/generated/qshim/v1/ExecStreamStart.ts';
import type { TerminalSize } from '../grpc/generated/qshim/v1/TerminalSize.ts';
import { CliFailure, usageFailure } from './cli-failure.ts';
import type { Connection } from './connection.ts';
import { EXIT } from './exit-codes.ts';
import type { InputTerminal, Session, Terminal } from './session.ts';

type Call = ClientDuplexStream<ExecStreamRequest, ExecStreamResponse__Output>;

/** What a command gets that is shown where no terminal is. */
const SIZE_ELSEWHERE: Required<TerminalSize> = { rows: 24, columns: 80 };

export interface StreamOptions {
  readonly interactive: boolean;
  readonly tty: boolean;
}

/** @throws CliFailure of usage: keys can be passed on one by one from a terminal only */
export function checkStreams(stdin: InputTerminal, { interactive, tty }: StreamOptions): void {
  if (interactive && tty && stdin.isTTY !== true) {
    throw usageFailure('-i with -t passes keys on, and standard input is no terminal; leave -t away');
  }
}

/**
 * Runs a command with its streams until it has ended.
 * @returns its exit code. @throws CliFailure, or Interrupted when the signal aborts: the daemon kills the command then
 */
export async function execStream(
  session: Session,
  api: Connection,
  start: ExecStreamStart,
  options: StreamOptions,
): Promise<number> {
  const { stdin, stdout, stderr } = session.surroundings;
  const terminal = options.tty ? sizeOf(stdout) : undefined;
  let exitCode: number | undefined;
  await api.exchange<ExecStreamRequest, ExecStreamResponse__Output>(
    (callOptions) => api.sandboxes.ExecStream(callOptions),
    (call) => {
      call.write({ start: { ...start, ...(terminal && { terminal }) } });
      if (!options.interactive && terminal === undefined) call.end();
      const undo = new DisposableStack();
      if (terminal !== undefined) undo.use(followSize(stdout, call));
      if (options.interactive) undo.use(passInput(stdin, call, terminal !== undefined));
      return undo;
    },
    async ({ standardOutput, standardError, exited }) => {
      if (standardOutput !== undefined) await session.writeOut(standardOutput);
      if (standardError !== undefined) await session.writeOut(standardError, stderr);
      if (exited) ({ exitCode } = exited);
    },
  );
  if (exitCode !== undefined) return exitCode & 0xff;
  throw new CliFailure('INTERNAL', 'the daemon did not say how the command ended', {
    reason: 'INTERNAL',
    exitCode: EXIT.failed,
  });
}

function sizeOf({ rows, columns }: Terminal): Required<TerminalSize> {
  return rows === undefined || columns === undefined || rows < 1 || columns < 1 ? SIZE_ELSEWHERE : { rows, columns };
}

/** Node tells of SIGWINCH as `resize`. */
function followSize(stdout: Terminal, call: Call): Disposable {
  const tell = (): void => void call.write({ terminalSize: sizeOf(stdout) });
  stdout.on('resize', tell);
  return { [Symbol.dispose]: () => stdout.off('resize', tell) };
}

/** Standard input goes to the command no faster than that reads it. Keys of a terminal go as they are, Ctrl-C too. */
function passInput(stdin: InputTerminal, call: Call, asKeys: boolean): Disposable {
  const ended = new AbortController();
  const { signal } = ended;
  if (asKeys) stdin.setRawMode?.(true);
  const onData = (chunk: Buffer | string): void => {
    if (call.write({ standardInput: Buffer.from(chunk) })) return;
    stdin.pause();
    once(call, 'drain', { signal }).then(
      () => stdin.resume(),
      () => undefined,
    );
  };
  const onEnd = (): void => void call.end();
  stdin.on('data', onData).once('end', onEnd).once('error', onEnd);
  return {
    [Symbol.dispose]: () => {
      ended.abort();
      stdin.off('data', onData).off('end', onEnd).off('error', onEnd);
      if (asKeys) stdin.setRawMode?.(false);
      // What nobody reads any more must not keep this process.
      stdin.destroy();
    },
  };
}
