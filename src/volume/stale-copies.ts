import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Coalesced } from '../base/coalesce.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { upgraded, versionMembers, type Format } from '../base/versions.ts';
import type { Claimed } from './claims.ts';

/**
 * The losers of failovers, fenced for as long as their bytes are old:
 *
 *     a failover ─ add ─▶ stale-copies.json ─▶ BackingClaims refuses them (claims.ts), over daemons and sandboxes
 *     overwritten by a whole copy, or an operator's ReleaseStaleCopy ─ release ─▶ anybody may have them again
 */

const FORMAT: Format = { major: 1, upgrades: [] };

const staleCopySchema = z
  .object({
    /** As claims know it (source/module.ts). */
    identity: z.string(),
    /** The source as QEMU opened it, in one word. */
    path: z.string(),
    /** Where the bytes are that the guest went on with. */
    currentPath: z.string(),
    sandboxId: z.string(),
    volumeId: z.string(),
    generation: z.int(),
    /** Wall-clock milliseconds. */
    sinceMs: z.number(),
  })
  .readonly();

/** A copy of a volume's bytes that has not had the guest's last writes. */
export type StaleCopy = z.infer<typeof staleCopySchema>;

const fileSchema = z.looseObject({ copies: z.array(staleCopySchema) });

/**
 * INVARIANT: nobody is told of a copy that the file lacks: `add` and `release` return once it is written. One that
 * could not be written is fenced in this daemon all the same.
 */
export class StaleCopies {
  readonly #path: string;
  readonly #copies: StaleCopy[];
  readonly #writes = new Coalesced(() => this.#write());

  private constructor(path: string, copies: readonly StaleCopy[]) {
    this.#path = path;
    this.#copies = [...copies];
  }

  /**
   * Reads what earlier daemons wrote.
   * @param path of the file; it need not be there
   * @throws ShimError FAILED_PRECONDITION / STALE_COPIES_UNREADABLE: nobody may attach anything while it is not known
   *   what is old
   */
  static async open(path: string): Promise<StaleCopies> {
    try {
      const { file } = upgraded(JSON.parse(await readFile(path, 'utf8')), FORMAT);
      return new StaleCopies(path, fileSchema.parse(file).copies);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return new StaleCopies(path, []);
      throw new ShimError(
        'FAILED_PRECONDITION',
        `cannot read ${path}, which says which copies of volumes are old: ${messageOf(error)}`,
        { reason: 'STALE_COPIES_UNREADABLE', metadata: { path }, cause: error },
      );
    }
  }

  list(): readonly StaleCopy[] {
    return [...this.#copies];
  }

  /** What is known of a source: by what it is, or by where it is, since a file may have moved or been put back. */
  find({ identity, described }: Claimed): StaleCopy | undefined {
    return this.#copies.find((copy) => copy.identity === identity || copy.path === described);
  }

  /**
   * Fences a copy. The same one again replaces what was known of it.
   * @throws ShimError UNAVAILABLE / JOURNAL_WRITE_FAILED: it is fenced in this daemon, and not in the next one
   */
  async add(copy: StaleCopy): Promise<void> {
    this.#drop(({ identity, path }) => identity === copy.identity || path === copy.path);
    this.#copies.push(copy);
    await this.#writes.run();
  }

  /**
   * Ends the fence of what a source is: its bytes were overwritten by those of a current copy.
   * @throws ShimError UNAVAILABLE / JOURNAL_WRITE_FAILED: the fence stays
   */
  async overwritten({ identity, described }: Claimed): Promise<void> {
    await this.#release(({ identity: other, path }) => other === identity || path === described);
  }

  /**
   * Ends the fence of a path: an operator says that nothing of worth is lost by its use.
   * @throws ShimError NOT_FOUND / STALE_COPY_NOT_FOUND; UNAVAILABLE / JOURNAL_WRITE_FAILED: the fence stays
   */
  async release(path: string): Promise<StaleCopy> {
    const [released] = await this.#release((copy) => copy.path === path);
    if (released !== undefined) return released;
    throw new ShimError('NOT_FOUND', `${path} is no stale copy that qshim knows of`, {
      reason: 'STALE_COPY_NOT_FOUND',
      metadata: { path },
    });
  }

  async #release(isMeant: (copy: StaleCopy) => boolean): Promise<readonly StaleCopy[]> {
    const released = this.#drop(isMeant);
    if (released.length === 0) return [];
    try {
      await this.#writes.run();
      return released;
    } catch (error) {
      this.#copies.push(...released);
      throw error;
    }
  }

  /** @returns what was there */
  #drop(isMeant: (copy: StaleCopy) => boolean): readonly StaleCopy[] {
    const dropped = this.#copies.filter(isMeant);
    for (const copy of dropped) this.#copies.splice(this.#copies.indexOf(copy), 1);
    return dropped;
  }

  async #write(): Promise<void> {
    try {
      await writeAtomically(this.#path, JSON.stringify({ ...versionMembers(FORMAT), copies: this.#copies }));
    } catch (error) {
      throw new ShimError('UNAVAILABLE', `cannot write ${this.#path}: ${messageOf(error)}`, {
        reason: 'JOURNAL_WRITE_FAILED',
        metadata: { path: this.#path, errno: errnoOf(error) ?? '' },
        cause: error,
      });
    }
  }
}
