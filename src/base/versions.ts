/**
 * Versions of what a daemon leaves on disk for the next one, which may be an older one.
 *
 * `version` is the major, `minor` counts within it and is left out while it is 0.
 * - A later minor has members that this daemon may not know. It reads the rest, keeps what it does not know, and
 *   writes its own minor: what it adds lacks the new members, so the later daemon's upgrades must run again.
 * - A value that this daemon does not know (a kind, a state) cannot be read past. The file stays as it is, whatever its
 *   minor: a later daemon can read it (store/unknown-values.ts).
 * - A later major cannot be read at all. That file stays as it is, too.
 * - An earlier minor comes up through the chain of upgrades. Of an earlier major there is none.
 *
 * What a change costs:
 * - a member that may be left out, so that a file without it means what it always meant: nothing
 * - a member that every file must have: a minor, with the upgrade that adds it
 * - a new value of a known member: nothing. Older daemons leave alone the files that have it, and only those
 * - another meaning of a known member or value, or another type: a major
 */

export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * One step of a chain, up to minor version `to`.
 * INVARIANTS: `upgrade` is pure. It adds what is missing and leaves what is there, since the file may have been of this
 * minor before an older daemon wrote it. It takes any JSON: whether the file makes sense is checked at the end of the
 * chain.
 */
export interface Upgrade {
  readonly to: number;
  readonly upgrade: (file: JsonObject) => JsonObject;
}

/**
 * A kind of file: its major, and the chain of upgrades within that, whose last step leads to this daemon's own minor.
 */
export interface Format {
  readonly major: number;
  readonly upgrades: readonly Upgrade[];
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The major of a file that only a later version can read; undefined for any other. */
export function laterMajor(file: unknown, { major }: Format): number | undefined {
  const version = isJsonObject(file) ? file['version'] : undefined;
  return Number.isInteger(version) && Number(version) > major ? Number(version) : undefined;
}

/**
 * Brings a file of this major to this daemon's minor. A file without a minor runs through the whole chain: it is of
 * minor 0, or of before there were any.
 * @throws Error when it says of itself that it is no such file
 */
export function upgraded(file: unknown, format: Format): { readonly file: JsonObject; readonly later: boolean } {
  if (!isJsonObject(file) || file['version'] !== format.major) throw new Error(`not a file of version ${format.major}`);
  const { minor, ...rest } = file;
  if (minor === undefined) return { file: climb(rest, format.upgrades), later: false };
  if (typeof minor !== 'number' || !Number.isInteger(minor) || minor < 0) throw new Error('its minor is no version');
  const missing = format.upgrades.filter(({ to }) => to > minor);
  return { file: climb(rest, missing), later: minor > minorOf(format) };
}

function climb(file: JsonObject, upgrades: readonly Upgrade[]): JsonObject {
  return upgrades.reduce((before, { upgrade }) => upgrade(before), file);
}

/** What this daemon writes of a file's version. */
export function versionMembers(format: Format): JsonObject {
  const minor = minorOf(format);
  return { version: format.major, ...(minor === 0 ? {} : { minor }) };
}

function minorOf({ upgrades }: Format): number {
  return upgrades.at(-1)?.to ?? 0;
}

/** For upgrades: an object with members that it lacked; anything else as it is. */
export function withMissing(value: unknown, members: JsonObject): unknown {
  return isJsonObject(value) ? { ...members, ...value } : value;
}

/** For upgrades: an object with one of its members changed, if it has it; anything else as it is. */
export function withChanged(value: unknown, name: string, change: (member: unknown) => unknown): unknown {
  return isJsonObject(value) && name in value ? { ...value, [name]: change(value[name]) } : value;
}

/** For upgrades: a list with every element changed; anything else as it is. */
export function withEach(value: unknown, change: (element: unknown) => unknown): unknown {
  return Array.isArray(value) ? value.map(change) : value;
}
