/**
 * Shares one costly look (or write) between many callers. Each caller gets the result of a run that **began after its
 * call**, so that what it saw or did before is in it; calls that come while a run is under way share the next one.
 */
export class Coalesced<T> {
  readonly #act: () => Promise<T>;
  #running: Promise<T> | undefined;
  #next: Promise<T> | undefined;

  constructor(act: () => Promise<T>) {
    this.#act = act;
  }

  run(): Promise<T> {
    if (this.#running !== undefined) {
      this.#next ??= this.#afterCurrent(this.#running);
      return this.#next;
    }
    const running = this.#act().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #afterCurrent(current: Promise<T>): Promise<T> {
    // How the current run ends is its own callers' business.
    await current.then(
      () => undefined,
      () => undefined,
    );
    this.#next = undefined;
    return await this.run();
  }
}
