import { open } from 'node:fs/promises';
import { ShimError, oneSentence } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { QmpEvent } from '../qmp/protocol.ts';
import { qemuFailure } from './connect.ts';
import type { SandboxFiles } from './files.ts';
import { describeExit, type QemuProcess } from './process.ts';

/** The message that it ends is to fit on the wire whole (grpc/status.ts). */
const TAIL_BYTES = 1400;
/** Colours and cursor movements: of no use in a sentence. */
const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_c])/g;

type BootEnd = 'RESET' | 'SHUTDOWN' | 'GUEST_PANICKED';

export interface GuestBootOptions {
  readonly qmp: Pick<QmpClient, 'listen'>;
  readonly qemu: Pick<QemuProcess, 'exit' | 'exited'>;
  readonly files: Pick<SandboxFiles, 'consoleLog' | 'qemuLog'>;
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Watches a guest that boots: one that resets, panics or shuts itself down before its agent has answered
 * will not answer in this boot, and seldom in the next (too little memory, no root). To be disposed of.
 */
export class GuestBoot implements AsyncDisposable {
  readonly #options: GuestBootOptions;
  readonly #ended = new AbortController();
  readonly #closed = new AbortController();
  readonly #watching: Promise<void>;
  /** How the guest itself ended this boot. */
  #guestsDoing: string | undefined;

  constructor(options: GuestBootOptions) {
    this.#options = options;
    void options.qemu.exited.then(() => this.#ended.abort());
    this.#watching = this.#watch();
  }

  /**
   * Waits for the guest, until this boot has ended.
   * @throws ShimError FAILED_PRECONDITION / GUEST_BOOT_FAILED, QEMU_EXITED, with the end of the console; what `wait`
   *   throws
   */
  async wait<T>(signal: AbortSignal, wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await wait(AbortSignal.any([signal, this.#ended.signal]));
    } catch (error) {
      const failure = await this.#failure(error);
      throw failure ?? error;
    }
  }

  async #failure(cause: unknown): Promise<ShimError | undefined> {
    const { qemu, files, metadata = {} } = this.#options;
    const tail = await consoleTail(files.consoleLog);
    // The guest's own doing first: QEMU may end in consequence.
    if (this.#guestsDoing !== undefined) {
      const message = `${this.#guestsDoing} before the guest agent answered${tail}`;
      return new ShimError('FAILED_PRECONDITION', message, { reason: 'GUEST_BOOT_FAILED', metadata, cause });
    }
    if (qemu.exit === undefined) return undefined;
    const { message } = await qemuFailure(describeExit(qemu.exit), files.qemuLog, {});
    return new ShimError('FAILED_PRECONDITION', `${message}${tail}`, { reason: 'QEMU_EXITED', metadata, cause });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    await this.#watching;
  }

  async #watch(): Promise<void> {
    using events = this.#options.qmp.listen<BootEnd>(['RESET', 'SHUTDOWN', 'GUEST_PANICKED']);
    try {
      while (this.#guestsDoing === undefined) {
        this.#guestsDoing = describe(await events.next({ signal: this.#closed.signal }));
      }
      this.#ended.abort();
    } catch {
      // Nobody wants to know any more; or the connection has ended, and what happens from now on is not seen.
    }
  }
}

/** What an event says of the boot; undefined when the guest had no part in it. */
function describe(event: QmpEvent<BootEnd>): string | undefined {
  switch (event.event) {
    case 'RESET':
      return event.data.guest ? 'the guest reset itself' : undefined;
    case 'SHUTDOWN':
      return event.data.guest ? `the guest shut itself down (${event.data.reason})` : undefined;
    case 'GUEST_PANICKED':
      return "the guest's kernel panicked";
  }
}

/** The end of what a guest wrote to its console, for an error message: whole lines, as one sentence. */
export async function consoleTail(path: string): Promise<string> {
  try {
    await using file = await open(path, 'r');
    const { size } = await file.stat();
    const length = Math.min(size, TAIL_BYTES);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    const text = buffer.toString('utf8').replace(ESCAPES, '');
    const whole = size > length ? text.slice(text.indexOf('\n') + 1) : text;
    const said = oneSentence(whole);
    return said === '' ? '; its console is empty' : `; the console ends with: ${said}`;
  } catch {
    // It only adds to a message; the failure that it is about is told without it.
    return '';
  }
}
