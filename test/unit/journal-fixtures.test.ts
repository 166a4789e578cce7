import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { readPods } from '../../src/containerd/pod-record.ts';
import { EventFile } from '../../src/sandbox/event-file.ts';
import { readJournal, type JournalRecord } from '../../src/sandbox/journal.ts';

/** What daemons of earlier versions wrote (README.md beside it), read by this one: nothing is lost, nothing set aside. */

const FIXTURES = join(import.meta.dirname, '../fixtures/journal-v1');
const names = (await readdir(FIXTURES)).filter((name) => name.endsWith('.json'));
const pods = names.filter((name) => name.startsWith('pod-'));
const sandboxes = names.filter((name) => !name.startsWith('pod-'));

/** A directory with a copy of one fixture, and what was logged about it. */
class Copy implements AsyncDisposable {
  readonly directory: string;
  readonly path: string;
  readonly logged: string[] = [];
  readonly log = createLogger('info', { write: (line: string) => void this.logged.push(line) });

  private constructor(directory: string, name: string) {
    this.directory = directory;
    this.path = join(directory, name);
  }

  static async of(fixture: string, name: string): Promise<Copy> {
    const copy = new Copy(await mkdtemp(join(tmpdir(), 'qshim-fixture-')), name);
    await copyFile(join(FIXTURES, fixture), copy.path);
    return copy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true });
  }
}

/** As it lies in the file. */
async function json(fixture: string): Promise<unknown> {
  return JSON.parse(await readFile(join(FIXTURES, fixture), 'utf8'));
}

/** The journal has null for a member without a value, and the daemon undefined. */
function withoutNulls(value: unknown): unknown {
  if (value === null) return undefined;
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, withoutNulls(member)]));
}

async function readOne(fixture: string): Promise<JournalRecord> {
  await using copy = await Copy.of(fixture, 'state.json');
  const record = await readJournal(copy.path, copy.log);
  assert.deepEqual([await readdir(copy.directory), copy.logged], [['state.json'], []], 'nothing is set aside');
  assert.ok(record !== undefined);
  return record;
}

suite('journals that an earlier version wrote', () => {
  for (const fixture of sandboxes) {
    test(`${fixture}: every member comes back`, async () => {
      assert.deepEqual(await readOne(fixture), withoutNulls(await json(fixture)));
    });
  }

  test('they have every state, every kind of volume and every way to start', async () => {
    const records = await Promise.all(sandboxes.map(readOne));
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

suite("pods' records that an earlier version wrote", () => {
  for (const fixture of pods) {
    test(`${fixture}: every member comes back`, async () => {
      await using copy = await Copy.of(fixture, fixture);
      assert.deepEqual(await readPods(copy.directory, copy.log), [await json(fixture)]);
      assert.deepEqual([await readdir(copy.directory), copy.logged], [[fixture], []], 'nothing is set aside');
    });
  }
});

test('an event stream that an earlier version wrote: every line comes back', async () => {
  await using copy = await Copy.of('events.jsonl', 'events.jsonl');
  const lines = (await readFile(copy.path, 'utf8')).trimEnd().split('\n');
  const { events } = await EventFile.open(copy.path, lines.length, copy.log);
  assert.deepEqual(
    events,
    lines.map((line) => JSON.parse(line) as unknown),
  );
});
