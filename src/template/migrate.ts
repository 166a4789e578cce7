import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { chown, rm, stat } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { Deadline, sleep, waitFor } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import type { ReasonWith } from '../base/reasons.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { QmpListener } from '../qmp/listener.ts';

/**
 * Saving a VM's device state and restoring it in another QEMU, with the memory left where it is (capability
 * x-ignore-shared). QEMU 7.2 knows no `file:` for a migration, and qshim's seccomp filter forbids it `exec:`; so the
 * state goes through a unix socket, and this process copies it from and to the file.
 */

export interface MigrateOptions {
  readonly stateFile: string;
  /** Where the socket may lie for the time of the copy; at most 107 bytes. */
  readonly socketPath: string;
  readonly timeoutMs: number;
  /** The user of QEMU, if it is another than this process's. */
  readonly qemuUid?: number;
  readonly signal?: AbortSignal;
}

const CAPABILITIES = {
  capabilities: [
    // Without it there is no MIGRATION, and polling would be all.
    { capability: 'events', state: true },
    { capability: 'x-ignore-shared', state: true },
  ],
} as const;

const SILENCE_MS = 5000;

type Migration = QmpListener<'MIGRATION'>;
type Client = Pick<QmpClient, 'run' | 'listen'>;

/**
 * Stops a VM whose memory is a shared file, and writes the rest of its state to `stateFile`. The VM stays stopped: end
 * it before the memory file is used.
 * @returns bytes of the state
 * @throws ShimError FAILED_PRECONDITION / TEMPLATE_SAVE_FAILED, DEADLINE_EXCEEDED / TEMPLATE_TIMEOUT, the signal's
 *   reason
 */
export async function saveState(client: Client, options: MigrateOptions): Promise<number> {
  const { stateFile, socketPath } = options;
  return await naming('TEMPLATE_SAVE_FAILED', 'the state of the template was not saved', async () => {
    const limits = limitsOf(options);
    await client.run('stop');
    await client.run('migrate-set-capabilities', CAPABILITIES);
    using owned = new DisposableStack();
    const stop = owned.adopt(new AbortController(), (controller) => controller.abort());
    const server = owned.adopt(createServer({ pauseOnConnect: true }), (listening) => listening.close());
    server.listen(socketPath);
    await once(server, 'listening');
    if (options.qemuUid !== undefined) await chown(socketPath, options.qemuUid, options.qemuUid);
    // A connection that could not be accepted is missed below.
    server.on('error', () => undefined);
    using events = client.listen('MIGRATION');
    const copied = receive(server, stateFile, stop.signal);
    // It is waited for below; a `migrate` that is refused comes first.
    copied.catch(() => undefined);
    await client.run('migrate', { uri: `unix:${socketPath}` });
    await waitFor(Promise.all([completion(events), copied]), limits());
    return (await stat(stateFile)).size;
  });
}

/**
 * Restores a state in a QEMU that was started with `-incoming defer`, and lets the VM run.
 * @param options `beforeRun` is called when the state is there, and the guest stands still
 * @throws ShimError FAILED_PRECONDITION / TEMPLATE_RESTORE_FAILED: that QEMU is of no use any more, and may have ended;
 *   DEADLINE_EXCEEDED / TEMPLATE_TIMEOUT, the signal's reason
 */
export async function restoreState(
  client: Client,
  options: MigrateOptions & { readonly beforeRun?: () => Promise<void> },
): Promise<void> {
  const { stateFile, socketPath } = options;
  await naming('TEMPLATE_RESTORE_FAILED', 'the state of the template was not restored', async () => {
    const limits = limitsOf(options);
    await client.run('migrate-set-capabilities', CAPABILITIES);
    using events = client.listen('MIGRATION');
    // QEMU listens by the time of the reply, and takes one connection.
    await client.run('migrate-incoming', { uri: `unix:${socketPath}` });
    using owned = new DisposableStack();
    const stop = owned.adopt(new AbortController(), (controller) => controller.abort());
    const copied = pipeline(createReadStream(stateFile), createConnection(socketPath), { signal: stop.signal });
    try {
      await waitFor(Promise.race([completion(events), silenceAfter(copied, stop.signal)]), limits());
    } finally {
      await rm(socketPath, { force: true });
    }
    await options.beforeRun?.();
    await client.run('cont');
  });
}

async function receive(server: Server, stateFile: string, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<Socket>();
  server.once('connection', resolve);
  const socket = await waitFor(promise, { signal });
  await pipeline(socket, createWriteStream(stateFile, { mode: 0o600 }), { signal });
}

/**
 * Rejects when the copying has failed and QEMU has said nothing for a while since. The copy's own end decides nothing:
 * QEMU closes the connection when it has what it needs, at times before the last write is seen to have ended.
 */
async function silenceAfter(copied: Promise<void>, signal: AbortSignal): Promise<never> {
  try {
    await copied;
  } catch (error) {
    await sleep(SILENCE_MS, signal);
    throw error;
  }
  return await waitFor(Promise.withResolvers<never>().promise, { signal });
}

async function completion(events: Migration): Promise<void> {
  for (;;) {
    const { status } = (await events.next()).data;
    if (status === 'completed') return;
    if (status === 'failed' || status === 'cancelled') throw new Error(`QEMU says that the migration ${status}`);
  }
}

function limitsOf({ timeoutMs, signal }: MigrateOptions): () => Parameters<typeof waitFor>[1] {
  const deadline = Deadline.after(timeoutMs);
  return () => ({
    milliseconds: deadline.remainingMs,
    onTimeout: () =>
      new ShimError('DEADLINE_EXCEEDED', `a template's state was not moved within ${timeoutMs} ms`, {
        reason: 'TEMPLATE_TIMEOUT',
      }),
    ...(signal && { signal }),
  });
}

async function naming<T>(reason: ReasonWith<'FAILED_PRECONDITION'>, what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isShimError(error, 'DEADLINE_EXCEEDED', 'CANCELLED')) throw error;
    throw new ShimError('FAILED_PRECONDITION', `${what}: ${messageOf(error)}`, { reason, cause: error });
  }
}
