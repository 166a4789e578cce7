import assert from 'node:assert/strict';
import type { ApiClient } from './daemon.ts';

/** A guest that writes a pattern to a disk all the while, block after block, and what the disk has to hold then. */

const BLOCK_BYTES = 4096;
/** Coprime to the number of blocks, so that neighbours are not written one after the other. */
const STRIDE = 37;

export class CheckedWrites {
  readonly #client: ApiClient;
  readonly #sandboxId: string;
  readonly #name: string;
  readonly #blocks: number;

  private constructor(client: ApiClient, sandboxId: string, name: string, blocks: number) {
    this.#client = client;
    this.#sandboxId = sandboxId;
    this.#name = name;
    this.#blocks = blocks;
  }

  /**
   * Begins to write past the guest's page cache.
   * @param blocks of 4 KiB, from the beginning of the disk; no multiple of 37
   */
  static async begin(
    client: ApiClient,
    sandboxId: string,
    device: string,
    { name, blocks }: { readonly name: string; readonly blocks: number },
  ): Promise<CheckedWrites> {
    const loop = `n=0; while [ ! -e /tmp/${name}.stop ]; do
      printf '%08d' $n | dd of=${device} bs=${BLOCK_BYTES} seek=$(( n * ${STRIDE} % ${blocks} )) conv=sync,notrunc oflag=direct \
        2>/tmp/${name}.said || cat /tmp/${name}.said >> /tmp/${name}.errors
      n=$((n+1)); echo $n > /tmp/${name}.count; done; touch /tmp/${name}.ended`;
    await client.guest(sandboxId, `( ${loop} ) >/dev/null 2>&1 &`);
    return new CheckedWrites(client, sandboxId, name, blocks);
  }

  /** Writes so far. */
  async count(): Promise<number> {
    return Number(await this.#client.guest(this.#sandboxId, `cat /tmp/${this.#name}.count 2>/dev/null || echo 0`));
  }

  /** Ends it. @returns how many blocks were written; throws when one of them was an error to the guest */
  async end(): Promise<number> {
    const name = this.#name;
    await this.#client.guest(
      this.#sandboxId,
      `touch /tmp/${name}.stop; until [ -e /tmp/${name}.ended ]; do usleep 20000; done`,
    );
    const errors = await this.#client.guest(this.#sandboxId, `cat /tmp/${name}.errors 2>/dev/null || true`);
    assert.equal(errors, '', 'the guest saw errors');
    return await this.count();
  }

  /** What the disk has to hold of it. */
  check(bytes: Buffer, count: number): void {
    const last = new Map<number, number>();
    for (let n = Math.max(0, count - this.#blocks); n < count; n += 1) last.set((n * STRIDE) % this.#blocks, n);
    for (const [block, n] of last) {
      const at = block * BLOCK_BYTES;
      assert.equal(bytes.toString('latin1', at, at + 8), String(n).padStart(8, '0'), `block ${block}`);
    }
  }
}
