import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { PROTO_FILES, generateTypes } from '../../scripts/proto.ts';

const root = join(import.meta.dirname, '../..');

async function filesBelow(directory: string): Promise<Map<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(
    await Promise.all(
      files.map(async (path) => [path.slice(directory.length + 1), await readFile(path, 'utf8')] as const),
    ),
  );
}

describe('generated types', () => {
  it('src/grpc/generated is what proto/ says (npm run proto)', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-proto-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(directory, { recursive: true }));
    await generateTypes(directory);
    const made = await filesBelow(directory);
    const committed = await filesBelow(join(root, 'src/grpc/generated'));
    assert.ok(made.size > 0);
    assert.deepEqual([...committed.keys()].sort(), [...made.keys()].sort());
    for (const [name, text] of made) assert.equal(committed.get(name), text, name);
  });

  it('every .proto of qshim.v1 is generated from', async () => {
    const there = (await readdir(join(root, 'proto/qshim/v1'))).map((name) => `qshim/v1/${name}`);
    assert.deepEqual(PROTO_FILES.filter((path) => path.startsWith('qshim/')).sort(), there.sort());
  });
});
