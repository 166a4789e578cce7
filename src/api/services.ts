import { invalidArgument } from '../base/errors.ts';
import { followConsole } from '../sandbox/console.ts';
import type { ShimEvent } from '../store/event.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import type { SandboxSnapshot } from '../sandbox/sandbox.ts';
import type { VolumeSnapshot } from '../volume/volume.ts';
import { batchMessage, planMessage } from './convert-batch.ts';
import {
  eventMessage,
  limitsFrom,
  sandboxMessage,
  sandboxSpecFrom,
  volumeMessage,
  volumeSpecFrom,
  volumeStateFrom,
} from './convert.ts';
import type { EventsHandlers } from '../grpc/generated/qshim/v1/Events.ts';
import type { SandboxesHandlers } from '../grpc/generated/qshim/v1/Sandboxes.ts';
import type { VolumesHandlers } from '../grpc/generated/qshim/v1/Volumes.ts';
import { streaming, unary, type CallContext, type Edge } from '../grpc/handlers.ts';
import { execStreamHandler } from './exec-stream-service.ts';
import { migrateHandlers } from './migrate-service.ts';
import { keySlotsHandlers } from './key-slots-service.ts';
import { leaseOf } from './convert-lease.ts';
import { staleCopiesHandlers } from './stale-copies-service.ts';
import { labelFilter, stateFilter, Visibility } from './visibility.ts';

/**
 * qshim.v1:
 *
 *     server.ts ─▶ services.ts, key-slots-service.ts ─ convert*.ts ─▶ SandboxManager
 *                        ▲                                                │
 *                        └─────────── convert*.ts ◀─ snapshots, events ───┘
 */

const DURATION_MS_MAX = 86_400_000;

/** @param leaving aborts when the daemon is about to end */
export function sandboxesHandlers(manager: SandboxManager, edge: Edge, leaving: AbortSignal): SandboxesHandlers {
  return {
    Create: unary(edge, 'Sandboxes.Create', async ({ sandboxId, spec }, { signal }) =>
      sandboxMessage(await manager.create(sandboxId, sandboxSpecFrom(spec), signal)),
    ),
    Get: unary(edge, 'Sandboxes.Get', ({ sandboxId }) => Promise.resolve(sandboxMessage(manager.get(sandboxId)))),
    List: unary(edge, 'Sandboxes.List', ({ labels }, { permit }) => {
      const found = manager.list(labelFilter(labels)).filter(({ spec }) => permit.sees(spec.labels));
      return Promise.resolve({ sandboxes: found.map(sandboxMessage) });
    }),
    Stop: unary(edge, 'Sandboxes.Stop', async ({ sandboxId, force, gracefulTimeoutMs }) =>
      sandboxMessage(
        await manager.stop(sandboxId, { force, gracefulTimeoutMs: duration('graceful_timeout_ms', gracefulTimeoutMs) }),
      ),
    ),
    Start: unary(edge, 'Sandboxes.Start', async ({ sandboxId }, { signal }) =>
      sandboxMessage(await manager.startAgain(sandboxId, signal)),
    ),
    Pause: unary(edge, 'Sandboxes.Pause', async ({ sandboxId }) => sandboxMessage(await manager.pause(sandboxId))),
    Resume: unary(edge, 'Sandboxes.Resume', async ({ sandboxId }) => sandboxMessage(await manager.resume(sandboxId))),
    Reboot: unary(edge, 'Sandboxes.Reboot', async ({ sandboxId, force, gracefulTimeoutMs }, { signal }) =>
      sandboxMessage(
        await manager.reboot(sandboxId, {
          force,
          gracefulTimeoutMs: duration('graceful_timeout_ms', gracefulTimeoutMs),
          callerWait: signal,
        }),
      ),
    ),
    Delete: unary(edge, 'Sandboxes.Delete', async ({ sandboxId, force }) => ({
      notFound: !(await manager.delete(sandboxId, force)),
    })),
    Exec: unary(edge, 'Sandboxes.Exec', async (request, { signal }) => {
      const result = await manager.sandbox(request.sandboxId).commands.run({
        path: request.path,
        args: request.arguments,
        environment: request.environment,
        input: request.standardInput,
        timeoutMs: duration('timeout_ms', request.timeoutMs),
        signal,
      });
      return {
        exitCode: result.exitCode ?? 0,
        signal: result.signal ?? 0,
        standardOutput: result.stdout,
        standardError: result.stderr,
        truncated: result.truncated,
        timedOut: result.timedOut ?? false,
      };
    }),
    ExecStream: execStreamHandler(manager, edge, leaving),
    Console: streaming(edge, 'Sandboxes.Console', async ({ sandboxId, follow }, send, { signal }) => {
      for await (const data of followConsole(manager.sandbox(sandboxId), { follow, signal })) await send({ data });
    }),
    Watch: streaming(edge, 'Sandboxes.Watch', async ({ sandboxId }, send, context) => {
      if (sandboxId !== '') manager.get(sandboxId);
      // The watcher is open before the snapshot is taken, and nothing is awaited in between: no change is missed.
      using watcher = manager.events.watch();
      const visible = new Visibility(manager, context.permit);
      const now = manager.list({}).filter(({ id }) => (sandboxId === '' || id === sandboxId) && visible.shows(id));
      for (const sandbox of now) {
        const event = snapshotEvent(manager, 'sandbox.snapshot', sandbox.id);
        await send({ event: eventMessage(event), sandbox: sandboxMessage(sandbox) });
      }
      await relay(watcher, { ...{ context, sandboxId }, visible }, async (event) => {
        if (event.volumeId !== undefined) return;
        // Events of a sandbox carry its snapshot (Sandbox.announce).
        await send({ event: eventMessage(event), sandbox: sandboxMessage(event.subject as SandboxSnapshot) });
      });
    }),
  };
}

export function volumesHandlers(manager: SandboxManager, edge: Edge): VolumesHandlers {
  return {
    Attach: unary(edge, 'Volumes.Attach', async (request, { signal, permit }) => {
      const { sandboxId, volumeId, spec, timeoutMs } = request;
      const options = { ...waiting(timeoutMs, signal), roots: permit.grant.roots, lease: leaseOf(request) };
      return volumeMessage(await manager.attach(sandboxId, volumeId, volumeSpecFrom(spec), options));
    }),
    Detach: unary(edge, 'Volumes.Detach', async ({ sandboxId, volumeId, force, timeoutMs }, { signal }) =>
      volumeMessage(await manager.detach(sandboxId, volumeId, { force, ...waiting(timeoutMs, signal) })),
    ),
    AttachMany: unary(edge, 'Volumes.AttachMany', async ({ sandboxId, volumes, atomic, timeoutMs }, context) => {
      const { signal, permit } = context;
      const { roots } = permit.grant;
      const members = volumes.map((each) => {
        const { volumeId, spec } = each;
        return { volumeId, spec: volumeSpecFrom(spec), roots, lease: leaseOf(each) };
      });
      const options = { atomic, ...waiting(timeoutMs, signal) };
      return batchMessage(await manager.attachMany(sandboxId, members, options));
    }),
    DetachMany: unary(edge, 'Volumes.DetachMany', async ({ sandboxId, volumeIds, force, timeoutMs }, { signal }) =>
      batchMessage(await manager.detachMany(sandboxId, volumeIds, { force, ...waiting(timeoutMs, signal) })),
    ),
    Plan: unary(edge, 'Volumes.Plan', async ({ sandboxId, volumes }, { permit }) => {
      const { roots } = permit.grant;
      const members = volumes.map(({ volumeId, spec }) => ({ volumeId, spec: volumeSpecFrom(spec), roots }));
      return planMessage(await manager.planAttach(sandboxId, members));
    }),
    Resize: unary(edge, 'Volumes.Resize', async ({ sandboxId, volumeId, sizeBytes, timeoutMs }, { signal }) =>
      volumeMessage(await manager.resize(sandboxId, volumeId, { sizeBytes, ...waiting(timeoutMs, signal) })),
    ),
    SetLimits: unary(edge, 'Volumes.SetLimits', async ({ sandboxId, volumeId, limits }, { signal }) =>
      volumeMessage(await manager.setLimits(sandboxId, volumeId, limitsFrom(limits), signal)),
    ),
    ...migrateHandlers(manager, edge),
    RenewLease: unary(edge, 'Volumes.RenewLease', async (request) => {
      const { sandboxId, volumeId } = request;
      const lease = leaseOf(request);
      if (lease === undefined) throw invalidArgument('lease_ms', 0, 'or lease_until is needed');
      return volumeMessage(await manager.renewLease(sandboxId, volumeId, lease));
    }),
    ...keySlotsHandlers(manager, edge),
    ...staleCopiesHandlers(manager, edge),
    Get: unary(edge, 'Volumes.Get', ({ sandboxId, volumeId }) =>
      Promise.resolve(volumeMessage(manager.volume(sandboxId, volumeId))),
    ),
    List: unary(edge, 'Volumes.List', ({ sandboxId, states }, { permit }) => {
      const visible = new Visibility(manager, permit);
      const found = manager.volumes(sandboxId, stateFilter(states).map(volumeStateFrom));
      return Promise.resolve({ volumes: found.filter((one) => visible.shows(one.sandboxId)).map(volumeMessage) });
    }),
    Watch: streaming(edge, 'Volumes.Watch', async ({ sandboxId }, send, context) => {
      using watcher = manager.events.watch();
      const visible = new Visibility(manager, context.permit);
      for (const volume of manager.volumes(sandboxId).filter((one) => visible.shows(one.sandboxId))) {
        const event = { ...snapshotEvent(manager, 'volume.snapshot', volume.sandboxId), volumeId: volume.volumeId };
        await send({ event: eventMessage({ ...event, generation: volume.generation }), volume: volumeMessage(volume) });
      }
      await relay(watcher, { ...{ context, sandboxId }, visible }, async (event) => {
        if (event.volumeId === undefined) return;
        // Events of a volume carry its snapshot (VolumeStore).
        await send({ event: eventMessage(event), volume: volumeMessage(event.subject as VolumeSnapshot) });
      });
    }),
  };
}

export function eventsHandlers(manager: SandboxManager, edge: Edge): EventsHandlers {
  return {
    Watch: streaming(edge, 'Events.Watch', async (request, send, context) => {
      const { sandboxId, afterSequence, afterEpoch, allRetained } = request;
      if (!Number.isSafeInteger(afterSequence)) {
        throw invalidArgument('after_sequence', afterSequence, 'is not a sequence number');
      }
      if (allRetained && (afterSequence !== 0 || afterEpoch !== '')) {
        throw invalidArgument('after_sequence', afterSequence, 'cannot be together with all_retained');
      }
      const epoch = afterEpoch === '' ? undefined : afterEpoch;
      const after = afterSequence === 0 && epoch === undefined ? undefined : { epoch, sequence: afterSequence };
      using watcher = manager.events.watch(allRetained ? 'retained' : after);
      const visible = new Visibility(manager, context.permit);
      await relay(watcher, { ...{ context, sandboxId }, visible }, (event) => send(eventMessage(event)));
    }),
  };
}

interface Watching {
  readonly context: CallContext;
  /** Empty: of all sandboxes. */
  readonly sandboxId: string;
  readonly visible: Visibility;
}

async function relay(
  watcher: { take(signal: AbortSignal): Promise<readonly ShimEvent[]> },
  { context, sandboxId, visible }: Watching,
  send: (event: ShimEvent) => Promise<void>,
): Promise<void> {
  for (;;) {
    for (const event of await watcher.take(context.signal)) {
      // Every event is looked at: what it says of a sandbox holds for the next ones.
      const admitted = visible.admits(event);
      if (admitted && (sandboxId === '' || event.sandboxId === sandboxId)) await send(event);
    }
  }
}

function snapshotEvent(
  manager: SandboxManager,
  type: 'sandbox.snapshot' | 'volume.snapshot',
  sandboxId: string,
): ShimEvent {
  return {
    type,
    sandboxId,
    ...manager.events.newest,
    timeMs: Date.now(),
    volumeId: undefined,
    generation: 0,
    cause: undefined,
    timings: [],
    subject: undefined,
  };
}

/** How long work may take (0: as configured), and the caller who may leave before. */
function waiting(timeoutMs: number, callerWait: AbortSignal): { timeoutMs: number; callerWait: AbortSignal } {
  return { timeoutMs: duration('timeout_ms', timeoutMs), callerWait };
}

/** A duration of the API: at most a day, as in the configuration. */
function duration(field: string, milliseconds: number): number {
  if (milliseconds <= DURATION_MS_MAX) return milliseconds;
  throw invalidArgument(field, milliseconds, `is more than a day (${DURATION_MS_MAX} ms)`);
}
