import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isRoot, missingCommands } from '../../scripts/lib/packages.ts';
import { PROTO_FILES, ensureProtoc, generateDescriptors, generateTypes } from '../../scripts/proto.ts';

const root = join(import.meta.dirname, '../..');

const DESCRIPTORS = /\.descriptors\.pb$/;

async function filesBelow(directory: string): Promise<Map<string, Buffer>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(
    await Promise.all(files.map(async (path) => [path.slice(directory.length + 1), await readFile(path)] as const)),
  );
}

/** Files of src/grpc/generated are those that `generate` makes, to the byte, as far as their names are `mine`. */
async function assertCurrent(generate: (outDir: string) => Promise<void>, mine: (name: string) => boolean) {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-proto-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true }));
  await generate(directory);
  const made = await filesBelow(directory);
  const committed = await filesBelow(join(root, 'src/grpc/generated'));
  assert.ok(made.size > 0);
  assert.deepEqual([...committed.keys()].filter(mine).sort(), [...made.keys()].sort());
  for (const [name, bytes] of made) assert.ok(committed.get(name)?.equals(bytes), `${name}: npm run proto`);
}

const skip =
  isRoot() || missingCommands(['protoc']).length === 0
    ? false
    : 'protoc is not installed: sudo apt-get install protobuf-compiler libprotobuf-dev';

describe('src/grpc/generated is what proto/ says (npm run proto)', () => {
  it('types', () => assertCurrent(generateTypes, (name) => !DESCRIPTORS.test(name)));

  it('descriptors for reflection', { skip }, async () => {
    await ensureProtoc();
    await assertCurrent(generateDescriptors, (name) => DESCRIPTORS.test(name));
  });

  it('every .proto of qshim.v1 is generated from', async () => {
    const there = (await readdir(join(root, 'proto/qshim/v1'))).map((name) => `qshim/v1/${name}`);
    assert.deepEqual(PROTO_FILES.filter((path) => path.startsWith('qshim/')).sort(), there.sort());
  });
});
