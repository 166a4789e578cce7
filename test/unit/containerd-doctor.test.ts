import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { examineContainerd, examineContainerdConfig } from '../../src/doctor/containerd-checks.ts';
import type { Finding } from '../../src/doctor/finding.ts';

const options = {
  containerdSocket: '/run/qshim/containerd/shim.sock',
  allowedRoots: ['/var/lib/containerd/io.containerd.snapshotter.v1.blockfile'],
};

const failures = (findings: readonly Finding[]): string[] =>
  findings.filter(({ status }) => status !== 'ok').map(({ check }) => check);

/** The fragment that docs/containerd.md tells people to use. */
async function documented(): Promise<string> {
  const text = await readFile(join(import.meta.dirname, '../../docs/containerd.md'), 'utf8');
  const fragment = text.split('```toml').find((part) => part.includes('proxy_plugins.qshim'));
  return fragment?.split('```')[0]?.replaceAll(/^ {3}/gm, '') ?? '';
}

describe('qshim doctor --containerd', () => {
  it('the documented configuration is found to be right', async () => {
    assert.deepEqual(failures(examineContainerdConfig(await documented(), options)), []);
  });

  it('each thing that is wrong is named', async () => {
    const right = await documented();
    const wrong = (from: string, to: string): string[] => {
      assert.ok(right.includes(from));
      return failures(examineContainerdConfig(right.replace(from, to), options));
    };
    assert.deepEqual(wrong('address = "/run/qshim/containerd/shim.sock"', 'address = "/elsewhere"'), [
      'containerd config',
    ]);
    assert.deepEqual(wrong('sandboxer = "qshim"', 'sandboxer = "podsandbox"'), ['containerd config']);
    assert.deepEqual(wrong('io.containerd.qshim.v2', 'io.containerd.runc.v2'), ['containerd runtime type']);
    assert.deepEqual(wrong('snapshotter = "blockfile"', 'snapshotter = "overlayfs"'), ['containerd snapshotter']);
    assert.deepEqual(failures(examineContainerdConfig(`root = "/data"\n${right}`, options)), ['containerd snapshots']);
    assert.deepEqual(failures(examineContainerdConfig('no toml', options)), ['containerd config']);
  });

  it('without a daemon, a containerd and a runtime binary it says what to do', async () => {
    const place = { configFile: '/nowhere/config.toml', containerdAddress: '/nowhere/cd.sock', path: '/nowhere' };
    const findings = await examineContainerd({ ...options, containerdSocket: '/nowhere/shim.sock', ...place });
    assert.deepEqual(failures(findings), [
      'containerd socket',
      'containerd',
      'containerd runtime',
      'containerd config',
    ]);
    assert.ok(findings.every(({ remedy }) => remedy !== undefined));
    assert.deepEqual(failures(await examineContainerd({ ...options, containerdSocket: '', ...place })), [
      'containerd socket',
    ]);
  });

  it('devmapper is as good: its devices are nowhere in this configuration', async () => {
    const text = (await documented()).replace('snapshotter = "blockfile"', 'snapshotter = "devmapper"');
    assert.deepEqual(failures(examineContainerdConfig(text, { ...options, allowedRoots: ['/dev/mapper'] })), []);
  });
});
