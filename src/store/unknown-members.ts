import { isJsonObject } from '../base/versions.ts';

/**
 * Members of a journal that this version does not know, and that a later one has written: they are written back with
 * the object that they belong to, as long as there is that object.
 */

/** The journal as it was last read or written, and what this version knows of it. */
export interface Kept {
  readonly json: unknown;
  readonly known: unknown;
}

/**
 * By which members an object in this place is told from another: a new cause is not the old one changed. In places that
 * are not named here an object stays the same object, whatever becomes of its members. Of lists only those named here
 * keep anything.
 */
const IDENTITY: Readonly<Record<string, readonly string[]>> = {
  volumes: ['volumeId', 'generation'],
  ports: ['nr', 'kind'],
  processes: ['token'],
  timings: ['phase'],
  state: ['state', 'phase'],
  cause: ['reason', 'message'],
  refused: ['reason', 'message'],
  process: ['pid', 'startTicks'],
  start: ['kind', 'templateId'],
  exit: ['code', 'atMs'],
  encryption: ['uuid'],
  operation: ['kind', 'sizeBytes', 'change'],
};

/** Paths of the members that are in the JSON and not in what is known of it, such as `volumes.3.spec.mirror`. */
export function unknownMembers(json: unknown, known: unknown): readonly string[] {
  if (Array.isArray(json) && Array.isArray(known)) {
    return json.flatMap((element, index) => within(String(index), unknownMembers(element, known[index])));
  }
  if (!isJsonObject(json) || !isJsonObject(known)) return [];
  return Object.entries(json).flatMap(([name, value]) =>
    Object.hasOwn(known, name) ? within(name, unknownMembers(value, known[name])) : [name],
  );
}

function within(name: string, paths: readonly string[]): readonly string[] {
  return paths.map((path) => `${name}.${path}`);
}

/** What is to be written now, with the unknown members of every object that is still there. */
export function withUnknownMembers({ json, known }: Kept, now: unknown): unknown {
  return overlay('', json, known, now);
}

function overlay(place: string, json: unknown, known: unknown, now: unknown): unknown {
  if (Array.isArray(json) && Array.isArray(known) && Array.isArray(now)) {
    return now.map((element: unknown) => {
      const index = place in IDENTITY ? known.findIndex((before) => isSame(place, before, element)) : -1;
      return index < 0 ? element : overlay(place, json[index], known[index], element);
    });
  }
  if (!isJsonObject(json) || !isJsonObject(known) || !isJsonObject(now)) return now;
  const members = Object.entries(now).map(([name, value]) => [name, overlay(name, json[name], known[name], value)]);
  if (!isSame(place, known, now)) return Object.fromEntries(members);
  const unknown = Object.entries(json).filter(([name]) => !Object.hasOwn(known, name) && !Object.hasOwn(now, name));
  return Object.fromEntries([...members, ...unknown]);
}

function isSame(place: string, before: unknown, now: unknown): boolean {
  if (!isJsonObject(before) || !isJsonObject(now)) return false;
  return (IDENTITY[place] ?? []).every((name) => before[name] === now[name]);
}
