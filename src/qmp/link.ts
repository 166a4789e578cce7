import { Backoff } from '../base/backoff.ts';
import { waitFor } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { QmpClient, type QmpConnectOptions } from './client.ts';

const RECONNECT_PAUSE_MS = 50;
const RECONNECT_PAUSE_MAX_MS = 2000;

export interface QmpLinkOptions {
  readonly connect: Omit<QmpConnectOptions, 'signal'>;
  readonly log: Logger;
  /** Aborted when the VM is gone: the link is then given up. */
  readonly gone: AbortSignal;
  /**
   * Called with each new connection before anybody else gets it. Events are not replayed to a monitor that was away, so
   * this is where listeners are opened and the records are compared with what QEMU has.
   */
  readonly onConnected: (client: QmpClient) => Promise<void>;
}

type ConnectLimits = Pick<QmpConnectOptions, 'handshakeTimeoutMs' | 'startingUp'>;

/** The QMP connection of one VM, made again whenever it breaks while the VM lives. */
export class QmpLink implements AsyncDisposable {
  readonly #options: QmpLinkOptions;
  #client: QmpClient | undefined;
  /** The newest connection, from before onConnected has seen it: this is what a dispose has to close. */
  #newest: QmpClient | undefined;
  #waiting = Promise.withResolvers<QmpClient>();
  #running: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: QmpLinkOptions) {
    this.#options = options;
    this.#waiting.promise.catch(() => undefined);
  }

  /**
   * Makes the first connection and keeps the link up from then on.
   * @param limits a QEMU that was just started greets only once its machine is made, which takes long with many vCPUs
   * @throws what QmpClient.connect and onConnected throw: then there is no link
   */
  async open(limits: ConnectLimits = {}): Promise<QmpClient> {
    const client = await this.#connect(limits);
    this.#running = this.#keepUp(client);
    return client;
  }

  /**
   * Takes over a first connection that was made elsewhere, and keeps the link up from then on.
   * @throws what onConnected throws: then there is no link, and the connection is closed
   */
  async take(client: QmpClient): Promise<void> {
    this.#running = this.#keepUp(await this.#ready(client));
  }

  /** One connection, ready to be handed out. QEMU serves one at a time, so one that turns out useless must not stay. */
  async #connect(limits: ConnectLimits = {}): Promise<QmpClient> {
    const { connect, gone } = this.#options;
    return await this.#ready(await QmpClient.connect({ ...connect, ...limits, signal: gone }));
  }

  async #ready(client: QmpClient): Promise<QmpClient> {
    this.#newest = client;
    try {
      if (this.#stopped()) throw isDown();
      await this.#options.onConnected(client);
      // Nobody would close it any more, and nobody is to be told of it.
      if (this.#stopped()) throw isDown();
      return client;
    } catch (error) {
      await client[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * As open, but tries until it succeeds: the VM is known to live, and may be too busy (or stopped) to answer just now.
   * @throws the reason of `gone`
   */
  async openEventually(): Promise<QmpClient> {
    const { gone, log } = this.#options;
    const backoff = new Backoff(RECONNECT_PAUSE_MS, RECONNECT_PAUSE_MAX_MS);
    for (;;) {
      try {
        return await this.open();
      } catch (error) {
        gone.throwIfAborted();
        log.warn({ problem: messageOf(error) }, 'qmp connection not made, trying again');
      }
      await backoff.pause(gone);
    }
  }

  /**
   * The connection as it is now.
   * @throws ShimError UNAVAILABLE / QMP_LOST while there is none
   */
  get current(): QmpClient {
    if (this.#client?.state === 'ready') return this.#client;
    throw isDown();
  }

  /** For how long QEMU has owed its oldest reply; 0 when it owes none, or when there is no connection. */
  get owedMs(): number {
    return this.#client?.owedMs ?? 0;
  }

  /**
   * The connection, waited for while it is being made.
   * @throws ShimError UNAVAILABLE / QMP_LOST when that takes longer than `milliseconds`; the signal's reason
   */
  async within(milliseconds: number, signal: AbortSignal): Promise<QmpClient> {
    return await waitFor(this.ready(), { milliseconds, signal, onTimeout: isDown });
  }

  /** The connection, as soon as there is one; rejects with the reason of `gone` once the VM is gone. */
  async ready(): Promise<QmpClient> {
    for (;;) {
      this.#options.gone.throwIfAborted();
      const client = this.#client;
      // There may never have been one: `#waiting` is then settled by nobody.
      if (client === undefined) return await waitFor(this.#waiting.promise, { signal: this.#options.gone });
      if (client.state === 'ready') return client;
      // It is ending, and `#waiting` is still settled with it.
      await client.closed;
    }
  }

  async #keepUp(first: QmpClient): Promise<void> {
    let client: QmpClient | undefined = first;
    while (client !== undefined) {
      this.#client = client;
      this.#waiting.resolve(client);
      const cause = await client.closed;
      this.#waiting = Promise.withResolvers<QmpClient>();
      this.#waiting.promise.catch(() => undefined);
      this.#client = undefined;
      client = await this.#reconnect(cause);
    }
    this.#waiting.reject(new ShimError('UNAVAILABLE', 'the VM is gone', { reason: 'VM_GONE' }));
  }

  async #reconnect(cause: ShimError): Promise<QmpClient | undefined> {
    const { gone, log } = this.#options;
    if (!this.#stopped()) log.warn({ cause: cause.message }, 'qmp connection lost');
    const backoff = new Backoff(RECONNECT_PAUSE_MS, RECONNECT_PAUSE_MAX_MS);
    while (!this.#stopped()) {
      try {
        await backoff.pause(gone);
        if (this.#stopped()) return undefined;
        const client = await this.#connect();
        log.info('qmp connection made again');
        return client;
      } catch (error) {
        log.debug({ problem: messageOf(error) }, 'qmp connection not made');
      }
    }
    return undefined;
  }

  #stopped(): boolean {
    return this.#closed || this.#options.gone.aborted;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#newest?.[Symbol.asyncDispose]();
    await this.#running;
  }
}

function isDown(): ShimError {
  return new ShimError('UNAVAILABLE', 'the QMP connection to QEMU is down', { reason: 'QMP_LOST' });
}
