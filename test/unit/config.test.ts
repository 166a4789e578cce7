import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { OPTIONS, configWith, loadConfig, type Config, type ConfigSources } from '../../src/config.ts';
import { configDocument } from '../../scripts/lib/config-document.ts';

interface Given {
  readonly toml?: string;
  readonly environment?: Record<string, string>;
  readonly flags?: ConfigSources['flags'];
}

/** Loads with a TOML file of this text; `FILE` in an expected message stands for its path. */
async function load(given: Given): Promise<Config> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-config-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true }));
  const file = given.toml === undefined ? undefined : join(directory, 'config.toml');
  if (file !== undefined) await writeFile(file, given.toml ?? '');
  return await loadConfig({ file, environment: given.environment ?? {}, flags: given.flags ?? {} });
}

async function refused(given: Given, ...words: readonly (string | RegExp)[]): Promise<void> {
  await assert.rejects(load(given), (error: Error & { code?: string; reason?: string }) => {
    assert.deepEqual([error.code, error.reason], ['INVALID_ARGUMENT', 'INVALID_CONFIG']);
    for (const word of words) {
      const said = typeof word === 'string' ? error.message.includes(word) : word.test(error.message);
      assert.ok(said, `${String(word)} in: ${error.message}`);
    }
    return true;
  });
}

describe('configuration sources', () => {
  it('without any source, the defaults', async () => {
    const config = await load({});
    assert.deepEqual(config, configWith({}));
    for (const option of OPTIONS) assert.deepEqual(config[option.name], option.defaultValue, option.name);
  });

  it('flags win over the environment, the environment over the file', async () => {
    const toml = 'vcpus = 2\nmemory_mib = 256\nlog_level = "warn"';
    const environment = { QSHIM_VCPUS: '3', QSHIM_MEMORY_MIB: '300' };
    const config = await load({ toml, environment, flags: { vcpus: '4' } });
    assert.deepEqual([config.vcpus, config.memory_mib, config.log_level], [4, 300, 'warn']);
  });

  it('numbers, strings and lists from each source', async () => {
    const toml = 'allowed_roots = ["/a", "/b"]\nsocket = "/x/s.sock"';
    assert.deepEqual((await load({ toml })).allowed_roots, ['/a', '/b']);
    assert.deepEqual((await load({ environment: { QSHIM_ALLOWED_ROOTS: '/c,/d' } })).allowed_roots, ['/c', '/d']);
    assert.deepEqual((await load({ flags: { allowed_roots: '/e' } })).allowed_roots, ['/e']);
    assert.equal((await load({ flags: { sandboxes_max: '12' } })).sandboxes_max, 12);
  });

  it('sizes with a unit, from each source; other numbers have none', async () => {
    const toml = 'memory_mib = "1G"\nconsole_bytes_max = "16M"';
    const config = await load({
      toml,
      environment: { QSHIM_NO_SPACE_FREE_BYTES: '1GiB' },
      flags: { template_free_mib: '1.5G' },
    });
    assert.equal(config.memory_mib, 1024);
    assert.equal(config.console_bytes_max, 16 * 1024 * 1024);
    assert.equal(config.no_space_free_bytes, 1024 ** 3);
    assert.equal(config.template_free_mib, 1536);
    await refused({ flags: { memory_mib: '513K' } }, 'memory_mib');
    await refused({ flags: { vcpus: '1K' } }, 'vcpus');
  });

  it('other variables of the environment mean nothing', async () => {
    assert.deepEqual(await load({ environment: { QSHIM_NONSENSE: '1', VCPUS: '7' } }), configWith({}));
  });
});

describe('configuration errors name the option, its value and where it came from', () => {
  it('from the file', async () => {
    await refused({ toml: 'vcpus = "two"' }, 'vcpus = "two"', /from .*config\.toml/);
    await refused({ toml: 'vcpu = 2' }, 'vcpu', 'is not an option', /from .*config\.toml/);
    await refused({ toml: 'allowed_roots = "/a"' }, 'allowed_roots = "/a"');
  });

  it('from the environment', async () => {
    await refused({ environment: { QSHIM_MEMORY_MIB: '1' } }, 'memory_mib = 1', 'QSHIM_MEMORY_MIB');
    await refused({ environment: { QSHIM_LOG_LEVEL: 'loud' } }, 'log_level = "loud"', 'QSHIM_LOG_LEVEL');
    await refused({ environment: { QSHIM_VCPUS: '' } }, 'vcpus = ""', 'QSHIM_VCPUS');
    await refused({ environment: { QSHIM_VCPUS: ' ' } }, 'vcpus', 'QSHIM_VCPUS');
    await refused({ environment: { QSHIM_ALLOWED_ROOTS: '' } }, 'allowed_roots = []', 'QSHIM_ALLOWED_ROOTS');
    await refused({ environment: { QSHIM_ALLOWED_ROOTS: '/a,b' } }, 'allowed_roots', 'must be an absolute path');
  });

  it('from a flag, and of the winning source only', async () => {
    await refused({ toml: 'vcpus = 2', flags: { vcpus: '0' } }, 'vcpus = 0', '--vcpus');
    assert.equal((await load({ toml: 'vcpus = 0', flags: { vcpus: '2' } })).vcpus, 2);
    await refused({ flags: { vcpus: 'many' } }, 'vcpus', '--vcpus');
    await refused({ flags: { vcpus: '1.5' } }, 'vcpus = 1.5', '--vcpus');
  });

  it('every wrong option is named, not only the first', async () => {
    await refused({ flags: { vcpus: '0', socket: 'relative' } }, 'vcpus = 0', 'socket = "relative"', '--socket');
  });

  it('paths that could not work', async () => {
    await refused({ flags: { socket: `/${'x'.repeat(107)}` } }, 'socket', 'has 108 bytes, at most 107 are allowed');
    await refused({ flags: { state_dir: `/${'x'.repeat(60)}` } }, 'state_dir', 'has 61 bytes, at most 60 are allowed');
    await refused({ flags: { templates_dir: `/${'x'.repeat(50)}` } }, 'templates_dir', 'at most 50 are allowed');
    await refused({ flags: { containerd_socket: `/${'x'.repeat(101)}` } }, 'containerd_socket', 'at most 101');
    await refused({ flags: { containerd_address: `/${'x'.repeat(107)}` } }, 'containerd_address', 'at most 107');
    // Bytes, as the kernel counts, and not characters.
    await refused({ flags: { state_dir: `/${'é'.repeat(30)}` } }, 'state_dir', 'has 61 bytes');
    assert.equal((await load({ flags: { state_dir: `/${'x'.repeat(59)}` } })).state_dir.length, 60);
    await refused({ flags: { volume_capacity: '218' } }, 'volume_capacity = 218');
  });

  it('a file that is not there, or is no TOML, is named', async () => {
    await assert.rejects(loadConfig({ file: '/nowhere/q.toml', environment: {}, flags: {} }), {
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_CONFIG',
      message: /\/nowhere\/q\.toml/,
    });
    await refused({ toml: 'vcpus = = 2' }, /config\.toml/);
  });
});

describe('configuration documentation', () => {
  it('docs/config.md is what the table of options says (npm run config-docs)', async () => {
    const written = await readFile(join(import.meta.dirname, '../../docs/config.md'), 'utf8');
    assert.equal(written, configDocument());
  });

  it('every option has a description, and names that follow from its own', () => {
    for (const { name, flag, environment, description } of OPTIONS) {
      assert.match(description, /\S.*\.$/, `${name} is described in a sentence`);
      assert.equal(flag, `--${name.replaceAll('_', '-')}`);
      assert.equal(environment, `QSHIM_${name.toUpperCase()}`);
    }
  });

  it('durations are in milliseconds and say so', () => {
    for (const { name } of OPTIONS) if (/timeout|retry/.test(name)) assert.match(name, /_ms$/);
  });
});
