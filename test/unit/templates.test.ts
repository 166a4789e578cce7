import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { execa } from 'execa';

const MAIN = join(import.meta.dirname, '../support/template-key-main.ts');
const FILES_MAX = 64;
const KEY = /^[0-9a-f]{64}$/;

it('a template whose key cannot be told for want of descriptors is found once there are some', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-keys-'));
  try {
    const script = `ulimit -n ${FILES_MAX}; exec "$0" --disable-warning=ExperimentalWarning "$@"`;
    const { stdout } = await execa('sh', ['-c', script, process.execPath, MAIN, directory], { stdin: 'ignore' });
    const [first, second] = JSON.parse(stdout) as readonly string[];
    assert.doesNotMatch(first ?? '', KEY);
    assert.match(second ?? '', KEY);
  } finally {
    await rm(directory, { recursive: true });
  }
});
