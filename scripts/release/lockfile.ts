import { posix } from 'node:path';
import { z } from 'zod';

/**
 * What a release of qshim consists of besides its own files: the packages that package-lock.json fixes for production.
 * `npm sbom --omit dev` leaves out packages that development needs too; this goes along the dependencies instead.
 */

/** Where qshim runs: Debian on x86_64. Packages for other platforms are never installed. */
const PLATFORM = { os: 'linux', cpu: 'x64', libc: 'glibc' } as const;

const names = z.record(z.string(), z.string()).optional();
const platforms = z.array(z.string()).optional();

const entrySchema = z.object({
  version: z.string().optional(),
  license: z.string().optional(),
  integrity: z.string().optional(),
  dev: z.boolean().optional(),
  os: platforms,
  cpu: platforms,
  libc: platforms,
  dependencies: names,
  optionalDependencies: names,
  peerDependencies: names,
  peerDependenciesMeta: z.record(z.string(), z.object({ optional: z.boolean().optional() })).optional(),
});

const lockSchema = z.object({
  name: z.string(),
  version: z.string(),
  lockfileVersion: z.union([z.literal(2), z.literal(3)]),
  packages: z.record(z.string(), entrySchema),
});

type Entry = z.infer<typeof entrySchema>;

/** One package of the production tree, at one place in node_modules. */
export interface RuntimePackage {
  /** Below the project's root, as in package-lock.json: "node_modules/zod". */
  readonly path: string;
  readonly name: string;
  readonly version: string;
  /** As its package.json says it; undefined when it says nothing. */
  readonly licence: string | undefined;
  /** Subresource integrity, "sha512-" and base64. */
  readonly integrity: string;
  /** `path` of each package that it needs, sorted. */
  readonly needs: readonly string[];
}

export interface RuntimeTree {
  readonly name: string;
  readonly version: string;
  /** `path` of each package that qshim itself needs, sorted. */
  readonly needs: readonly string[];
  /** Sorted by path. */
  readonly packages: readonly RuntimePackage[];
}

/**
 * The production tree of a package-lock.json.
 *
 * @param text the file's text: JSON, lockfileVersion 2 or 3
 * @throws Error when it is none, when a package that is needed is not in it, or has no version or no integrity
 */
export function runtimeTree(text: string): RuntimeTree {
  const lock = lockSchema.parse(JSON.parse(text));
  const found = new Map<string, RuntimePackage>();
  const visit = (path: string): readonly string[] => {
    const entry = lock.packages[path];
    if (entry === undefined) throw new Error(`package-lock.json: no entry ${JSON.stringify(path)}`);
    const needs = neededBy(path, entry, lock.packages);
    for (const need of needs) {
      if (found.has(need)) continue;
      const needed = runtimePackage(need, lock.packages[need]);
      found.set(need, needed);
      found.set(need, { ...needed, needs: visit(need) });
    }
    return needs;
  };
  const needs = visit('');
  const packages = [...found.values()].sort((a, b) => compare(a.path, b.path));
  return { name: lock.name, version: lock.version, needs, packages };
}

/** package-lock.json without what is for development only, as npm-shrinkwrap.json of a release. */
export function productionLock(text: string): string {
  const { packages } = runtimeTree(text);
  const kept = new Set(['', ...packages.map(({ path }) => path)]);
  // Members that this file does not know stay as they are, so the text is taken apart without a schema.
  const lock = z.looseObject({ packages: z.record(z.string(), z.looseObject({})) }).parse(JSON.parse(text));
  const { devDependencies: _, ...root } = lock.packages[''] ?? {};
  const entries = Object.entries({ ...lock.packages, '': root }).filter(([path]) => kept.has(path));
  return `${JSON.stringify({ ...lock, packages: Object.fromEntries(entries) }, undefined, 2)}\n`;
}

/** Orders texts by their code units, whatever the locale. */
export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function runtimePackage(path: string, entry: Entry | undefined): RuntimePackage {
  const { version, license, integrity } = entry ?? {};
  if (version === undefined || integrity === undefined) {
    throw new Error(`package-lock.json: ${path} has no version or no integrity`);
  }
  const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
  return { path, name, version, licence: license, integrity, needs: [] };
}

/** The places of what a package needs, as Node.js resolves them: in its own node_modules, then in those above. */
function neededBy(path: string, entry: Entry, packages: Readonly<Record<string, Entry>>): readonly string[] {
  const optional = new Set(Object.keys(entry.optionalDependencies ?? {}));
  for (const [name, { optional: may }] of Object.entries(entry.peerDependenciesMeta ?? {})) {
    if (may === true) optional.add(name);
  }
  const wanted = new Set([
    ...Object.keys(entry.dependencies ?? {}),
    ...Object.keys(entry.peerDependencies ?? {}),
    ...optional,
  ]);
  const needs: string[] = [];
  for (const name of wanted) {
    const place = placeOf(name, path, packages);
    if (place === undefined) {
      if (optional.has(name)) continue;
      throw new Error(`package-lock.json: ${path === '' ? 'qshim' : path} needs ${name}, which is not in it`);
    }
    const there = packages[place];
    if (there !== undefined && (runsHere(there) || !optional.has(name))) needs.push(place);
  }
  return needs.sort(compare);
}

function placeOf(name: string, path: string, packages: Readonly<Record<string, Entry>>): string | undefined {
  for (let folder = path; ; folder = folder.slice(0, Math.max(folder.lastIndexOf('/node_modules/'), 0))) {
    const place = posix.join(folder, 'node_modules', name);
    if (Object.hasOwn(packages, place)) return place;
    if (folder === '') return undefined;
  }
}

/** Whether npm installs it on qshim's platform: `os`, `cpu` and `libc` list what is meant, or with "!" what is not. */
function runsHere(entry: Entry): boolean {
  return (['os', 'cpu', 'libc'] as const).every((kind) => {
    const listed = entry[kind];
    if (listed === undefined || listed.includes(`!${PLATFORM[kind]}`)) return listed === undefined;
    return listed.includes(PLATFORM[kind]) || listed.every((value) => value.startsWith('!'));
  });
}
