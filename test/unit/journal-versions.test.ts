import assert from 'node:assert/strict';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isJsonObject, type Format, type JsonObject } from '../../src/base/versions.ts';
import { POD_FORMAT, PodFile, readPods, type PodRecord } from '../../src/containerd/pod-record.ts';
import {
  JOURNAL_FORMAT,
  Journal,
  readJournal,
  refuseLaterJournal,
  type JournalRecord,
} from '../../src/store/journal.ts';
import type { VolumeRecord } from '../../src/volume/record.ts';
import {
  FileCopy,
  earlyFixtures,
  fixtureJson,
  podFixtures,
  sandboxFixtures,
  withLaterMembers,
} from '../support/journal-fixtures.ts';

/** Journals and pods' records of versions that this daemon is not of: earlier ones, and later ones. */

const MIDDLE = 'volume-being-undone.json';

async function read(copy: FileCopy): Promise<JournalRecord> {
  const record = await readJournal(copy.path, copy.log);
  assert.ok(record !== undefined);
  return record;
}

/** What a daemon goes on to write, over and over, after it has read a file. */
class Goer {
  readonly #copy: FileCopy;
  readonly #journal: Journal;
  record: JournalRecord;

  private constructor(copy: FileCopy, record: JournalRecord) {
    this.#copy = copy;
    this.record = record;
    this.#journal = new Journal(copy.path, () => this.record);
    this.#journal.goOn(record);
  }

  static async on(copy: FileCopy): Promise<Goer> {
    return new Goer(copy, await read(copy));
  }

  async written(): Promise<JsonObject> {
    await this.#journal.commit();
    const json = await this.#copy.json();
    assert.ok(isJsonObject(json));
    return json;
  }

  volumes(change: (volume: VolumeRecord) => readonly VolumeRecord[]): void {
    this.record = { ...this.record, volumes: this.record.volumes.flatMap(change) };
  }
}

/** A later member's place, for each object of a list or of a record that has one. */
function laterIn(value: unknown, path: readonly string[]): unknown {
  const found = path.reduce<unknown>((inner, name) => (isJsonObject(inner) ? inner[name] : undefined), value);
  return isJsonObject(found) ? found['later'] : undefined;
}

function volumeIn(journal: JsonObject, volumeId: string): unknown {
  const volumes: unknown = journal['volumes'];
  assert.ok(Array.isArray(volumes));
  return volumes.find((volume) => isJsonObject(volume) && volume['volumeId'] === volumeId);
}

describe('a journal of a later minor version', () => {
  for (const fixture of sandboxFixtures) {
    it(`${fixture}: what is known is read, and what is not is written back, in every object`, async () => {
      const json = await fixtureJson(fixture);
      const later = withLaterMembers(json);
      assert.ok(isJsonObject(later));
      await using copy = await FileCopy.ofJson({ ...later, minor: 7 }, 'state.json');
      const goer = await Goer.on(copy);
      const { kept, ...known } = goer.record;
      await using plain = await FileCopy.ofJson(json, 'state.json');
      assert.deepEqual(known, await read(plain));
      assert.ok(kept !== undefined);
      assert.deepEqual(await goer.written(), later);
      assert.deepEqual(await goer.written(), later, 'and again');
      assert.deepEqual(await readdir(copy.directory), ['state.json'], 'nothing is set aside');
    });
  }

  it('it is logged once, with the names of some of the members', async () => {
    await using copy = await FileCopy.ofJson(withLaterMembers(await fixtureJson(MIDDLE)), 'state.json');
    const goer = await Goer.on(copy);
    await goer.written();
    const [line = '', ...others] = copy.logged;
    assert.deepEqual(others, []);
    const logged: unknown = JSON.parse(line);
    assert.ok(isJsonObject(logged) && Array.isArray(logged['unknown']));
    assert.equal(logged['level'], 'warn');
    assert.equal(logged['path'], copy.path);
    assert.ok(logged['unknown'].includes('sandbox.spec.later') && logged['unknown'].length <= 20);
    assert.ok(Number(logged['count']) > 20);
  });

  it('one that has no more than this version knows is nothing to speak of', async () => {
    const json = await fixtureJson(MIDDLE);
    assert.ok(isJsonObject(json));
    await using copy = await FileCopy.ofJson({ ...json, minor: 7 }, 'state.json');
    const goer = await Goer.on(copy);
    assert.deepEqual([goer.record.kept, copy.logged, await goer.written()], [undefined, [], json]);
  });

  it('a member goes with its object: with its volume, and with a state, cause or port that another came after', async () => {
    const json = await fixtureJson('containers.json');
    const undone = await fixtureJson(MIDDLE);
    assert.ok(isJsonObject(json) && isJsonObject(undone));
    const both = withLaterMembers({ ...json, volumes: undone['volumes'] });
    await using copy = await FileCopy.ofJson(both, 'state.json');
    const goer = await Goer.on(copy);
    const gone = { state: 'removed', cause: { reason: 'VM_GONE', message: 'gone' } } as const;
    goer.volumes((volume) => {
      if (volume.volumeId === 'undone') return [{ ...volume, state: gone }];
      if (volume.volumeId === 'provided') return [{ ...volume, generation: 99 }];
      if (volume.volumeId === 'wrong') return [];
      if (volume.state.state !== 'attached') return [volume];
      const { slot, guest } = volume.state;
      const detaching = { state: 'detaching', slot, guest, force: false, deviceGone: false } as const;
      return [{ ...volume, state: { ...detaching, cause: gone.cause }, times: { ...volume.times, detaching: 7 } }];
    });
    const [port, ...ports] = goer.record.ports;
    assert.ok(port !== undefined);
    goer.record = { ...goer.record, ports };
    const changed = await goer.written();
    const undoneVolume = volumeIn(changed, 'undone');
    assert.deepEqual(laterIn(undoneVolume, []), { in: 'volumes', list: [1, null, { deep: true }] });
    for (const path of [['state'], ['state', 'cause']]) assert.equal(laterIn(undoneVolume, path), undefined);
    assert.equal(laterIn(volumeIn(changed, 'provided'), []), undefined, 'another volume under the same id');
    assert.equal(volumeIn(changed, 'wrong'), undefined);
    const detaching = volumeIn(changed, 'direct');
    assert.equal(laterIn(detaching, ['state']), undefined, 'of the state that was');
    for (const path of [['state', 'guest'], ['state', 'slot'], ['times'], ['spec'], ['spec', 'source']])
      assert.notEqual(laterIn(detaching, path), undefined, path.join('.'));

    // Another port under the number of the one that went, and the first state again: what went does not come back.
    goer.record = { ...goer.record, ports: [...ports, port] };
    goer.volumes((volume) =>
      volume.state.state === 'detaching'
        ? [{ ...volume, state: { ...volume.state, state: 'attached', refused: undefined } }]
        : [volume],
    );
    const after = await goer.written();
    assert.equal(laterIn(volumeIn(after, 'direct'), ['state']), undefined);
    assert.ok(Array.isArray(after['ports']));
    assert.deepEqual(
      after['ports'].map((one: unknown) => laterIn(one, []) !== undefined),
      [...ports.map(() => true), false],
    );
  });

  it('members with the names of what every object has are members like others', async () => {
    const text = JSON.stringify(await fixtureJson(MIDDLE)).replace(
      '"version":1',
      '"version":1,"__proto__":{"a":1},"constructor":2',
    );
    await using copy = await FileCopy.ofJson({}, 'state.json');
    await writeFile(copy.path, text);
    const goer = await Goer.on(copy);
    await goer.written();
    assert.deepEqual(await copy.json(), JSON.parse(text));
  });
});

/** The JSON with another value in one place, `volumes.1.spec.source.kind`. */
function withValue(json: unknown, path: string, value: unknown): unknown {
  const [name = '', ...rest] = path.split('.');
  const inner = rest.join('.');
  if (Array.isArray(json))
    return json.map((element: unknown, index) =>
      String(index) === name ? (inner === '' ? value : withValue(element, inner, value)) : element,
    );
  assert.ok(isJsonObject(json), path);
  return { ...json, [name]: inner === '' ? value : withValue(json[name], inner, value) };
}

const EVERY_KIND = 'volumes-of-every-kind.json';
const RESIZE = { kind: 'resize', sizeBytes: 1 << 20, timeoutMs: 1000 };

it('what came since the fixtures keeps what a later version has added to it', async () => {
  const server = { type: 'inet', host: 'a.example', port: 1 };
  const nbd = { kind: 'nbd', server, exportName: '', reconnectDelayS: 0, tls: null };
  const mount = { fsType: 'ext4', mountPoint: '/m', options: [], format: 'never', partition: 2, fsck: 'full' };
  const json = Object.entries({
    'volumes.0.operation': RESIZE,
    'volumes.1.operation': { kind: 'change-keys', change: 'remove' },
    'volumes.0.spec.source': nbd,
    'volumes.0.spec.mount': mount,
  }).reduce((before, [path, value]) => withValue(before, path, value), await fixtureJson(EVERY_KIND));
  const later = withLaterMembers(json);
  await using copy = await FileCopy.ofJson(later, 'state.json');
  const goer = await Goer.on(copy);
  assert.deepEqual(await goer.written(), later);
  goer.volumes((volume) => [{ ...volume, operation: { kind: 'resize', sizeBytes: 2 << 20, timeoutMs: 1000 } }]);
  const { volumes } = await goer.written();
  assert.ok(Array.isArray(volumes));
  assert.equal(laterIn(volumes[0], ['operation']), undefined, 'another operation');
});

describe('a journal with a value that this version does not know', () => {
  const UNKNOWN: readonly (readonly [string, unknown, string])[] = [
    ['sandbox.state', 'hibernated', 'sandbox.state'],
    ['sandbox.accelerator', 'hvf', 'sandbox.accelerator'],
    ['sandbox.start.kind', 'restored', 'sandbox.start.kind'],
    ['volumes.1.spec.source', { kind: 'rbd', pool: 'p', image: 'i' }, 'volumes.1.spec.source'],
    [
      'volumes.1.spec.source',
      { kind: 'nbd', server: { type: 'vsock', cid: 3 }, exportName: '', reconnectDelayS: 0, tls: null },
      'volumes.1.spec.source',
    ],
    ['volumes.1.spec.cache', 'adaptive', 'volumes.1.spec.cache'],
    ['volumes.1.spec.encryption', { kind: 'sed-opal' }, 'volumes.1.spec.encryption'],
    ['volumes.1.state', { state: 'suspended' }, 'volumes.1.state'],
    ['volumes.1.state.state', 'frozen', 'volumes.1.state'],
    ['volumes.1.operation', { kind: 'mirror', to: 'x' }, 'volumes.1.operation.kind'],
    ['volumes.1.operation', { kind: 'change-keys', change: 'erase' }, 'volumes.1.operation.change'],
    ['ports', [{ nr: 1, kind: 'datagram', ended: false }], 'ports.0.kind'],
  ];
  for (const [path, value, member] of UNKNOWN) {
    it(`${path} ${JSON.stringify(value)}: the file stays as it is, and its directory is not taken`, async () => {
      const later = withValue(await fixtureJson(EVERY_KIND), path, value);
      await using copy = await FileCopy.ofJson(later, 'state.json');
      const refusal = {
        code: 'FAILED_PRECONDITION',
        reason: 'SANDBOX_NOT_ADOPTED',
        metadata: { path: copy.path, member },
      };
      await assert.rejects(readJournal(copy.path, copy.log), refusal);
      await assert.rejects(refuseLaterJournal(copy.path), refusal);
      assert.deepEqual([await copy.json(), await readdir(copy.directory)], [later, ['state.json']]);
    });
  }

  const DAMAGED: readonly (readonly [string, unknown])[] = [
    ['sandbox.state', null],
    ['sandbox.state', 7],
    ['sandbox.start', { templateId: '', reason: '' }],
    ['volumes.1.spec.source', { kind: 'raw-file' }],
    ['volumes.1.spec.source', 'raw-file'],
    ['volumes.1.state', { state: 'attached' }],
    ['volumes.1.operation', { kind: 'resize' }],
    ['volumes.1.operation', {}],
    ['volumes.1.sizeBytes', 'big'],
    ['volumes', 'none'],
  ];
  for (const [path, value] of DAMAGED) {
    it(`${path} ${JSON.stringify(value)} is no such value, but damage: the file is set aside`, async () => {
      await using copy = await FileCopy.ofJson(withValue(await fixtureJson(EVERY_KIND), path, value), 'state.json');
      await refuseLaterJournal(copy.path);
      assert.equal(await readJournal(copy.path, copy.log), undefined);
      assert.match((await readdir(copy.directory)).join(' '), /^state\.json\.corrupt-\d+$/);
    });
  }
});

describe('a journal of a later major version', () => {
  it('stays as it is; neither does a directory with it become that of another sandbox', async () => {
    const later = { version: 2, unlike: ['anything', 'before'] };
    await using copy = await FileCopy.ofJson(later, 'state.json');
    const refusal = {
      code: 'FAILED_PRECONDITION',
      reason: 'SANDBOX_NOT_ADOPTED',
      message: `the journal ${copy.path} has version 2, of a later qshim; this one reads version 1, and leaves it as it is`,
    };
    await assert.rejects(readJournal(copy.path, copy.log), refusal);
    await assert.rejects(refuseLaterJournal(copy.path), refusal);
    assert.deepEqual([await copy.json(), await readdir(copy.directory)], [later, ['state.json']]);
  });

  it('a directory with any other journal, with a broken one or with none may be taken', async () => {
    await using copy = await FileCopy.ofFixture(MIDDLE, 'state.json');
    await refuseLaterJournal(copy.path);
    await writeFile(copy.path, '{"version":2,');
    await refuseLaterJournal(copy.path);
    await refuseLaterJournal(join(copy.directory, 'none'));
  });
});

/** Members that came while there were no minors, by their places, and what they are where they are missing. */
const EARLY_DEFAULTS: Readonly<Record<string, unknown>> = {
  ports: [],
  containers: { eventsPort: 0, processes: [] },
  'sandbox.start': { kind: 'cold', templateId: '', reason: '' },
  'sandbox.spec.iothreads': 0,
  'sandbox.spec.template': 'auto',
  'volumes.placement': { vectors: 2, iothreads: [] },
  'volumes.spec.writeErrors': 'enospc',
  'volumes.spec.readErrors': 'report',
  'volumes.spec.mount': null,
  'volumes.spec.encryption': null,
};
const EARLY_JOURNAL = Object.keys(EARLY_DEFAULTS);
const EARLY_POD: readonly string[] = [
  'begun',
  'containers.stdinClosed',
  'containers.started',
  'containers.execs.stdinClosed',
  'containers.execs.started',
  'containers.execs.ready',
];

const MISSING = Symbol('missing');

/** The members of this name, of every element of lists on the way. */
function membersAt(value: unknown, names: readonly string[]): readonly unknown[] {
  if (Array.isArray(value) && names.length > 0) return value.flatMap((element) => membersAt(element, names));
  const [name, ...rest] = names;
  if (name === undefined) return [value];
  return isJsonObject(value) && Object.hasOwn(value, name) ? membersAt(value[name], rest) : [MISSING];
}

function without(value: unknown, places: readonly string[], path = ''): unknown {
  if (Array.isArray(value)) return value.map((element) => without(element, places, path));
  if (!isJsonObject(value)) return value;
  const members = Object.entries(value).map(
    ([name, member]) => [name, member, path === '' ? name : `${path}.${name}`] as const,
  );
  return Object.fromEntries(
    members.flatMap(([name, member, at]) => (places.includes(at) ? [] : [[name, without(member, places, at)]])),
  );
}

function frozen(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  Object.values(value).forEach(frozen);
  return Object.freeze(value);
}

describe('a journal from before there were minor versions', () => {
  for (const fixture of [...earlyFixtures, 'volumes-of-every-kind.json']) {
    it(`${fixture}: gets the members that it lacks, with what all sandboxes and volumes were like then`, async () => {
      const recorded = await fixtureJson(fixture);
      // The first is as it was recorded; of the one that has everything, all that came later is taken away.
      const json = earlyFixtures.includes(fixture) ? recorded : without(recorded, EARLY_JOURNAL);
      await using copy = await FileCopy.ofJson(json, 'state.json');
      const written = await (await Goer.on(copy)).written();
      assert.deepEqual([await readdir(copy.directory), copy.logged], [['state.json'], []]);
      assert.deepEqual(without(written, EARLY_JOURNAL), without(json, EARLY_JOURNAL));
      for (const [place, missing] of Object.entries(EARLY_DEFAULTS)) {
        const expected = membersAt(json, place.split('.')).map((value) => (value === MISSING ? missing : value));
        assert.deepEqual(membersAt(written, place.split('.')), expected, place);
      }
    });
  }

  it("gets them in a pod's record, too", async () => {
    const json = await fixtureJson('pod-exec-started.json');
    await using copy = await FileCopy.ofJson(without(json, EARLY_POD), 'p.json');
    const [pod] = await readPods(copy.directory, copy.log);
    const [container] = pod?.containers ?? [];
    const [exec] = container?.execs ?? [];
    assert.deepEqual(
      [pod?.begun, container?.stdinClosed, container?.started, exec?.stdinClosed, exec?.started, exec?.ready],
      [false, false, false, false, false, true],
    );
    assert.deepEqual(copy.logged, []);
  });

  const FORMATS: readonly (readonly [string, Format, string, readonly string[]])[] = [
    ['journals', JOURNAL_FORMAT, 'containers.json', EARLY_JOURNAL],
    ["pods' records", POD_FORMAT, 'pod-exec-started.json', EARLY_POD],
  ];
  for (const [kind, { upgrades }, fixture, early] of FORMATS) {
    for (const { to, upgrade } of upgrades) {
      it(`the upgrade of ${kind} to minor ${to} is pure, adds only what is missing, and takes anything`, async () => {
        const json = await fixtureJson(fixture);
        assert.ok(isJsonObject(json));
        const old = frozen(without(json, early));
        assert.ok(isJsonObject(old));
        const once = upgrade(old);
        assert.deepEqual(upgrade(old), once);
        assert.deepEqual(upgrade(once), once);
        assert.deepEqual(upgrade({ ...json, x: 1 }), { ...json, x: 1 });
        for (const strange of [{}, { sandbox: 1, volumes: 'x', containers: null }, { volumes: [1], containers: [[]] }])
          assert.equal(typeof upgrade(strange), 'object');
      });
    }
    it(`minors of ${kind} count up without a gap`, () => {
      assert.deepEqual(
        upgrades.map(({ to }) => to),
        upgrades.map((_, index) => index),
      );
    });
  }
});

describe("pods' records of later versions", () => {
  for (const fixture of podFixtures) {
    it(`${fixture}, of a later minor: what is not known is written back, in every object`, async () => {
      const later = withLaterMembers(await fixtureJson(fixture));
      assert.ok(isJsonObject(later));
      // Under the name that its own file has.
      const name = `${String(later['sandboxId'])}.json`;
      await using copy = await FileCopy.ofJson({ ...later, minor: 3 }, name);
      const [pod] = await readPods(copy.directory, copy.log);
      assert.ok(pod !== undefined);
      assert.deepEqual(
        copy.logged.map((line) => line.includes('are kept')),
        [true],
      );
      await new PodFile(copy.directory, () => pod).commit();
      assert.deepEqual(await copy.json(), later);
      assert.deepEqual(await readdir(copy.directory), [name], 'nothing is set aside');
    });
  }

  it('of a later major: left as it is, named in the log, and not written over', async () => {
    const later = { version: 2, unlike: 'anything' };
    await using copy = await FileCopy.ofJson(later, 'p.json');
    assert.deepEqual(await readPods(copy.directory, copy.log), []);
    assert.deepEqual(
      copy.logged.map((line) => line.includes(copy.path)),
      [true],
    );
    const pod: PodRecord = {
      ...{ version: 1, namespace: 'default', id: 'p', sandboxId: 'p', implicit: false, annotations: {}, labels: {} },
      ...{ createdAtMs: 1, begun: false, updateVolumes: [], containers: [] },
    };
    const file = new PodFile(copy.directory, () => pod);
    await assert.rejects(file.commit(), { code: 'FAILED_PRECONDITION', reason: 'SANDBOX_NOT_ADOPTED' });
    assert.deepEqual([await copy.json(), await readdir(copy.directory)], [later, ['p.json']]);
  });

  it('one that cannot be understood is set aside, and its place is free', async () => {
    await using copy = await FileCopy.ofJson({ version: 1 }, 'p.json');
    assert.deepEqual(await readPods(copy.directory, copy.log), []);
    const [aside = ''] = await readdir(copy.directory);
    assert.match(aside, /^p\.json\.corrupt-\d+$/);
    assert.equal(await readFile(join(copy.directory, aside), 'utf8'), '{"version":1}');
  });
});
