import { monotonicMs } from '../base/deadline.ts';
import { isShimError, ShimError } from '../base/errors.ts';
import type { AuditEntry, AuditLog } from './audit.ts';
import { describeIdentity, type Identity } from './identity.ts';
import { refusedKey, refusedRoot, type Grant, type Labels, type Policy, type Role } from './policy.ts';

/** What a request is about, as far as the policy and the audit log care. */
export interface Target {
  /** Empty or missing: all of them, or none. */
  readonly sandboxId?: string | undefined;
  /** Those that a sandbox is to have, when the request is what makes it. */
  readonly labels?: Labels | undefined;
  readonly volumeIds?: readonly string[];
  /** Paths of the host that the request names, and `nbd:HOST`. */
  readonly sources?: readonly string[];
  /** References of keys, as `file:/etc/keys/a`. */
  readonly keys?: readonly string[];
}

/** What an RPC needs: one row of a table that has all RPCs of a door. */
export interface Access {
  readonly role: Role;
  /** It changes something, or shows a secret: one line of the audit log. */
  readonly audited: boolean;
}

/** A call that may go on. */
export interface Permit {
  readonly grant: Grant;
  /** Whether the caller may read sandboxes of such labels, by the policy of now. */
  sees(labels: Labels): boolean;
  /** Takes down how the call ended; `error` undefined: well. */
  ended(error: unknown): void;
}

/** What a call is, before anything of it is done. */
export interface Asked {
  readonly rpc: string;
  readonly access: Access;
  readonly identity: Identity;
  readonly target: Target;
}

export interface GateOptions {
  readonly policy: { readonly current: Policy };
  readonly audit: Pick<AuditLog, 'ready' | 'write' | 'writeDenial'>;
  /** Of a sandbox that is there. */
  readonly labelsOf: (sandboxId: string) => Labels | undefined;
}

/** The one place where calls are let pass or denied, and taken down. */
export class Gate {
  readonly #options: GateOptions;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /**
   * Lets a call pass.
   * @throws ShimError PERMISSION_DENIED / CALLER_NOT_NAMED, ROLE_MISSING, SANDBOX_NOT_GRANTED, ROOT_NOT_GRANTED,
   *   KEY_NOT_GRANTED; UNAVAILABLE / AUDIT_NOT_WRITTEN
   */
  async admit(asked: Asked): Promise<Permit> {
    const { audit, policy } = this.#options;
    const startedMs = monotonicMs();
    let grant = this.#granted(asked, startedMs);
    if (asked.access.audited) {
      await audit.ready();
      // Another policy may have come while the log was looked at: what is decided now holds when the work begins.
      grant = this.#granted(asked, startedMs);
    }
    return {
      grant,
      sees: (labels) => !(policy.current.grant(asked.identity, 'read', labels, asked.rpc) instanceof ShimError),
      ended: (error) => {
        if (asked.access.audited) audit.write(entryOf(asked, grant.rules, error, startedMs));
      },
    };
  }

  /** What the policy of now says of a call. */
  decide({ rpc, access, identity, target }: Asked): Grant | ShimError {
    const { policy, labelsOf } = this.#options;
    const { sandboxId = '', sources = [], keys = [] } = target;
    const labels = target.labels ?? (sandboxId === '' ? undefined : labelsOf(sandboxId));
    const grant = policy.current.grant(identity, access.role, labels, rpc);
    if (grant instanceof ShimError) return grant;
    for (const source of sources) {
      const refusal = refusedRoot(grant, source);
      if (refusal !== undefined) return refusal;
    }
    for (const key of keys) {
      const refusal = refusedKey(grant, key);
      if (refusal !== undefined) return refusal;
    }
    return grant;
  }

  /** @throws ShimError as admit, and takes that down */
  #granted(asked: Asked, startedMs: number): Grant {
    const decided = this.decide(asked);
    if (!(decided instanceof ShimError)) return decided;
    this.#options.audit.writeDenial(entryOf(asked, [decided.metadata['rule'] ?? ''], decided, startedMs));
    throw decided;
  }
}

function entryOf(asked: Asked, rules: readonly string[], error: unknown, startedMs: number): AuditEntry {
  const { identity, rpc, target } = asked;
  const problem = isShimError(error) ? error : undefined;
  return {
    caller: describeIdentity(identity),
    pid: identity.kind === 'user' ? identity.pid : undefined,
    method: rpc,
    sandboxId: target.sandboxId,
    volumeIds: target.volumeIds ?? [],
    keys: target.keys ?? [],
    sources: target.sources ?? [],
    rules: rules.filter((rule) => rule !== ''),
    outcome: error === undefined ? 'OK' : (problem?.code ?? 'INTERNAL'),
    reason: error === undefined ? '' : (problem?.reason ?? 'UNEXPECTED'),
    durationMs: Math.round(monotonicMs() - startedMs),
  };
}
