/**
 * The command's gRPC channel to the daemon. Loading this module loads gRPC, so commands import it only when they call.
 */
import {
  credentials,
  makeGenericClientConstructor,
  type CallOptions,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientUnaryCall,
  type requestCallback,
} from '@grpc/grpc-js';
import { TIMER_MS_MAX } from '../base/deadline.ts';
import { loadApi } from '../grpc/schema.ts';
import type { BudgetsClient } from '../grpc/generated/qshim/v1/Budgets.ts';
import type { EventsClient } from '../grpc/generated/qshim/v1/Events.ts';
import type { ListSandboxesResponse__Output } from '../grpc/generated/qshim/v1/ListSandboxesResponse.ts';
import type { ListVolumesResponse__Output } from '../grpc/generated/qshim/v1/ListVolumesResponse.ts';
import type { OperationsClient } from '../grpc/generated/qshim/v1/Operations.ts';
import type { SandboxesClient } from '../grpc/generated/qshim/v1/Sandboxes.ts';
import type { StatsClient } from '../grpc/generated/qshim/v1/Stats.ts';
import type { VolumesClient } from '../grpc/generated/qshim/v1/Volumes.ts';
import { Interrupted } from './cli-failure.ts';
import { EXIT } from './exit-codes.ts';
import { failureOf } from './failure.ts';

/** Exec answers with all output in one message: what the guest agent keeps (16 MiB) of each stream, and some room. */
const RESPONSE_BYTES_MAX = 40 * 1024 * 1024;

export interface ConnectionOptions {
  /** Absolute path of the daemon's UNIX socket. */
  readonly socketPath: string;
  /** gRPC deadline for each call in milliseconds; undefined means none. */
  readonly deadlineMs: number | undefined;
  /** Ends waiting when the user interrupts. The daemon finishes what it began. */
  readonly signal: AbortSignal;
}

/** Typed clients over one socket. Every call rejects with a CliFailure, or with Interrupted when the signal aborts. */
export class Connection implements Disposable {
  readonly sandboxes: SandboxesClient;
  readonly volumes: VolumesClient;
  readonly operations: OperationsClient;
  readonly stats: StatsClient;
  readonly budgets: BudgetsClient;
  readonly events: EventsClient;
  readonly #options: ConnectionOptions;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    const target = `unix:${options.socketPath}`;
    const insecure = credentials.createInsecure();
    const limits = { 'grpc.max_receive_message_length': RESPONSE_BYTES_MAX };
    const { v1 } = loadApi().qshim;
    this.sandboxes = new v1.Sandboxes(target, insecure, limits);
    this.volumes = new v1.Volumes(target, insecure, limits);
    this.operations = new v1.Operations(target, insecure, limits);
    this.stats = new v1.Stats(target, insecure, limits);
    this.budgets = new v1.Budgets(target, insecure, limits);
    this.events = new v1.Events(target, insecure, limits);
  }

  /** Runs one unary call: `call((options, done) => connection.volumes.Get(request, options, done))`. */
  async call<T>(start: (options: CallOptions, done: requestCallback<T>) => ClientUnaryCall): Promise<T> {
    const { signal, socketPath } = this.#options;
    throwIfInterrupted(signal);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const call = start(this.#callOptions(), (error, response) => {
      if (error !== null) reject(error);
      else if (response === undefined) reject(new Error('the daemon answered with neither a result nor an error'));
      else resolve(response);
    });
    const onAbort = (): void => {
      call.cancel();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await promise;
    } catch (error) {
      throwIfInterrupted(signal);
      throw failureOf(error, socketPath);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /**
   * Runs one server-streaming call and hands over each message in order; back-pressure is that of `onMessage`, which
   * ends the call by `false`.
   */
  async stream<T>(
    start: (options: CallOptions) => ClientReadableStream<T>,
    onMessage: (message: T) => Promise<boolean | void> | void,
  ): Promise<void> {
    await this.#receive(start(this.#callOptions()), onMessage);
  }

  /**
   * Runs one call with streams in both directions; messages are handed over as by `stream`.
   * @param opened begins to send; what it gives is disposed of when the call has ended
   */
  async exchange<Request, Response>(
    start: (options: CallOptions) => ClientDuplexStream<Request, Response>,
    opened: (call: ClientDuplexStream<Request, Response>) => Disposable,
    onMessage: (message: Response) => Promise<void> | void,
  ): Promise<void> {
    const call = start(this.#callOptions());
    using _sending = opened(call);
    await this.#receive<Response>(call, onMessage);
  }

  async #receive<T>(
    call: ClientReadableStream<T> | ClientDuplexStream<never, T>,
    onMessage: (message: T) => Promise<boolean | void> | void,
  ): Promise<void> {
    const { signal, socketPath } = this.#options;
    const onAbort = (): void => {
      call.cancel();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      throwIfInterrupted(signal);
      for await (const message of call as AsyncIterable<T>) if ((await onMessage(message)) === false) break;
    } catch (error) {
      throwIfInterrupted(signal);
      throw failureOf(error, socketPath);
    } finally {
      signal.removeEventListener('abort', onAbort);
      call.cancel();
    }
  }

  async sandboxIds(): Promise<string[]> {
    const { sandboxes } = await this.call<ListSandboxesResponse__Output>((options, done) =>
      this.sandboxes.List({}, options, done),
    );
    return sandboxes.map(({ sandboxId }) => sandboxId);
  }

  async volumeIds(sandboxId: string): Promise<string[]> {
    const { volumes } = await this.call<ListVolumesResponse__Output>((options, done) =>
      this.volumes.List({ sandboxId }, options, done),
    );
    return volumes.map(({ volumeId }) => volumeId);
  }

  #callOptions(): CallOptions {
    const { deadlineMs } = this.#options;
    // One that no timer can count is none: an older daemon's gRPC would end the call at once.
    return deadlineMs === undefined || deadlineMs > TIMER_MS_MAX ? {} : { deadline: Date.now() + deadlineMs };
  }

  [Symbol.dispose](): void {
    this.sandboxes.close();
    this.volumes.close();
    this.operations.close();
    this.stats.close();
    this.budgets.close();
    this.events.close();
  }
}

/** Asks grpc.health.v1 for the daemon as a whole: "SERVING", "NOT_SERVING", ... */
export async function askHealth(options: ConnectionOptions): Promise<string> {
  const { service } = await import('grpc-health-check');
  const Health = makeGenericClientConstructor(service, 'grpc.health.v1.Health');
  using connection = new Connection(options);
  const health = new Health(`unix:${options.socketPath}`, credentials.createInsecure());
  try {
    const { status } = await connection.call<{ readonly status: string }>((callOptions, done) => {
      const { Check: check } = service;
      if (check === undefined) throw new Error('grpc.health.v1 has no Check');
      return health.makeUnaryRequest(
        check.path,
        check.requestSerialize,
        // The loader decodes HealthCheckResponse with enums as strings; its definition is untyped.
        check.responseDeserialize as (bytes: Buffer) => { readonly status: string },
        { service: '' },
        callOptions,
        done,
      );
    });
    return status;
  } finally {
    health.close();
  }
}

function throwIfInterrupted(signal: AbortSignal): void {
  if (signal.aborted) throw signal.reason instanceof Interrupted ? signal.reason : new Interrupted(EXIT.interrupted);
}
