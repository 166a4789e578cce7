import { ShimError } from '../base/errors.ts';

/** What is claimed. */
export interface Claimed {
  /** The same for every name of the same source. */
  readonly identity: string;
  /** For people. */
  readonly described: string;
}

/**
 * Which volume of which sandbox holds which file, over the whole daemon. One writer excludes everybody else; readers
 * share. QEMU's own file locks are the second line, against other processes.
 */
export class BackingClaims {
  readonly #claims = new Map<string, Map<string, { readonly writable: boolean }>>();

  /**
   * @param owner any text that is unique to the holder, fit for an error message
   * @throws ShimError FAILED_PRECONDITION / BACKING_IN_USE that names the other holder
   */
  claim(source: Claimed, owner: string, writable: boolean): void {
    const conflict = this.conflict(source, owner, writable);
    if (conflict !== undefined) throw conflict;
    const holders = this.#claims.get(source.identity) ?? new Map<string, { readonly writable: boolean }>();
    holders.set(owner, { writable });
    this.#claims.set(source.identity, holders);
  }

  /** Why `claim` would fail, if it would. */
  conflict(source: Claimed, owner: string, writable: boolean): ShimError | undefined {
    for (const [holder, claim] of this.#claims.get(source.identity) ?? []) {
      if (holder === owner || !(claim.writable || writable)) continue;
      return new ShimError('FAILED_PRECONDITION', `${source.described} is in use by ${holder}`, {
        reason: 'BACKING_IN_USE',
        metadata: { path: source.described, holder },
      });
    }
    return undefined;
  }

  release(identity: string, owner: string): void {
    const holders = this.#claims.get(identity);
    holders?.delete(owner);
    if (holders?.size === 0) this.#claims.delete(identity);
  }
}
