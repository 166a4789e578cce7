/**
 * Who uses which volume of a pod: several containers may share one, and it goes when its last user does (Kata #12689:
 * the first one to end must not take it from the others).
 *
 * INVARIANT: a volume is attached only while it has users, and detached only when it has none; a user that comes while
 * the volume is on its way out waits until it is gone.
 */
export class VolumeUse {
  readonly #users = new Map<string, Set<string>>();
  readonly #leaving = new Map<string, Promise<void>>();

  /** Takes note of a user whose volume is attached already: after a restart. */
  restore(volumeId: string, user: string): void {
    this.#usersOf(volumeId).add(user);
  }

  /**
   * Counts `user`, then attaches; `attach` is the caller's, and idempotent. A failure is not counted, unless the user
   * was counted before, or the volume may come to be attached all the same.
   */
  async acquire<T>(
    volumeId: string,
    user: string,
    attach: () => Promise<T>,
    mayStay: (error: unknown) => boolean = () => false,
  ): Promise<T> {
    for (let leaving = this.#leaving.get(volumeId); leaving !== undefined; leaving = this.#leaving.get(volumeId)) {
      await leaving.catch(() => undefined); // Whoever detaches hears of the failure.
    }
    const counted = this.isUsedBy(volumeId, user);
    this.#usersOf(volumeId).add(user);
    try {
      return await attach();
    } catch (error) {
      if (!counted && !mayStay(error)) this.#drop(volumeId, user);
      throw error;
    }
  }

  isUsedBy(volumeId: string, user: string): boolean {
    return this.#users.get(volumeId)?.has(user) === true;
  }

  /**
   * Gives up one use; the last one detaches. A detach that fails leaves the user counted, so that it can be tried
   * again.
   */
  async release(volumeId: string, user: string, detach: () => Promise<void>): Promise<void> {
    const users = this.#users.get(volumeId);
    if (users?.has(user) !== true) return;
    if (users.size > 1) {
      users.delete(user);
      return;
    }
    const joined = this.#leaving.get(volumeId);
    if (joined !== undefined) {
      await joined;
      return;
    }
    const leaving = detach()
      .then(() => this.#drop(volumeId, user))
      .finally(() => this.#leaving.delete(volumeId));
    this.#leaving.set(volumeId, leaving);
    await leaving;
  }

  #usersOf(volumeId: string): Set<string> {
    const users = this.#users.get(volumeId) ?? new Set<string>();
    this.#users.set(volumeId, users);
    return users;
  }

  #drop(volumeId: string, user: string): void {
    const users = this.#users.get(volumeId);
    users?.delete(user);
    if (users?.size === 0) this.#users.delete(volumeId);
  }
}
