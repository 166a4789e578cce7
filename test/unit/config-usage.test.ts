import assert from 'node:assert/strict';
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { OPTIONS } from '../../src/config.ts';

const source = join(import.meta.dirname, '../../src');

/** The text of all code but the table of options itself. */
async function code(): Promise<string> {
  const texts: string[] = [];
  for await (const file of glob('**/*.ts', { cwd: source })) {
    if (file === 'config.ts' || file.startsWith('grpc/generated/')) continue;
    texts.push(await readFile(join(source, file), 'utf8'));
  }
  return texts.join('\n');
}

describe('every option is there for something', () => {
  it('each is read somewhere: a bound that nobody looks at bounds nothing', async () => {
    const text = await code();
    const unused = OPTIONS.filter(
      ({ name }) => !new RegExp(`\\b[cC]onfig(\\(\\))?\\.${name}\\b|\\b${name}\\b.*= .*config`).test(text),
    ).map(({ name }) => name);
    assert.deepEqual(unused, []);
  });

  it('each bound says its unit or what it counts', () => {
    const bounds = OPTIONS.filter(({ defaultValue }) => typeof defaultValue === 'number').map(({ name }) => name);
    const unclear = bounds.filter((name) => !/_(max|ms|mib|bytes|retained)$/.test(name));
    assert.deepEqual(unclear, ['vcpus', 'volume_capacity', 'iothreads', 'pool_size']);
  });
});
