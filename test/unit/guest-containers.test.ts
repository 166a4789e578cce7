import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { parseExit } from '../../src/guest/containers/exits.ts';
import { parseConfig } from '../../src/guest/containers/oci.ts';
import { planContainer } from '../../src/guest/containers/plan.ts';
import { TokenCut } from '../../src/guest/containers/token.ts';
import { translateConfig } from '../../src/guest/containers/translate.ts';
import { ociConfig } from '../support/container-rig.ts';

suite('the token that ends a stream', () => {
  test('is found however the bytes are cut, and everything before it is passed on', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b') });
    fc.assert(
      fc.property(letters, fc.array(fc.nat(40)), (before, cuts) => {
        const token = 'abbaZ';
        const all = Buffer.from(`${before}${token}dropped`);
        const places = [0, ...cuts.map((cut) => Math.min(cut, all.length)).sort((a, b) => a - b), all.length];
        const cutter = new TokenCut(token);
        let text = '';
        for (const [index, from] of places.entries()) {
          const { bytes, ended } = cutter.take(all.subarray(from, places[index + 1] ?? all.length));
          text += bytes.toString();
          if (ended) break;
        }
        assert.equal(text, before);
      }),
    );
  });

  test('without a token nothing is kept back for ever', () => {
    const cutter = new TokenCut('abc');
    assert.equal(cutter.take(Buffer.from('xxab')).bytes.toString(), 'xx');
    assert.equal(cutter.rest().toString(), 'ab');
  });
});

suite('config.json in the guest’s terms', () => {
  const parts = {
    containerId: 'c',
    rootfs: '/r',
    terminal: false,
    binds: new Map(),
    devices: new Map(),
    hook: undefined,
  };

  test('volumes, files and what the guest makes are told apart; the rest is refused by name', () => {
    const mounts = [
      { destination: '/v', type: 'ext4', source: '/img', options: ['loop', 'rw', 'noatime', 'rprivate'] },
      { destination: '/etc/hosts', type: 'bind', source: '/h', options: ['rbind'] },
      { destination: '/dev/shm', type: 'bind', source: '/host/shm', options: ['rbind'] },
    ];
    const plan = planContainer(ociConfig(['true'], { mounts }));
    assert.deepEqual(plan.volumes, [
      { destination: '/v', source: '/img', fsType: 'ext4', readOnly: false, options: ['noatime'] },
    ]);
    assert.deepEqual(plan.files, [{ destination: '/etc/hosts', source: '/h' }]);
    const nfs = [{ destination: '/n', type: 'nfs', source: 's:/' }];
    assert.throws(() => planContainer(ociConfig(['true'], { mounts: nfs })), /the mount at \/n .type nfs/);
    assert.throws(() => planContainer({ ...ociConfig(['true']), hooks: { prestart: [{}] } }), /hooks\.prestart/);
  });

  test('network and namespaces with a path are dropped, with what needs them; the cgroup is ours', () => {
    const namespaces = [{ type: 'pid' }, { type: 'network' }, { type: 'uts', path: '/proc/1/ns/uts' }];
    const sysctl = { 'net.ipv4.ip_unprivileged_port_start': '0', 'kernel.hostname': 'x', 'vm.overcommit_memory': '1' };
    const config = parseConfig(ociConfig(['true'], { linux: { namespaces, sysctl } }));
    const guest = translateConfig(config, parts) as { hostname?: string; linux: Record<string, unknown> };
    assert.deepEqual(guest.linux['namespaces'], [{ type: 'pid' }]);
    assert.deepEqual(guest.linux['sysctl'], { 'vm.overcommit_memory': '1' });
    assert.equal(guest.linux['cgroupsPath'], '/qshim/c');
    assert.equal(guest.hostname, undefined);
  });
});

test('announcements that are none are passed over', () => {
  const record = { code: 7, uptime: 1.5, oomKilled: false };
  assert.deepEqual(parseExit('exit c/x/e t 7 1.50 0'), { key: 'c/x/e', token: 't', record });
  for (const line of ['', 'exit', 'exit c t', 'exit c t x 1 0', 'hello c t 7 1 0'])
    assert.equal(parseExit(line), undefined);
});
