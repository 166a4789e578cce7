import { TokenBucket } from '../base/budget.ts';
import { sleep } from '../base/deadline.ts';
import { messageOf } from '../base/errors.ts';
import { Paced } from '../base/paced.ts';
import type { QmpEvent } from '../qmp/protocol.ts';
import type { VolumeHost } from './host.ts';
import { generationOf } from './model/names.ts';
import { freeBytesFor } from './looks.ts';
import type { Volume } from './volume.ts';

/** Of one VM. QEMU 7.2 sends one for each request that fails, and a guest may ask for a bad sector again and again. */
const NOTED_PER_SECOND_MAX = 1;
const NOTED_AT_ONCE_MAX = 5;

/** I/O errors, as health of the volumes of one VM; and a VM that paused for want of space goes on. */
export class IoErrors {
  readonly #host: VolumeHost;
  /** The newest of each block node that is not noted yet. */
  readonly #waiting = new Map<string, QmpEvent<'BLOCK_IO_ERROR'>>();
  readonly #notes: Paced;
  #waitsForRoom = false;

  constructor(host: VolumeHost) {
    this.#host = host;
    const rate = new TokenBucket(NOTED_PER_SECOND_MAX, NOTED_AT_ONCE_MAX);
    this.#notes = new Paced(rate, host.gone, () => {
      const events = [...this.#waiting.values()];
      this.#waiting.clear();
      for (const each of events) this.#note(each);
    });
  }

  /**
   * Takes note of an I/O error (BLOCK_IO_ERROR): the volume's health changes, watchers are told. When there are many,
   * only of the newest of each volume, once a second.
   */
  failed(event: QmpEvent<'BLOCK_IO_ERROR'>): void {
    this.#waiting.set(event.data['node-name'] ?? event.data.device, event);
    this.#notes.ask();
  }

  #note(event: QmpEvent<'BLOCK_IO_ERROR'>): void {
    const { volumes, log } = this.#host;
    const { device, operation, action, reason, nospace } = event.data;
    const node = event.data['node-name'];
    const generation = generationOf(node ?? '') ?? generationOf(device);
    const volume = volumes.all().find((one) => one.generation === generation);
    log.warn({ volumeId: volume?.id, node, operation, action, reason }, 'block i/o error');
    if (volume === undefined || volume.isRemoved()) return;
    const noSpace = nospace ?? false;
    const error = { operation, message: reason, action, noSpace, timeMs: Date.now() };
    volumes.apply(volume, { kind: 'io-error', error });
    if (action === 'stop' && noSpace) this.resumeWhenThereIsRoom();
  }

  /** The VM runs again: what had failed for want of space has been tried anew. */
  resumed(): void {
    const { volumes } = this.#host;
    for (const volume of volumes.all()) volumes.apply(volume, { kind: 'resumed' });
  }

  /**
   * Lets a VM that paused for want of space go on once there is room on the file systems of all volumes that pause it.
   * There is no event for free space, so it is looked for. A write that fails again pauses the VM again, and this
   * begins anew.
   */
  resumeWhenThereIsRoom(): void {
    if (this.#waitsForRoom) return;
    this.#waitsForRoom = true;
    const work = this.#waitForRoom().finally(() => {
      this.#waitsForRoom = false;
    });
    this.#host.inBackground('resume after no space', work);
  }

  async #waitForRoom(): Promise<void> {
    const { config, link, log, gone } = this.#host;
    for (;;) {
      await sleep(config.no_space_retry_ms, gone);
      try {
        const qmp = await link.ready();
        const { status } = await qmp.run('query-status');
        // Somebody else let it go on, or it is paused for another reason by now.
        if (status !== 'io-error') return;
        if (!(await this.#everyVolumeHasRoom())) continue;
        log.info('room again: the vm goes on');
        await qmp.run('cont');
        return;
      } catch (error) {
        gone.throwIfAborted();
        log.warn({ problem: messageOf(error) }, 'looking for room failed, trying again');
      }
    }
  }

  async #everyVolumeHasRoom(): Promise<boolean> {
    const { volumes, config } = this.#host;
    const open = volumes.all().filter((volume) => !volume.isRemoved() && pausesForSpace(volume));
    const rooms = await Promise.all(open.map(({ resolved }) => freeBytesFor(resolved, config)));
    return rooms.every((free) => free >= config.no_space_free_bytes);
  }
}

function pausesForSpace({ spec }: Volume): boolean {
  return !spec.readOnly && (spec.writeErrors === 'enospc' || spec.writeErrors === 'stop');
}
