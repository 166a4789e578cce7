import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { monotonicMs } from '../../src/base/deadline.ts';
import { DiskNames, virtioDiskName } from '../../src/guest/disk-names.ts';
import { agentPair, type AgentPair } from '../support/agent-pair.ts';
import type { FakeRequest } from '../support/fake-agent.ts';

interface Guest extends AgentPair {
  /** Disks that were looked at by name. */
  readonly looked: string[];
}

interface GuestOptions {
  readonly filesRefused?: boolean;
  /** Disks that are listed and have not been read from. */
  readonly unread?: Set<string>;
}

/** Of a disk that was looked through for partitions, and a moment before. */
const READ = '       2        0        8       13        0        0        0        0        0        8       13\n';
const UNREAD = READ.replaceAll(/[1-9]/g, '0');

/** A guest with disks, by name. Their slots count from 1, in the order of the names. */
async function guestWith(names: readonly string[], options: GuestOptions = {}): Promise<Guest> {
  const open = new Map<number, string>();
  const looked: string[] = [];
  const answer = (request: FakeRequest): unknown => {
    const { handle, path } = request.arguments as { handle: number; path: string };
    switch (request.execute) {
      case 'guest-file-open': {
        if (options.filesRefused === true) return new Error('Command guest-file-open has been disabled');
        const [, disk] = /^\/sys\/block\/(\w+)\/stat$/.exec(path) ?? [];
        if (disk !== undefined) {
          open.set(open.size + 1, options.unread?.has(disk) === true ? UNREAD : READ);
          return open.size;
        }
        const index = names.findIndex((name) => path === `/sys/block/${name}/device/../uevent`);
        if (index === -1) return new Error('No such file or directory');
        looked.push(path);
        open.set(open.size + 1, `DRIVER=virtio-pci\nPCI_SLOT_NAME=${addressOf(index + 1)}\n`);
        return open.size;
      }
      case 'guest-file-read':
        return { count: 1, 'buf-b64': Buffer.from(open.get(handle) ?? '').toString('base64'), eof: true };
      case 'guest-get-disks':
        return names.map((name, index) => ({
          name: `/dev/${name}`,
          partition: false,
          address: { 'pci-controller': { domain: 0, bus: 1, slot: index + 1, function: 0 } },
        }));
      default:
        return {};
    }
  };
  return Object.assign(await agentPair({ answer }), { looked });
}

function addressOf(slot: number): string {
  return `0000:01:${slot.toString(16).padStart(2, '0')}.0`;
}

const wanted = (slot: number, taken: readonly string[] = [], sinceMs = monotonicMs()) => ({
  pci: { domain: 0, bus: 1, slot },
  serial: `s${slot}`,
  taken: new Set(taken),
  sinceMs,
});

const count = (it: AgentPair, command: string): number => it.fake.seen.filter((name) => name === command).length;

describe('names of disks', () => {
  it('the lowest name that is not taken is asked for first, and the list not at all', async () => {
    await using it = await guestWith(['vda', 'vdb', 'vdc']);
    assert.equal(await new DiskNames(it.agent).find(wanted(3, ['/dev/vda', '/dev/vdb'])), '/dev/vdc');
    assert.equal(it.looked.length, 1);
    assert.equal(count(it, 'guest-get-disks'), 0);
  });

  it('disks that come up together share the list', async () => {
    const names = Array.from({ length: 16 }, (_, index) => virtioDiskName(index));
    await using it = await guestWith(names);
    const disks = new DiskNames(it.agent);
    const sinceMs = monotonicMs();
    const found = await Promise.all(names.map((_, index) => disks.find(wanted(16 - index, [], sinceMs))));
    assert.deepEqual(
      found,
      names.toReversed().map((name) => `/dev/${name}`),
    );
    assert.equal(it.looked.length, 0, 'none of them is guessed');
    assert.equal(count(it, 'guest-get-disks'), 1, 'one list serves all');
  });

  it('among many disks a few that come together are guessed, one look each', async () => {
    const names = Array.from({ length: 40 }, (_, index) => virtioDiskName(index));
    await using it = await guestWith(names);
    const disks = new DiskNames(it.agent);
    const taken = names.slice(0, 36).map((name) => `/dev/${name}`);
    const sinceMs = monotonicMs();
    const found = await Promise.all([40, 39, 38, 37].map((slot) => disks.find(wanted(slot, taken, sinceMs))));
    assert.deepEqual(
      found,
      names
        .slice(36)
        .map((name) => `/dev/${name}`)
        .reverse(),
    );
    assert.equal(it.looked.length, 4);
    assert.equal(count(it, 'guest-get-disks'), 0);
  });

  it('what was seen before the disk came is not believed', async () => {
    const names = ['vda'];
    await using it = await guestWith(names);
    const disks = new DiskNames(it.agent);
    assert.equal(await disks.find(wanted(1)), '/dev/vda');
    // The disk has left, and another one sits where it sat, under another name.
    names[0] = 'vdc';
    assert.equal(await disks.find(wanted(1)), '/dev/vdc');
  });

  it('a disk with another name is found in the list', async () => {
    await using it = await guestWith(['sda']);
    assert.equal(await new DiskNames(it.agent).find(wanted(1)), '/dev/sda');
  });

  it('an agent that may not read files is asked for the list', async () => {
    await using it = await guestWith(['vda', 'vdb'], { filesRefused: true });
    assert.equal(await new DiskNames(it.agent).find(wanted(2)), '/dev/vdb');
  });

  it('a disk that is not there has no name', async () => {
    await using it = await guestWith(['vda']);
    assert.equal(await new DiskNames(it.agent).find(wanted(7)), undefined);
  });

  it('a disk that is listed and was not read from yet has no name yet', async () => {
    const unread = new Set(['vda', 'sda']);
    for (const name of ['vda', 'sda']) {
      await using it = await guestWith([name], { unread });
      const disks = new DiskNames(it.agent);
      assert.equal(await disks.find(wanted(1)), undefined, name);
      unread.delete(name);
      assert.equal(await disks.find(wanted(1)), `/dev/${name}`);
    }
  });

  it('names go on behind vdz', () => {
    assert.deepEqual([0, 25, 26, 51, 52, 701, 702].map(virtioDiskName), [
      'vda',
      'vdz',
      'vdaa',
      'vdaz',
      'vdba',
      'vdzz',
      'vdaaa',
    ]);
  });
});
