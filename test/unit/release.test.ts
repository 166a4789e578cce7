import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { z } from 'zod';
import { buildRelease, type Release } from '../../scripts/release/build.ts';
import { ALLOWED_LICENCES, checkLicences, licenceDocument } from '../../scripts/release/licences.ts';
import { productionLock, runtimeTree, type RuntimePackage } from '../../scripts/release/lockfile.ts';
import { softwareBill } from '../../scripts/release/sbom.ts';

const ROOT = join(import.meta.dirname, '../..');

const lockSchema = z.object({
  packages: z.record(
    z.string(),
    z.object({ version: z.string().optional(), dev: z.boolean().optional(), optional: z.boolean().optional() }),
  ),
});
const billSchema = z.object({
  serialNumber: z.string(),
  metadata: z.object({ component: z.object({ hashes: z.array(z.object({ content: z.string() })) }) }),
  components: z.array(
    z.object({
      'bom-ref': z.string(),
      group: z.string().optional(),
      name: z.string(),
      version: z.string(),
      purl: z.string(),
      hashes: z.array(z.object({ alg: z.literal('SHA-512'), content: z.string().length(128) })),
      licenses: z.array(z.object({ license: z.object({ id: z.string() }) })).length(1),
    }),
  ),
  dependencies: z.array(z.object({ ref: z.string(), dependsOn: z.array(z.string()) })),
});

async function ownLock(): Promise<string> {
  return await readFile(join(ROOT, 'package-lock.json'), 'utf8');
}

/** A folder that goes away, with files by their paths. */
async function folderOf(files: Readonly<Record<string, string>>): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'qshim-release-test-'));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(path, dirname(name)), { recursive: true });
    await writeFile(join(path, name), text);
  }
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

function onePackage(licence: string | undefined): RuntimePackage {
  return { path: 'node_modules/one', name: 'one', version: '1.2.3', licence, integrity: 'sha512-AA==', needs: [] };
}

describe('the production tree of a lock file', () => {
  it("has exactly the packages that npm's own marks leave over", async () => {
    const text = await ownLock();
    const { packages } = lockSchema.parse(JSON.parse(text));
    const marked = Object.entries(packages).filter(([path, { dev }]) => path !== '' && dev !== true);
    const found = new Set(runtimeTree(text).packages.map(({ path }) => path));
    const missing = marked.filter(([path, { optional }]) => optional !== true && !found.has(path));
    assert.deepEqual(missing, []);
    const known = new Set(marked.map(([path]) => path));
    assert.deepEqual(
      [...found].filter((path) => !known.has(path)),
      [],
    );
    assert.ok(found.size > 50);
    assert.ok(found.has('node_modules/zod'), 'which development needs too');
  });

  it('resolves as Node.js does, and leaves out what is for other platforms', () => {
    const lock = {
      name: 'p',
      version: '1.0.0',
      lockfileVersion: 3,
      packages: {
        '': { dependencies: { a: '1' }, devDependencies: { d: '1' } },
        'node_modules/a': {
          version: '1.0.0',
          integrity: 'sha512-AA==',
          dependencies: { b: '2' },
          optionalDependencies: { linux: '1', mac: '1', musl: '1', none: '1' },
          peerDependencies: { maybe: '1' },
          peerDependenciesMeta: { maybe: { optional: true } },
        },
        'node_modules/a/node_modules/b': { version: '2.0.0', integrity: 'sha512-AA==', dependencies: { c: '1' } },
        'node_modules/b': { version: '1.0.0', integrity: 'sha512-AA==' },
        'node_modules/c': { version: '1.0.0', integrity: 'sha512-AA==', dependencies: { a: '1' } },
        'node_modules/d': { version: '1.0.0', integrity: 'sha512-AA==', dev: true },
        'node_modules/linux': { version: '1.0.0', integrity: 'sha512-AA==', os: ['linux'], cpu: ['x64'] },
        'node_modules/mac': { version: '1.0.0', integrity: 'sha512-AA==', os: ['darwin'] },
        'node_modules/musl': { version: '1.0.0', integrity: 'sha512-AA==', libc: ['musl'], os: ['!win32'] },
      },
    };
    const tree = runtimeTree(JSON.stringify(lock));
    const paths = tree.packages.map(({ path }) => path);
    const expected = ['a', 'a/node_modules/b', 'c', 'linux'].map((name) => `node_modules/${name}`);
    assert.deepEqual(paths, expected);
    assert.deepEqual(tree.packages[1]?.name, 'b');
    const production = z
      .object({ packages: z.record(z.string(), z.unknown()) })
      .parse(JSON.parse(productionLock(JSON.stringify(lock))));
    assert.deepEqual(Object.keys(production.packages), ['', ...expected]);
    assert.deepEqual(production.packages[''], { dependencies: { a: '1' } });
    const { 'node_modules/c': _, ...others } = lock.packages;
    assert.throws(() => runtimeTree(JSON.stringify({ ...lock, packages: others })), /b needs c, which is not in it/);
  });
});

describe('the licence check', () => {
  const installed = (licence: string): Readonly<Record<string, string>> => ({
    'node_modules/one/package.json': JSON.stringify({ name: 'one', version: '1.2.3', license: licence }),
    'node_modules/one/LICENSE.md': 'the text\r\nof it\r\n',
    'node_modules/one/NOTICE': 'and a notice',
  });

  it('collects the texts of those that are allowed', async () => {
    await using root = await folderOf(installed('MIT'));
    const licensed = await checkLicences(root.path, [onePackage('MIT')]);
    const text = licenceDocument('p', '1.0.0', licensed);
    assert.match(text, /^one 1\.2\.3 {2}MIT$/m);
    assert.match(text, /--- LICENSE\.md\n\nthe text\nof it\n\n--- NOTICE\n\nand a notice\n$/);
  });

  for (const [licence, problem] of [
    ['GPL-3.0-only', /^ {2}one 1\.2\.3 has the licence GPL-3\.0-only, which is not on the list$/m],
    ['UNLICENSED', /UNLICENSED, which is not on the list/],
    ['SEE LICENSE IN LICENSE.md', /which is not on the list/],
    ['(MIT OR GPL-2.0-only)', /which is not on the list/],
    [undefined, /^ {2}one 1\.2\.3 names no licence$/m],
  ] as const) {
    it(`fails at ${licence ?? 'none'}`, async () => {
      await using root = await folderOf(installed(licence ?? 'MIT'));
      await assert.rejects(checkLicences(root.path, [onePackage(licence)]), problem);
    });
  }

  it('believes neither the lock file nor the package alone', async () => {
    await using other = await folderOf(installed('GPL-3.0-only'));
    await assert.rejects(checkLicences(other.path, [onePackage('MIT')]), /says GPL-3\.0-only itself, and MIT in/);
    await using none = await folderOf({});
    await assert.rejects(checkLicences(none.path, [onePackage('MIT')]), /is not installed: run npm ci/);
    const { 'node_modules/one/LICENSE.md': _1, 'node_modules/one/NOTICE': _2, ...bare } = installed('MIT');
    await using textless = await folderOf(bare);
    await assert.rejects(checkLicences(textless.path, [onePackage('MIT')]), /brings no text of its licence/);
    await using older = await folderOf({
      'node_modules/one/package.json': JSON.stringify({ name: 'one', version: '1.2.2', license: 'MIT' }),
    });
    await assert.rejects(checkLicences(older.path, [onePackage('MIT')]), /is installed as one 1\.2\.2: run npm ci/);
  });

  it("allows nothing of which one must publish one's own source", () => {
    for (const licence of ALLOWED_LICENCES) assert.doesNotMatch(licence, /GPL|MPL|EPL|SSPL|BUSL/);
  });
});

describe('the bill of materials', () => {
  it('tells packages, hashes and what needs what, and the same of the same', async () => {
    const tree = runtimeTree(await ownLock());
    const facts = { commit: 'c'.repeat(40), licence: 'Apache-2.0', sha256: 'f'.repeat(64) };
    const bill = billSchema.parse(JSON.parse(softwareBill(tree, facts)));
    assert.equal(softwareBill(tree, facts), softwareBill(tree, facts));
    assert.match(bill.serialNumber, /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
    const references = bill.components.map((component) => component['bom-ref']);
    assert.equal(new Set(references).size, references.length, 'also of a package that lies in two places');
    assert.deepEqual(bill.dependencies.map(({ ref }) => ref).slice(1), references);
    const known = new Set(references);
    for (const { dependsOn } of bill.dependencies) for (const ref of dependsOn) assert.ok(known.has(ref), ref);
    const grpc = bill.components.find(({ group, name }) => group === '@grpc' && name === 'grpc-js');
    assert.match(grpc?.purl ?? '', /^pkg:npm\/%40grpc\/grpc-js@\d+\.\d+\.\d+$/);
  });
});

describe('npm run release', { concurrency: false }, () => {
  let first: Release;
  let again: Release;
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'qshim-release-test-'));
    first = await buildRelease(ROOT, join(folder, 'first'));
    const umask = process.umask(0o077);
    try {
      again = await buildRelease(ROOT, join(folder, 'again'));
    } finally {
      process.umask(umask);
    }
  });

  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('makes the same bytes twice, whatever the umask', async () => {
    assert.deepEqual(again.files, first.files);
    assert.deepEqual((await readdir(first.directory)).sort(), [...first.files].sort());
    for (const file of first.files) {
      const [one, other] = await Promise.all([first, again].map(({ directory }) => readFile(join(directory, file))));
      assert.ok(one !== undefined && other !== undefined && one.equals(other), file);
    }
  });

  it('sums up each file, and the bill names the tarball by its sum', async () => {
    const sums = await readFile(join(first.directory, 'SHA256SUMS'), 'utf8');
    const listed = new Map(
      sums
        .trim()
        .split('\n')
        .map((line) => line.split('  ').reverse() as [string, string]),
    );
    assert.deepEqual([...listed.keys(), 'SHA256SUMS'], first.files);
    for (const [file, sum] of listed) {
      const bytes = await readFile(join(first.directory, file));
      assert.equal(createHash('sha256').update(bytes).digest('hex'), sum, file);
    }
    const [tarball = '', bill = ''] = first.files;
    const { metadata } = billSchema.parse(JSON.parse(await readFile(join(first.directory, bill), 'utf8')));
    assert.deepEqual(
      metadata.component.hashes.map(({ content }) => content),
      [listed.get(tarball)],
    );
  });

  it('packs the lock file of what it runs with, and all that its code imports', async () => {
    const { stdout } = await execa('tar', ['-tzf', join(first.directory, first.files[0] ?? '')]);
    const packed = new Set(stdout.split('\n').map((name) => name.replace(/^package\//, '')));
    await execa('tar', ['-xzf', join(first.directory, first.files[0] ?? ''), '-C', folder]);
    const unpacked = join(folder, 'package');
    const lock = await readFile(join(unpacked, 'npm-shrinkwrap.json'), 'utf8');
    const { stdout: committed } = await execa('git', ['show', 'HEAD:package-lock.json'], { cwd: ROOT });
    assert.deepEqual(runtimeTree(lock).packages, runtimeTree(committed).packages);
    const manifest = z.looseObject({}).parse(JSON.parse(await readFile(join(unpacked, 'package.json'), 'utf8')));
    for (const member of ['devDependencies', 'scripts', 'overrides']) assert.ok(!(member in manifest), member);
    const missing: string[] = [];
    for (const file of [...packed].filter((name) => name.endsWith('.ts'))) {
      const text = await readFile(join(unpacked, file), 'utf8');
      for (const [, target = ''] of text.matchAll(/(?:from|import\() ?'(\.[^']+)'/g)) {
        const path = relative(unpacked, resolve(unpacked, dirname(file), target));
        if (!packed.has(path)) missing.push(`${file}: ${target}`);
      }
    }
    assert.deepEqual(missing, []);
    for (const file of ['bin/qshimd', 'bin/qshim', 'scripts/guest.ts', 'LICENSE', 'SECURITY.md']) {
      assert.ok(packed.has(file), file);
    }
    assert.deepEqual(
      [...packed].filter((name) => /^(test|node_modules|build|\.github)\b/.test(name)),
      [],
    );
  });
});
