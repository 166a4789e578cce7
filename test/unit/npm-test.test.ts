import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';

const root = join(import.meta.dirname, '../..');

/** `npm test -- ARGS`, without npm and without the marks that tell node:test that it runs inside a test. */
async function npmTest(
  ...args: readonly string[]
): Promise<{ readonly code: number | undefined; readonly said: string }> {
  const { exitCode, all } = await execa(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', 'scripts/test.ts', ...args],
    { cwd: root, all: true, reject: false, env: { NODE_TEST_CONTEXT: undefined } },
  );
  return { code: exitCode, said: all };
}

describe('npm test --', () => {
  it('--files takes a list: a file runs when its path contains one of the texts', async () => {
    const { code, said } = await npmTest(
      '--only',
      'unit',
      '--files',
      'unit/coalesce,unit/ids-and-versions,unit/versions',
    );
    assert.notEqual(code, 0, 'one of the texts is in no path');
    assert.match(said, /no test file's path contains unit\/ids-and-versions/);
    const both = await npmTest('--only', 'unit', '--files', 'unit/coalesce,unit/versions');
    assert.equal(both.code, 0, both.said);
    assert.match(both.said, /, 2 files,/);
  });

  it('a text that no path contains is an error, and nothing runs', async () => {
    const { code, said } = await npmTest('--only', 'unit', '--files', 'no-such-test');
    assert.equal(code, 1);
    assert.match(said, /--files: no test file's path contains no-such-test \(looked in unit\)/);
    assert.doesNotMatch(said, /passed/);
  });

  it('so is a kind that there is not', async () => {
    const { code, said } = await npmTest('--only', 'types,units');
    assert.equal(code, 1);
    assert.match(said, /--only: there is no units among lint, types, unit/);
    assert.doesNotMatch(said, /passed/);
  });
});
