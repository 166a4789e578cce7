import { createHash } from 'node:crypto';
import type { RuntimePackage, RuntimeTree } from './lockfile.ts';

/** What the list says of the release itself. */
export interface ReleaseFacts {
  /** The commit that it is made of. */
  readonly commit: string;
  /** SPDX id of qshim's own licence. */
  readonly licence: string;
  /** Of the packed tarball, in hexadecimal. */
  readonly sha256: string;
}

/**
 * The software bill of materials, as CycloneDX 1.6 in JSON (ECMA-424). It tells no time and no place, and its serial
 * number comes from its contents: the same release has the same bytes.
 *
 * It lists npm packages: what is in the package's tarball, and what `npm ci` adds. Not in it are Node.js, QEMU, and the
 * Debian packages of the guest: `npm run guest -- --print` lists those, with their checksums.
 */
export function softwareBill(tree: RuntimeTree, facts: ReleaseFacts): string {
  const references = new Map(tree.packages.map((one) => [one.path, referenceOf(one)]));
  const root = `pkg:npm/${tree.name}@${tree.version}`;
  const needs = (paths: readonly string[]): readonly string[] =>
    [...new Set(paths.map((path) => references.get(path) ?? path))].sort();
  const bill = {
    metadata: {
      component: {
        type: 'application',
        'bom-ref': root,
        name: tree.name,
        version: tree.version,
        hashes: [{ alg: 'SHA-256', content: facts.sha256 }],
        licenses: [{ license: { id: facts.licence } }],
        purl: root,
        properties: [{ name: 'qshim:commit', value: facts.commit }],
      },
    },
    components: tree.packages.map(component),
    dependencies: [
      { ref: root, dependsOn: needs(tree.needs) },
      ...tree.packages.map((one) => ({ ref: referenceOf(one), dependsOn: needs(one.needs) })),
    ],
  };
  const head = { bomFormat: 'CycloneDX', specVersion: '1.6', serialNumber: serialNumber(bill), version: 1 };
  return `${JSON.stringify({ ...head, ...bill }, undefined, 2)}\n`;
}

function component(one: RuntimePackage): object {
  const [scope, name] = one.name.startsWith('@') ? one.name.split('/') : [undefined, one.name];
  return {
    type: 'library',
    'bom-ref': referenceOf(one),
    ...(scope === undefined ? {} : { group: scope }),
    name,
    version: one.version,
    scope: 'required',
    hashes: [hashOf(one)],
    licenses: one.licence === undefined ? [] : [{ license: { id: one.licence } }],
    purl: packageUrl(one),
    properties: [{ name: 'cdx:npm:package:path', value: one.path }],
  };
}

/** A package may lie in two places: the place makes the reference one of a kind. */
function referenceOf(one: RuntimePackage): string {
  return `${packageUrl(one)}#${one.path}`;
}

/** Package URL of type npm: the at sign of a scope is escaped. */
function packageUrl({ name, version }: RuntimePackage): string {
  return `pkg:npm/${name.replace('@', '%40')}@${version}`;
}

function hashOf({ path, integrity }: RuntimePackage): object {
  const base64 = /^sha512-([A-Za-z0-9+/]+=*)$/.exec(integrity)?.[1];
  if (base64 === undefined) throw new Error(`package-lock.json: ${path} has an integrity that is not one sha512`);
  return { alg: 'SHA-512', content: Buffer.from(base64, 'base64').toString('hex') };
}

/** A UUID of version 8 (RFC 9562: of one's own making) from what the list says. */
function serialNumber(bill: object): string {
  const hex = createHash('sha256').update(JSON.stringify(bill)).digest('hex');
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ];
  return `urn:uuid:${parts.join('-')}`;
}
