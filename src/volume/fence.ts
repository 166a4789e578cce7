import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Backoff } from '../base/backoff.ts';
import { Coalesced } from '../base/coalesce.ts';
import { waitFor, type Deadline } from '../base/deadline.ts';
import { ShimError, errnoOf, isShimError, messageOf } from '../base/errors.ts';
import { BoundedMutex } from '../base/mutex.ts';
import { FENCE_DEVICE, hasFenceDevice } from '../qemu/fence-device.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { Fences, VolumeHost } from './host.ts';
import { FENCE_BRIDGE, FENCE_SEATS, qemuAddress, type Asked, type Slot } from './model/slots.ts';
import { askUnplug, goneUntilDue, hasDevice } from './removal.ts';

/** What a fence needs to know of the VM. */
export type FenceHost = Pick<
  VolumeHost,
  'id' | 'log' | 'config' | 'link' | 'inventory' | 'volumes' | 'unplugs' | 'gone' | 'inBackground'
> & { readonly files: { readonly fences: string } };

/** Fences are counted from 1. Seats of fences up to `settled` may be used again. */
const numbersSchema = z.object({ begun: z.int(), passed: z.int(), settled: z.int() }).readonly();
type Numbers = z.infer<typeof numbersSchema>;

const FENCE_ID = /^fence-[0-9]+$/;

/**
 * How it is known that the guest has no request left to let go of a slot that was freed:
 *
 *     slot freed ─▶ device_add, device_del of a device that nobody uses ─▶ the guest ejects it ─▶ once more ─▶ settled
 *
 * Linux works off hot-plug requests in one ordered queue, and before each of them waits for the notifications that it
 * was given until then to be queued (drivers/acpi/osl.c: kacpi_hotplug_wq, acpi_hotplug_work_fn). QEMU makes none for a
 * slot once it is empty. So when the first device is ejected, all that there is for the slot is in the queue, and when
 * the second is, that is done. Volumes that leave serve as such devices for slots that were free before (SlotBook).
 * Others are plugged only when a volume is to have a slot that those have not settled.
 *
 * INVARIANT: the device is in a seat for which the guest has no request left itself, or its going would prove nothing.
 * Seats are used in turn, the number of each fence is on disk before it begins, and it begins when the one before has
 * gone. So two that have passed have settled the seats of all before them.
 */
export class Fence implements Fences {
  readonly #host: FenceHost;
  readonly #runs = new Coalesced(() => {
    const run = this.#pass();
    this.#host.inBackground(
      'fence',
      run.then(() => undefined),
    );
    return run;
  });
  readonly #clearing = new Coalesced(() => this.#clearUntilGone());
  /** One device at a time. Held while the guest thinks: who waits for it waits for the same guest. */
  readonly #seats = new BoundedMutex('the seats of fences', 1);
  #numbers: Numbers | undefined;
  #missing: string | undefined;

  constructor(host: FenceHost) {
    this.#host = host;
  }

  /**
   * Waits until the guest is known to have no request left for this slot. In a VM that an earlier version launched
   * there is no bridge for it, and a QEMU may be built without the device for it: there it says so in the log, and
   * waits for nothing (`qshim doctor` tells of such a QEMU).
   * @param deadline of the attach that is to have the slot
   * @returns whether there was something to wait for
   * @throws ShimError DEADLINE_EXCEEDED / SLOT_NOT_SETTLED; the reason of `host.gone`; what the connection throws
   */
  async untilSettled(slot: Slot, deadline: Deadline): Promise<boolean> {
    const { volumes, gone: signal, id: sandboxId } = this.#host;
    const onTimeout = (): ShimError =>
      new ShimError(
        'DEADLINE_EXCEEDED',
        `the guest has not worked off within ${deadline.totalMs} ms what it was asked to let go of before; a disk that came now might be taken with it`,
        { reason: 'SLOT_NOT_SETTLED', metadata: { sandboxId } },
      );
    if (volumes.isSettled(slot)) return false;
    while (!volumes.isSettled(slot)) {
      const run = this.#runs.run().catch((error: unknown) => {
        // The link makes another connection, and the next fence waits for it.
        if (!isShimError(error) || error.reason !== 'QMP_LOST') throw error;
        return true;
      });
      if (!(await waitFor(run, { milliseconds: deadline.remainingMs, signal, onTimeout }))) return false;
    }
    return true;
  }

  /**
   * Has the guest let go of what is left of a fence: over a connection that broke, of a daemon that was killed, or of a
   * command whose reply did not come. Goes on until a look finds none. However many ask for it, one runs and one
   * waits.
   * @throws the reason of `host.gone` when the VM goes first
   */
  async clearStrays(): Promise<void> {
    await this.#clearing.run();
  }

  async #clearUntilGone(): Promise<void> {
    const { config, gone, inventory, link, log } = this.#host;
    const backoff = new Backoff(config.unplug_retry_ms, config.unplug_retry_max_ms);
    for (;;) {
      try {
        await link.ready();
        using _held = await this.#seats.acquire();
        await this.#clear(await inventory.names('device'));
        return;
      } catch (error) {
        gone.throwIfAborted();
        log.warn({ problem: messageOf(error) }, 'what is left of a fence was not cleared, trying again');
        await backoff.pause(gone);
      }
    }
  }

  /** What was asked of the guest for them is not known, so their going proves nothing. */
  async #clear(devices: ReadonlySet<string>): Promise<void> {
    const strays = [...devices].filter((name) => FENCE_ID.test(name));
    for (const device of strays) await this.#eject(await this.#host.link.ready(), device);
  }

  /** One fence, from its device's coming to its going. False when there cannot be one. */
  async #pass(): Promise<boolean> {
    const { inventory, link, volumes } = this.#host;
    using _held = await this.#seats.acquire();
    const devices = await inventory.names('device');
    if (!devices.has(FENCE_BRIDGE.id)) {
      return this.#cannot('this VM was launched without a bridge for it');
    }
    await this.#clear(devices);
    const { begun: number, passed } = await this.#begin();
    const qmp = await link.ready();
    const asked = await this.#comeAndGo(qmp, number);
    if (asked === undefined) return this.#cannot(`this QEMU has no ${FENCE_DEVICE}`);
    this.#numbers = { begun: number, passed: number, settled: Math.max(0, passed - 1) };
    volumes.passed(asked);
    return true;
  }

  /** The device comes, and goes. Gives what was free when the guest was asked for it; nothing without such a device. */
  async #comeAndGo(qmp: QmpClient, number: number): Promise<Asked | undefined> {
    const id = `fence-${number}`;
    try {
      await qmp.run('device_add', {
        driver: FENCE_DEVICE,
        id,
        bus: FENCE_BRIDGE.id,
        addr: qemuAddress(number % FENCE_SEATS),
      });
    } catch (error) {
      if (!isQmpError(error)) throw this.#unseen(error);
      // Only what is known not to be there is done without; any other refusal says nothing of the slot.
      if (await hasFenceDevice(qmp)) throw this.#refused(error);
      return undefined;
    }
    try {
      const asked = this.#host.volumes.asking();
      await this.#eject(qmp, id);
      return asked;
    } catch (error) {
      throw this.#unseen(error);
    }
  }

  /** Whether the device came, or went, is not known: a command without a reply may still be carried out. */
  #unseen(error: unknown): unknown {
    this.#host.inBackground('fences', this.clearStrays());
    return error;
  }

  #refused(cause: Error): ShimError {
    const message = `QEMU refuses the device by which it is known that the guest has done with a slot: ${cause.message}`;
    const metadata = { sandboxId: this.#host.id };
    return new ShimError('DEADLINE_EXCEEDED', message, { reason: 'SLOT_NOT_SETTLED', metadata, cause });
  }

  /** Says once why slots are given out of which it is not known that they are settled. */
  #cannot(problem: string): false {
    if (this.#missing !== problem) {
      this.#missing = problem;
      this.#host.log.warn({ problem }, 'slots are given out without knowing that the guest has done with them');
    }
    return false;
  }

  /**
   * The next fence, its number on disk.
   * @throws ShimError DEADLINE_EXCEEDED / SLOT_NOT_SETTLED when no seat is left: 30 daemons in a row were killed in one
   */
  async #begin(): Promise<Numbers> {
    const { files, id: sandboxId } = this.#host;
    const before = (this.#numbers ??= await readNumbers(files.fences));
    const numbers = { ...before, begun: before.begun + 1 };
    if (numbers.begun - FENCE_SEATS > before.settled) {
      const unpassed = before.begun - before.passed;
      throw new ShimError('DEADLINE_EXCEEDED', `${unpassed} fences were begun, and none of them has passed`, {
        reason: 'SLOT_NOT_SETTLED',
        metadata: { sandboxId },
      });
    }
    await writeAtomically(files.fences, JSON.stringify(numbers));
    this.#numbers = numbers;
    return numbers;
  }

  /** Has the guest let go of a device. @throws what the connection throws */
  async #eject(qmp: QmpClient, device: string): Promise<void> {
    const { gone, unplugs } = this.#host;
    using deleted = qmp.listen('DEVICE_DELETED', ({ data }) => data.device === device);
    using unplug = unplugs.begin();
    for (;;) {
      gone.throwIfAborted();
      unplug.asking();
      if (!(await askUnplug(qmp, { remove: { command: 'device_del', arguments: { id: device } } }))) return;
      if (await goneUntilDue(this.#host, deleted, device, unplug)) break;
      if (!(await hasDevice(this.#host, device))) break;
    }
    unplug.gone();
  }
}

/** Without the file there was none: VMs that have a bridge for them have the file too. */
async function readNumbers(path: string): Promise<Numbers> {
  try {
    return numbersSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return { begun: 0, passed: 0, settled: 0 };
    throw error;
  }
}
