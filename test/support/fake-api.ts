/** A gRPC server that speaks qshim.v1 with canned answers, for tests of programs that call the daemon. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Metadata,
  Server,
  ServerCredentials,
  loadPackageDefinition,
  status,
  type ServerWritableStream,
  type StatusObject,
  type handleUnaryCall,
} from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import type { Event } from '../../src/grpc/generated/qshim/v1/Event.ts';
import type { EventsHandlers } from '../../src/grpc/generated/qshim/v1/Events.ts';
import type { Sandbox } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { Operation } from '../../src/grpc/generated/qshim/v1/Operation.ts';
import type { Budget } from '../../src/grpc/generated/qshim/v1/Budget.ts';
import type { BudgetsHandlers } from '../../src/grpc/generated/qshim/v1/Budgets.ts';
import type { OperationsHandlers } from '../../src/grpc/generated/qshim/v1/Operations.ts';
import type { GetStatsResponse } from '../../src/grpc/generated/qshim/v1/GetStatsResponse.ts';
import type { StatsHandlers } from '../../src/grpc/generated/qshim/v1/Stats.ts';
import type { SandboxesHandlers } from '../../src/grpc/generated/qshim/v1/Sandboxes.ts';
import type { StaleCopy } from '../../src/grpc/generated/qshim/v1/StaleCopy.ts';
import type { Volume } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumesHandlers } from '../../src/grpc/generated/qshim/v1/Volumes.ts';
import type { ProtoGrpcType as StatusGrpcType } from '../../src/grpc/generated/status.ts';
import { loadApi, loadStatusDefinition } from '../../src/grpc/schema.ts';

/** An answer that is an error, as the daemon sends it. */
export interface ApiError {
  readonly code: keyof typeof status;
  readonly message: string;
  /** Left out: an error without google.rpc.ErrorInfo, as gRPC itself makes them. */
  readonly reason?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface RecordedCall {
  /** "Volumes.Attach". */
  readonly method: string;
  readonly request: unknown;
}

type Respond = (request: unknown) => unknown;

export const SANDBOX: Sandbox = {
  sandboxId: 'sb1',
  spec: { vcpus: 2, memoryMib: 512, kernel: '/k/vmlinuz', initrd: '/k/initrd.img', labels: { team: 'storage' } },
  state: 'SANDBOX_STATE_RUNNING',
  createdAt: { seconds: 1_767_323_045, nanos: 678_000_000 },
  accelerator: 'ACCELERATOR_TCG',
  acceleratorReason: 'a test payload did not finish',
  qemuVersion: '7.2.22',
  qemuPid: 4242,
  volumeCapacity: 62,
  volumesInUse: 1,
  timings: [{ phase: 'spawn', milliseconds: 41.5 }],
  agentReady: true,
  runState: 'running',
  stateDir: '/run/qshim/state/sb1',
  start: { kind: 'START_KIND_COLD_BOOT', reason: 'there was no template' },
};

export const VOLUME: Volume = {
  sandboxId: 'sb1',
  volumeId: 'vol1',
  generation: 3,
  spec: { rawFile: { path: '/v/data.img' }, cache: 'CACHE_MODE_WRITEBACK', queues: 2, logicalBlockSize: 512 },
  state: 'VOLUME_STATE_ATTACHED',
  serial: 'vol1',
  pciPath: '10/1f',
  guestPciAddress: '0000:01:1f.0',
  guestDevice: '/dev/vdb',
  sizeBytes: 9_007_199_254_740_991,
  aio: 'AIO_MODE_IO_URING',
  evidence: ['virtio-status', 'guest-agent'],
  timings: [{ phase: 'driver', milliseconds: 87.25 }],
  attachedAt: { seconds: 1_767_323_046, nanos: 1_000 },
};

const BUDGET: Budget = {
  ...{ name: 'tenant', iops: 0, bps: 8 * 1024 * 1024 },
  members: [{ sandboxId: 'sb1', volumeId: 'vol1', share: 3, iops: 0, bps: 8 * 1024 * 1024 }],
};

export const EVENTS: readonly Event[] = [
  { sequence: 7, time: { seconds: 1_767_323_045, nanos: 0 }, sandboxId: 'sb1', type: 'sandbox.running' },
  {
    sequence: 8,
    time: { seconds: 1_767_323_046, nanos: 5_000_000 },
    sandboxId: 'sb1',
    volumeId: 'vol1',
    generation: 3,
    type: 'volume.attached',
    timings: [{ phase: 'driver', milliseconds: 87.25 }],
  },
];

export const OPERATION: Operation = {
  operationId: 'move-1',
  sandboxId: 'sb1',
  volumeId: 'vol1',
  generation: 3,
  kind: 'migrate',
  state: 'OPERATION_STATE_RUNNING',
  phase: 'copying',
  current: 1_073_741_824,
  total: 4_294_967_296,
  cancellable: true,
  startedAt: { seconds: 1_767_323_047, nanos: 0 },
};

export const STALE_COPY: StaleCopy = {
  path: '/v/data.img',
  currentPath: '/w/standby.img',
  sandboxId: 'sb1',
  volumeId: 'vol1',
  generation: 3,
  since: { seconds: 1_767_323_050, nanos: 0 },
};

const KEY_SLOTS = { uuid: '0f5e7d22-0000-4000-8000-00000000abcd', used: [true, false] };

/** Serves on a socket in a directory of its own until it is disposed. */
export class FakeApi implements AsyncDisposable {
  readonly socketPath: string;
  readonly calls: RecordedCall[] = [];
  /** What it says of itself to grpc.health.v1. */
  readonly health = new HealthImplementation({ '': 'SERVING' });
  /** Events.Watch and Sandboxes.Console send these, then end; with `keepStreamsOpen` they wait for the caller. */
  readonly chunks: Buffer[] = [];
  /** Operations.Watch sends these, then ends likewise. */
  operations: readonly Operation[] = [OPERATION];
  /** Stats.Watch sends these, then ends likewise. */
  stats: readonly GetStatsResponse[] = [];
  keepStreamsOpen = false;
  /** Sandboxes.ExecStream, as the test plays it. */
  onExecStream: SandboxesHandlers['ExecStream'] = (call) => call.end();
  readonly #directory: string;
  readonly #server: Server;
  readonly #respond = new Map<string, Respond>();
  readonly #errors = new Map<string, ApiError>();

  private constructor(directory: string) {
    this.#directory = directory;
    this.socketPath = join(directory, 'qshim.sock');
    const { v1 } = loadApi().qshim;
    this.#server = new Server({ 'grpc.max_send_message_length': -1 });
    this.#server.addService(v1.Sandboxes.service, this.#sandboxes());
    this.#server.addService(v1.Volumes.service, this.#volumes());
    this.#server.addService(v1.Operations.service, this.#operations());
    this.#server.addService(v1.Stats.service, this.#statsService());
    this.#server.addService(v1.Budgets.service, this.#budgets());
    this.#server.addService(v1.Events.service, this.#events());
    this.health.addToServer(this.#server);
  }

  static async start(): Promise<FakeApi> {
    const api = new FakeApi(await mkdtemp(join(tmpdir(), 'qshim-fake-api-')));
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    api.#server.bindAsync(`unix:${api.socketPath}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) resolve(undefined);
      else reject(error);
    });
    await promise;
    return api;
  }

  /** From now on this method answers so; a promise that never settles keeps its callers waiting. */
  answer(method: string, respond: Respond): void {
    this.#errors.delete(method);
    this.#respond.set(method, respond);
  }

  /** From now on this method fails. */
  fail(method: string, error: ApiError): void {
    this.#errors.set(method, error);
  }

  /** The request of the last call, or undefined when there was none. */
  get lastRequest(): unknown {
    return this.calls.at(-1)?.request;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.forceShutdown();
    await rm(this.#directory, { recursive: true, force: true });
  }

  #unary<Request, Response>(method: string, response: Response): handleUnaryCall<Request, Response> {
    return (call, callback) => {
      this.calls.push({ method, request: call.request });
      const error = this.#errors.get(method);
      if (error !== undefined) {
        callback(statusOf(error), null);
        return;
      }
      const respond = this.#respond.get(method) ?? (() => response);
      // The test that sets an answer knows the method's type; here there is only one map for all of them.
      Promise.resolve(respond(call.request) as Response | Promise<Response>).then(
        (value) => callback(null, value),
        (reason: unknown) => callback({ code: status.INTERNAL, details: String(reason) }, null),
      );
    };
  }

  #streaming<Request, Response>(method: string, messages: () => readonly Response[]) {
    return (call: ServerWritableStream<Request, Response>): void => {
      this.calls.push({ method, request: call.request });
      const error = this.#errors.get(method);
      for (const message of messages()) call.write(message);
      if (error !== undefined) call.emit('error', statusOf(error));
      else if (!this.keepStreamsOpen) call.end();
    };
  }

  #statsService(): StatsHandlers {
    return {
      Get: this.#unary('Stats.Get', {}),
      Watch: this.#streaming('Stats.Watch', () => this.stats),
    };
  }

  #operations(): OperationsHandlers {
    return {
      Get: this.#unary('Operations.Get', OPERATION),
      List: this.#unary('Operations.List', { operations: [OPERATION] }),
      Watch: this.#streaming('Operations.Watch', () => this.operations),
      Cancel: this.#unary('Operations.Cancel', { ...OPERATION, cancelAsked: true }),
    };
  }

  #sandboxes(): SandboxesHandlers {
    return {
      Create: this.#unary('Sandboxes.Create', SANDBOX),
      Get: this.#unary('Sandboxes.Get', SANDBOX),
      List: this.#unary('Sandboxes.List', { sandboxes: [SANDBOX] }),
      Stop: this.#unary('Sandboxes.Stop', {
        ...SANDBOX,
        state: 'SANDBOX_STATE_STOPPED',
        qemuPid: 0,
        agentReady: false,
      }),
      Start: this.#unary('Sandboxes.Start', SANDBOX),
      Pause: this.#unary('Sandboxes.Pause', { ...SANDBOX, runState: 'paused' }),
      Resume: this.#unary('Sandboxes.Resume', SANDBOX),
      Reboot: this.#unary('Sandboxes.Reboot', SANDBOX),
      Delete: this.#unary('Sandboxes.Delete', {}),
      Exec: this.#unary('Sandboxes.Exec', { exitCode: 0 }),
      ExecStream: (call) => this.onExecStream(call),
      Console: this.#streaming('Sandboxes.Console', () => this.chunks.map((data) => ({ data }))),
      Watch: this.#streaming('Sandboxes.Watch', () => []),
    };
  }

  #volumes(): VolumesHandlers {
    return {
      Attach: this.#unary('Volumes.Attach', VOLUME),
      Detach: this.#unary('Volumes.Detach', { ...VOLUME, state: 'VOLUME_STATE_REMOVED' }),
      AttachMany: this.#unary('Volumes.AttachMany', { results: [] }),
      DetachMany: this.#unary('Volumes.DetachMany', { results: [] }),
      Plan: this.#unary('Volumes.Plan', { volumes: [] }),
      Resize: this.#unary('Volumes.Resize', { ...VOLUME, sizeBytes: 2 * 1024 ** 3 }),
      SetLimits: this.#unary('Volumes.SetLimits', VOLUME),
      Migrate: this.#unary('Volumes.Migrate', OPERATION),
      Pivot: this.#unary('Volumes.Pivot', OPERATION),
      RenewLease: this.#unary('Volumes.RenewLease', VOLUME),
      ListKeySlots: this.#unary('Volumes.ListKeySlots', KEY_SLOTS),
      AddKey: this.#unary('Volumes.AddKey', KEY_SLOTS),
      ChangeKey: this.#unary('Volumes.ChangeKey', KEY_SLOTS),
      RemoveKey: this.#unary('Volumes.RemoveKey', KEY_SLOTS),
      ListStaleCopies: this.#unary('Volumes.ListStaleCopies', { copies: [STALE_COPY] }),
      ReleaseStaleCopy: this.#unary('Volumes.ReleaseStaleCopy', STALE_COPY),
      Get: this.#unary('Volumes.Get', VOLUME),
      List: this.#unary('Volumes.List', { volumes: [VOLUME] }),
      Watch: this.#streaming('Volumes.Watch', () => []),
    };
  }

  #budgets(): BudgetsHandlers {
    return {
      Set: this.#unary('Budgets.Set', BUDGET),
      Get: this.#unary('Budgets.Get', BUDGET),
      List: this.#unary('Budgets.List', { budgets: [BUDGET] }),
      Delete: this.#unary('Budgets.Delete', {}),
    };
  }

  #events(): EventsHandlers {
    return { Watch: this.#streaming('Events.Watch', () => EVENTS) };
  }
}

/** A gRPC status with its google.rpc.ErrorInfo, as the daemon's edge makes it. */
export function statusOf({ code, message, reason, metadata = {} }: ApiError, domain = 'qshim'): StatusObject {
  const trailers = new Metadata();
  if (reason !== undefined) {
    const { google } = loadPackageDefinition(loadStatusDefinition()) as unknown as StatusGrpcType;
    const value = google.rpc.ErrorInfo.serialize({ reason, domain, metadata });
    const details = [{ type_url: 'type.googleapis.com/google.rpc.ErrorInfo', value }];
    const packed = google.rpc.Status.serialize({ code: status[code], message, details });
    trailers.set('grpc-status-details-bin', packed);
  }
  return { code: status[code], details: message, metadata: trailers };
}
