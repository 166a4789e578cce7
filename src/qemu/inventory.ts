import { Coalesced } from '../base/coalesce.ts';
import type { QmpClient } from '../qmp/client.ts';

/** qdev devices that have an id are children of this QOM object. */
export const PERIPHERALS = '/machine/peripheral';
/** Objects that were made by object-add. */
const OBJECTS = '/objects';

/** The lists in which QEMU shows what it has. */
export type InventoryList = 'device' | 'node' | 'object' | 'job' | 'chardev' | 'fdset';

type Names = ReadonlySet<string>;

/**
 * What QEMU lists, looked at now: the proof that something is there, or is gone. Every look begins after it was asked
 * for; looks that are asked for while one is under way share the next one, since the lists are long when there are many
 * volumes.
 */
export class Inventory {
  readonly #link: { ready(): Promise<Pick<QmpClient, 'run'>> };
  readonly #looks: Readonly<Record<InventoryList, Coalesced<Names>>>;

  /**
   * @param link the VM's connection; QEMU works in order, so a look that is sent after a command sees what became of
   *   it
   */
  constructor(link: { ready(): Promise<Pick<QmpClient, 'run'>> }) {
    this.#link = link;
    const look = (list: InventoryList): Coalesced<Names> =>
      new Coalesced(async () => await listed(await this.#link.ready(), list));
    this.#looks = {
      device: look('device'),
      node: look('node'),
      object: look('object'),
      job: look('job'),
      chardev: look('chardev'),
      fdset: look('fdset'),
    };
  }

  /** Names on one list. @throws what the connection throws */
  names(list: InventoryList): Promise<Names> {
    return this.#looks[list].run();
  }

  /** Names on several lists together. @throws what the connection throws */
  async namesOn(lists: Iterable<InventoryList>): Promise<Names> {
    const all = await Promise.all([...new Set(lists)].map((list) => this.names(list)));
    return new Set(all.flatMap((names) => [...names]));
  }
}

/** What one list shows now. */
export async function listed(qmp: Pick<QmpClient, 'run'>, list: InventoryList): Promise<Names> {
  switch (list) {
    case 'device':
      return new Set((await qmp.run('qom-list', { path: PERIPHERALS })).map(({ name }) => name));
    case 'node':
      return new Set((await qmp.run('query-named-block-nodes', { flat: true })).map((node) => node['node-name'] ?? ''));
    case 'object':
      return new Set((await qmp.run('qom-list', { path: OBJECTS })).map(({ name }) => name));
    case 'job':
      return new Set((await qmp.run('query-jobs')).map(({ id }) => id));
    case 'chardev':
      return new Set((await qmp.run('query-chardev')).map(({ label }) => label));
    case 'fdset':
      return new Set((await fdsets(qmp)).map(({ name }) => name));
  }
}

/**
 * The sets of descriptors: each has the name, and what follows it, that `opaque` of add-fd gave it; one without is
 * called by its number.
 */
export async function fdsets(
  qmp: Pick<QmpClient, 'run'>,
): Promise<readonly { readonly number: number; readonly name: string; readonly path: string }[]> {
  return (await qmp.run('query-fdsets')).map(({ 'fdset-id': number, fds }) => {
    const opaque = fds.find((each) => each.opaque !== undefined)?.opaque ?? `fdset-${number}`;
    const blank = opaque.indexOf(' ');
    return blank === -1
      ? { number, name: opaque, path: '' }
      : { number, name: opaque.slice(0, blank), path: opaque.slice(blank + 1) };
  });
}
