import { copyFile, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '../../src/base/log.ts';
import { isJsonObject } from '../../src/base/versions.ts';

const FIXTURES = join(import.meta.dirname, '../fixtures/journal-v1');
const names = (await readdir(FIXTURES)).filter((name) => name.endsWith('.json'));

/** What daemons of earlier versions wrote; test/fixtures/journal-v1/README.md says how it was recorded. */
export const podFixtures = names.filter((name) => name.startsWith('pod-'));
export const earlyFixtures = names.filter((name) => name.startsWith('early-'));
export const sandboxFixtures = names.filter((name) => !podFixtures.includes(name) && !earlyFixtures.includes(name));

/** A fixture as it lies in its file. */
export async function fixtureJson(name: string): Promise<unknown> {
  return JSON.parse(await readFile(join(FIXTURES, name), 'utf8'));
}

/** A directory with one file of a daemon's, and what was logged about it. */
export class FileCopy implements AsyncDisposable {
  readonly directory: string;
  readonly path: string;
  readonly logged: string[] = [];
  readonly log = createLogger('info', { write: (line: string) => void this.logged.push(line) });

  private constructor(directory: string, name: string) {
    this.directory = directory;
    this.path = join(directory, name);
  }

  /** @param name what the file is called there */
  static async ofFixture(fixture: string, name: string): Promise<FileCopy> {
    const copy = new FileCopy(await mkdtemp(join(tmpdir(), 'qshim-fixture-')), name);
    await copyFile(join(FIXTURES, fixture), copy.path);
    return copy;
  }

  static async ofJson(json: unknown, name: string): Promise<FileCopy> {
    const copy = new FileCopy(await mkdtemp(join(tmpdir(), 'qshim-fixture-')), name);
    await writeFile(copy.path, JSON.stringify(json));
    return copy;
  }

  async json(): Promise<unknown> {
    return JSON.parse(await readFile(this.path, 'utf8'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true });
  }
}

/** The journal has null for a member without a value, and the daemon undefined. */
export function withoutNulls(value: unknown): unknown {
  if (value === null) return undefined;
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, withoutNulls(member)]));
}

/** Maps of strings, to which a later version cannot add a member. */
const MAPS: ReadonlySet<string> = new Set(['labels', 'annotations']);

/** A file as a later version might write it: every object in it has a member more, of a kind that JSON has. */
export function withLaterMembers(value: unknown, place = 'root'): unknown {
  if (Array.isArray(value)) return value.map((element) => withLaterMembers(element, place));
  if (!isJsonObject(value) || MAPS.has(place)) return value;
  const members = Object.entries(value).map(([name, member]) => [name, withLaterMembers(member, name)]);
  return Object.fromEntries([...members, ['later', { in: place, list: [1, null, { deep: true }] }]]);
}
