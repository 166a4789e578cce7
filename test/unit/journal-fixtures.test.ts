import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { readPods } from '../../src/containerd/pod-record.ts';
import { EventFile } from '../../src/store/event-file.ts';
import { readJournal, type JournalRecord } from '../../src/store/journal.ts';
import { FileCopy, fixtureJson, podFixtures, sandboxFixtures, withoutNulls } from '../support/journal-fixtures.ts';

/**
 * What daemons of earlier versions wrote (test/fixtures/journal-v1), read by this one: nothing is lost, nothing set
 * aside.
 */

async function readOne(fixture: string): Promise<JournalRecord> {
  await using copy = await FileCopy.ofFixture(fixture, 'state.json');
  const record = await readJournal(copy.path, copy.log);
  assert.deepEqual([await readdir(copy.directory), copy.logged], [['state.json'], []], 'nothing is set aside');
  assert.ok(record !== undefined);
  return record;
}

describe('journals that an earlier version wrote', () => {
  for (const fixture of sandboxFixtures) {
    it(`${fixture}: every member comes back`, async () => {
      assert.deepEqual(await readOne(fixture), withoutNulls(await fixtureJson(fixture)));
    });
  }

  it('they have every state, every kind of volume and every way to start', async () => {
    const records = await Promise.all(sandboxFixtures.map(readOne));
    const volumes = records.flatMap((record) => record.volumes);
    const processes = records.flatMap((record) => record.containers.processes);
    const found = {
      sandboxes: records.map(({ sandbox }) => sandbox.state),
      starts: records.map(({ sandbox }) => sandbox.start.kind),
      volumes: volumes.map(({ state }) => (state.state === 'pending' ? state.phase : state.state)),
      sources: volumes.map(({ spec }) => spec.source.kind),
      encryptions: volumes.map(({ spec }) => spec.encryption?.kind ?? 'none'),
      half: volumes.flatMap(({ state, creating }) => [
        ...('deviceGone' in state && state.deviceGone ? ['device gone'] : []),
        ...('refused' in state && state.refused !== undefined ? ['refused'] : []),
        ...(creating === undefined ? [] : ['creating']),
      ]),
      processes: processes.map(({ state }) => state),
      ports: records.flatMap(({ ports }) => ports.map(({ kind, ended }) => `${kind}${ended ? ', ended' : ''}`)),
    };
    const distinct = Object.entries(found).map(([what, values]) => [what, [...new Set(values)].sort()]);
    assert.deepEqual(Object.fromEntries(distinct), {
      sandboxes: ['creating', 'running', 'stopped', 'stopping'],
      starts: ['clone', 'cold', 'pool'],
      volumes: ['attached', 'attaching', 'detaching', 'removed', 'undoing'],
      sources: ['block-device', 'qcow2-file', 'raw-file'],
      encryptions: ['guest-luks2', 'host-luks', 'none'],
      half: ['creating', 'device gone', 'refused'],
      processes: ['created', 'creating', 'deleting', 'running', 'stopped'],
      ports: ['duplex', 'input', 'input, ended', 'output'],
    });
  });
});

describe("pods' records that an earlier version wrote", () => {
  for (const fixture of podFixtures) {
    it(`${fixture}: every member comes back`, async () => {
      await using copy = await FileCopy.ofFixture(fixture, fixture);
      assert.deepEqual(await readPods(copy.directory, copy.log), [await fixtureJson(fixture)]);
      assert.deepEqual([await readdir(copy.directory), copy.logged], [[fixture], []], 'nothing is set aside');
    });
  }
});

it('an event stream that an earlier version wrote: every line comes back', async () => {
  await using copy = await FileCopy.ofFixture('events.jsonl', 'events.jsonl');
  const lines = (await readFile(copy.path, 'utf8')).trimEnd().split('\n');
  const { events, epoch } = await EventFile.open(copy.path, lines.length, copy.log);
  assert.deepEqual(
    events,
    lines.map((line) => ({ ...(JSON.parse(line) as object), epoch })),
  );
});
