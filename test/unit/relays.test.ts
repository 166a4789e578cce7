import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { execa } from 'execa';
import { NODE_FLAGS } from '../../src/base/node-flags.ts';

const MAIN = join(import.meta.dirname, '../support/relay-start-main.ts');
const FILES_MAX = 64;

it('a relay that finds no descriptor left is an error of its own volume, and not the end of the process', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-relays-'));
  try {
    const script = `ulimit -n ${FILES_MAX}; exec "$0" "$@"`;
    const args = ['-c', script, process.execPath, ...NODE_FLAGS, MAIN, directory];
    const { stdout } = await execa('sh', args, { stdin: 'ignore' });
    assert.deepEqual(JSON.parse(stdout), ['OUT_OF_DESCRIPTORS', 'started']);
  } finally {
    await rm(directory, { recursive: true });
  }
});
