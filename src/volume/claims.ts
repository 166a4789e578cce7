import { ShimError } from '../base/errors.ts';

/** What is claimed. */
export interface Claimed {
  /** The same for every name of the same source. */
  readonly identity: string;
  /** For people. */
  readonly described: string;
}

/** What failovers have left behind (stale-copies.ts). */
interface StaleSources {
  find(
    source: Claimed,
  ):
    | { readonly currentPath: string; readonly sandboxId: string; readonly volumeId: string; readonly sinceMs: number }
    | undefined;
}

/**
 * What a claim is for. `use`: its bytes are to be read or written, so a stale copy is refused. `overwrite`: all of
 * them are about to be replaced. `held`: QEMU has it open already.
 */
export type ClaimPurpose = 'use' | 'overwrite' | 'held';

/**
 * Which volume of which sandbox holds which file, over the whole daemon. One writer excludes everybody else; readers
 * share. QEMU's own file locks are the second line, against other processes. Copies that a failover has left behind
 * are nobody's (stale-copies.ts).
 */
export class BackingClaims {
  readonly #claims = new Map<string, Map<string, { readonly writable: boolean }>>();
  readonly #stale: StaleSources;

  /** @param stale left out: there are none */
  constructor(stale: StaleSources = { find: () => undefined }) {
    this.#stale = stale;
  }

  /**
   * @param owner any text that is unique to the holder, fit for an error message
   * @throws ShimError FAILED_PRECONDITION / BACKING_IN_USE that names the other holder; SOURCE_STALE_COPY that names
   *   the current one
   */
  claim(source: Claimed, owner: string, writable: boolean, purpose: ClaimPurpose = 'use'): void {
    const conflict = this.conflict(source, owner, writable, purpose);
    if (conflict !== undefined) throw conflict;
    const holders = this.#claims.get(source.identity) ?? new Map<string, { readonly writable: boolean }>();
    holders.set(owner, { writable });
    this.#claims.set(source.identity, holders);
  }

  /** Why `claim` would fail, if it would. */
  conflict(source: Claimed, owner: string, writable: boolean, purpose: ClaimPurpose = 'use'): ShimError | undefined {
    for (const [holder, claim] of this.#claims.get(source.identity) ?? []) {
      if (holder === owner || !(claim.writable || writable)) continue;
      return new ShimError('FAILED_PRECONDITION', `${source.described} is in use by ${holder}`, {
        reason: 'BACKING_IN_USE',
        metadata: { path: source.described, holder },
      });
    }
    return purpose === 'use' ? this.#refusalOfStale(source) : undefined;
  }

  #refusalOfStale(source: Claimed): ShimError | undefined {
    const copy = this.#stale.find(source);
    if (copy === undefined) return undefined;
    const { currentPath, sandboxId, volumeId } = copy;
    const since = new Date(copy.sinceMs).toISOString();
    return new ShimError(
      'FAILED_PRECONDITION',
      `${source.described} is a stale copy: at ${since} volume ${volumeId} of sandbox ${sandboxId} went on at ${currentPath}`,
      {
        reason: 'SOURCE_STALE_COPY',
        metadata: { path: source.described, currentPath, sandboxId, volumeId, since },
      },
    );
  }

  release(identity: string, owner: string): void {
    const holders = this.#claims.get(identity);
    holders?.delete(owner);
    if (holders?.size === 0) this.#claims.delete(identity);
  }
}
