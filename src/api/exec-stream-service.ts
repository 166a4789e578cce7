import type { handleBidiStreamingCall } from '@grpc/grpc-js';
import { waitFor } from '../base/deadline.ts';
import { invalidArgument, messageOf } from '../base/errors.ts';
import type { ExecStreamRequest__Output } from '../grpc/generated/qshim/v1/ExecStreamRequest.ts';
import type { ExecStreamResponse } from '../grpc/generated/qshim/v1/ExecStreamResponse.ts';
import type { ExecStreamStart__Output } from '../grpc/generated/qshim/v1/ExecStreamStart.ts';
import { bidirectional, type CallContext, type Edge } from '../grpc/handlers.ts';
import { checkTerminalSize, type CommandSpec, type StreamedCommand } from '../sandbox/exec.ts';
import type { SandboxManager } from '../sandbox/manager.ts';

type Requests = AsyncIterator<ExecStreamRequest__Output, void>;
type Send = (message: ExecStreamResponse) => Promise<void>;

/** Linux's highest (SIGRTMAX). */
const SIGNAL_MAX = 64;

/**
 * Sandboxes.ExecStream: a command and its streams, for as long as the call lasts.
 * @param leaving aborts when the daemon is about to end: that ends these calls, and with them the commands
 */
export function execStreamHandler(
  manager: SandboxManager,
  edge: Edge,
  leaving: AbortSignal,
): handleBidiStreamingCall<ExecStreamRequest__Output, ExecStreamResponse> {
  return bidirectional(edge, 'Sandboxes.ExecStream', async (requests: Requests, send: Send, { signal, log }) => {
    const ended = AbortSignal.any([signal, leaving]);
    const first = await waitFor(requests.next(), { signal: ended });
    const start = first.done === true ? undefined : first.value.start;
    if (start === undefined || start === null) throw invalidArgument('start', '', 'must be the first message');
    const { commands } = manager.sandbox(start.sandboxId);
    await commands.stream(specFrom(start), ended, async (command) => {
      await send({ started: { pid: command.pid } });
      const exitCode = await carry(command, requests, send, { signal: ended, log });
      await send({ exited: { exitCode } });
    });
  });
}

function specFrom(start: ExecStreamStart__Output): CommandSpec {
  const { path, environment, workingDirectory, terminal } = start;
  return {
    path,
    args: start.arguments,
    environment,
    directory: workingDirectory === '' ? '/' : workingDirectory,
    terminal: terminal ?? undefined,
  };
}

/**
 * Carries bytes both ways until the command has ended and its output has been sent.
 * @returns its exit code. @throws for a message that cannot be; what StreamedCommand.exited rejects with; the signal's
 *   reason
 */
async function carry(
  command: StreamedCommand,
  requests: Requests,
  send: Send,
  { signal, log }: Pick<CallContext, 'signal' | 'log'>,
): Promise<number> {
  const refused = Promise.withResolvers<never>();
  obey(command, requests, log).catch((error: unknown) => refused.reject(error));
  const { stdout, stderr } = command;
  const outputs = [
    forward(stdout, (standardOutput) => send({ standardOutput })),
    ...(stderr === undefined ? [] : [forward(stderr, (standardError) => send({ standardError }))]),
  ];
  const over = Promise.all([command.exited, ...outputs]).then(([exitCode]) => exitCode);
  return await waitFor(Promise.race([over, refused.promise]), { signal });
}

async function forward(from: AsyncIterable<Buffer>, send: (bytes: Buffer) => Promise<void>): Promise<void> {
  for await (const bytes of from) await send(bytes);
}

/** What the caller sends, one after the other; the end of it is that of the input. */
async function obey(command: StreamedCommand, requests: Requests, log: CallContext['log']): Promise<void> {
  const terminal = command.stderr === undefined;
  for (let next = await requests.next(); next.done !== true; next = await requests.next()) {
    const { message, standardInput, terminalSize, signal = 0 } = next.value;
    switch (message) {
      case 'standardInput':
        await taken(command.write(standardInput ?? Buffer.alloc(0)), log);
        break;
      case 'standardInputEnd':
        if (terminal) throw invalidArgument('standard_input_end', '', 'must not be sent to a terminal');
        await taken(command.endInput(), log);
        break;
      case 'terminalSize':
        if (!terminal) throw invalidArgument('terminal_size', '', 'must not be sent: the command has no terminal');
        if (terminalSize === undefined || terminalSize === null) break;
        checkTerminalSize(terminalSize);
        command.resize(terminalSize);
        break;
      case 'signal':
        if (signal < 1 || signal > SIGNAL_MAX) throw invalidArgument('signal', signal, `must be 1 to ${SIGNAL_MAX}`);
        await taken(command.signal(signal), log);
        break;
      case 'start':
        throw invalidArgument('start', '', 'must be the first message, and no other');
      case undefined:
        throw invalidArgument('message', '', 'must have one of its fields');
    }
  }
  if (!terminal) await taken(command.endInput(), log);
}

/** A command that ends, or has ended, takes no more: that is no failure of the call. */
async function taken(work: Promise<void>, log: CallContext['log']): Promise<void> {
  await work.catch((error: unknown) => log.debug({ problem: messageOf(error) }, 'not taken by a command'));
}
