import { ShimError } from '../base/errors.ts';
import { checkId } from '../base/ids.ts';
import type { Config } from '../config.ts';
import { asShimError } from '../qmp/errors.ts';
import type { Budgets } from './host.ts';
import type { Inspection } from './source/module.ts';
import type { Lease } from './model/lease.ts';
import { moduleOf, type SourceSpec } from './source/registry.ts';
import { completeSpec, defaultSerial, inspectSource, type RequestedSpec, type VolumeSpec } from './spec.ts';
import type { VolumeStore, Wanted } from './store.ts';
import type { Volume } from './volume.ts';

/** The sandbox that a volume is to come to. */
export interface Admitting {
  readonly id: string;
  readonly state: string;
  /** Its QEMU does not answer. */
  readonly unresponsive: boolean;
  readonly vcpus: number;
  readonly volumes: VolumeStore;
  readonly ioBudgets: Pick<Budgets, 'refusal'>;
  readonly config: Config;
  /** Of its QEMU; undefined while that is not known. */
  readonly blockDrivers: ReadonlySet<string> | undefined;
}

export interface Request {
  readonly volumeId: string;
  readonly spec: RequestedSpec;
  /** Directories that the caller is limited to, in place of `allowed_roots`, which they lie below. */
  readonly roots?: readonly string[] | undefined;
  /** For how long it may stay. A repeat with one renews it. */
  readonly lease?: Lease | undefined;
}

/** The configuration for a caller that is limited to some directories. */
export function withinRoots<C extends Pick<Config, 'allowed_roots'>>(
  config: C,
  roots: readonly string[] | undefined,
): C {
  return roots === undefined ? config : { ...config, allowed_roots: roots.filter((root) => root.startsWith('/')) };
}

/** What became known of a request on the way, as far as it came. */
export interface Admission {
  readonly volumeId: string;
  spec: VolumeSpec | undefined;
  /** The volume that this request repeats. */
  repeated: Volume | undefined;
  source: Inspection<SourceSpec> | undefined;
}

export function beginAdmission({ volumeId }: Request): Admission {
  return { volumeId, spec: undefined, repeated: undefined, source: undefined };
}

/**
 * Every reason against a request, in the order in which they are told: Attach throws the first, Plan shows all, a batch
 * does either for each of its members. Fills in `admission` on the way. Looks at the host; changes nothing. A reason
 * may be gone, or another come, by the time of the deed: VolumeStore.add asks once more, without an await in between.
 * @param others members of the same request that come before it
 */
export async function* reasonsAgainst(
  sandbox: Admitting,
  request: Request,
  admission: Admission,
  others: readonly Wanted[] = [],
): AsyncGenerator<ShimError> {
  const { volumeId } = request;
  yield* caught(() => {
    checkId('volume_id', volumeId);
  });
  yield* caught(() => {
    admission.spec = completeSpec(request.spec, defaultSerial(volumeId), sandbox.vcpus);
  });
  const notRunning = refusalUnlessRunning(sandbox);
  if (notRunning !== undefined) yield notRunning;
  const { spec } = admission;
  if (spec === undefined) return;
  yield* refusalOfKind(sandbox, spec);
  const isNew = yield* caught(() => {
    admission.repeated = sandbox.volumes.repeated(volumeId, spec);
  });
  if (isRepeat(admission)) return;
  try {
    admission.source = await inspectSource(spec, withinRoots(sandbox.config, request.roots));
  } catch (error) {
    yield asShimError(error);
  }
  // Meanwhile the same request may have come a second time, and begun.
  if (isNew) {
    yield* caught(() => {
      admission.repeated = sandbox.volumes.repeated(volumeId, spec);
    });
  }
  if (isRepeat(admission)) return;
  yield* sandbox.volumes.refusals(volumeId, spec, admission.source, others);
  const unaffordable = spec.draw && sandbox.ioBudgets.refusal(spec.draw.budget);
  if (unaffordable !== undefined) yield unaffordable;
}

/** Why a sandbox takes no volumes now, if it does not. */
export function refusalUnlessRunning({
  id,
  state,
  unresponsive,
}: Pick<Admitting, 'id' | 'state' | 'unresponsive'>): ShimError | undefined {
  if (state !== 'running') {
    return new ShimError('FAILED_PRECONDITION', `sandbox ${id} is ${state}, not running`, {
      reason: state === 'stopping' ? 'SANDBOX_STOPPING' : 'SANDBOX_NOT_RUNNING',
      metadata: { sandboxId: id, state },
    });
  }
  if (!unresponsive) return undefined;
  return new ShimError('UNAVAILABLE', `the QEMU of sandbox ${id} does not answer its monitor`, {
    reason: 'QEMU_UNRESPONSIVE',
    metadata: { sandboxId: id },
  });
}

/** A kind of source that this sandbox's QEMU cannot open. */
function refusalOfKind({ id, blockDrivers }: Admitting, { source }: VolumeSpec): readonly ShimError[] {
  const { apiName, demands } = moduleOf(source);
  const missing = demands.blockDrivers.filter((driver) => blockDrivers?.has(driver) === false);
  if (missing.length === 0) return [];
  return [
    new ShimError(
      'UNIMPLEMENTED',
      `the QEMU of sandbox ${id} has no block driver ${missing.join(', ')} for ${apiName}`,
      {
        reason: 'SOURCE_KIND_UNSUPPORTED',
        metadata: { sandboxId: id, field: 'spec.source', value: apiName, missing: missing.join(',') },
      },
    ),
  ];
}

function isRepeat({ repeated }: Admission): boolean {
  return repeated !== undefined;
}

/** @returns whether it passed */
function* caught(check: () => void): Generator<ShimError, boolean> {
  try {
    check();
    return true;
  } catch (error) {
    yield asShimError(error);
    return false;
  }
}
