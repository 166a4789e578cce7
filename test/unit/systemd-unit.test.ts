import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';

const PACKAGING = join(import.meta.dirname, '../../packaging');
/** Of `systemd-analyze security` (0 to 100, the lower the better), with room for what later versions weigh anew. */
const EXPOSURE_MAX = 40;

type Settings = ReadonlyMap<string, readonly string[]>;

/** The settings of a file, and all values of each in their order. */
async function settingsOf(name: string): Promise<Settings> {
  const found = new Map<string, string[]>();
  for (const line of (await readFile(join(PACKAGING, name), 'utf8')).split('\n')) {
    if (line === '' || /^[#;[]/.test(line)) continue;
    const [, setting = '', value = ''] = /^([A-Za-z]+)=(.*)$/.exec(line) ?? assert.fail(line);
    found.set(setting, [...(found.get(setting) ?? []), value]);
  }
  return found;
}

function holds(settings: Settings, expected: Readonly<Record<string, readonly string[]>>): void {
  for (const [name, values] of Object.entries(expected)) assert.deepEqual(settings.get(name), values, name);
}

describe('packaging/qshimd.service', () => {
  it('lets VMs outlive the daemon, and the next daemon adopt them', async () => {
    holds(await settingsOf('qshimd.service'), {
      KillMode: ['process'],
      KillSignal: ['SIGTERM'],
      Restart: ['on-failure'],
      Type: ['notify'],
      WatchdogSec: ['60'],
      RuntimeDirectoryPreserve: ['yes'],
      OOMPolicy: ['continue'],
    });
  });

  it('leaves openat2(2), by which the daemon opens volumes', async () => {
    for (const name of ['qshimd.service', 'confined.conf'])
      assert.ok(!(await settingsOf(name)).has('RestrictSUIDSGID'), name);
  });

  it('gives the daemon nothing that it does not need', async () => {
    holds(await settingsOf('qshimd.service'), {
      User: ['qshim'],
      CapabilityBoundingSet: [''],
      NoNewPrivileges: ['yes'],
      ProtectSystem: ['strict'],
      ProtectHome: ['yes'],
      PrivateTmp: ['yes'],
      DevicePolicy: ['closed'],
      ProtectKernelTunables: ['yes'],
      ProtectKernelModules: ['yes'],
      ProtectKernelLogs: ['yes'],
      ProtectControlGroups: ['yes'],
      ProtectHostname: ['yes'],
      ProtectClock: ['yes'],
      RestrictAddressFamilies: ['AF_UNIX AF_INET AF_INET6'],
      RestrictNamespaces: ['yes'],
      RestrictRealtime: ['yes'],
      LockPersonality: ['yes'],
      SystemCallArchitectures: ['native'],
      SystemCallFilter: [
        '@system-service @pkey',
        'seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self',
      ],
      SystemCallErrorNumber: ['EPERM'],
      UMask: ['0077'],
      LimitCORE: ['0'],
      RuntimeDirectoryMode: ['0700'],
      StateDirectoryMode: ['0700'],
      CacheDirectoryMode: ['0700'],
    });
  });

  it('is one that systemd takes, and finds little exposed', async (t) => {
    const version = await execa('systemd-analyze', ['--version'], { reject: false });
    if (version.exitCode !== 0) {
      t.skip('no systemd-analyze on this machine');
      return;
    }
    const directory = await mkdtemp(join(tmpdir(), 'qshim-unit-'));
    try {
      const path = join(directory, 'qshimd.service');
      const text = await readFile(join(PACKAGING, 'qshimd.service'), 'utf8');
      // What it runs is not installed here.
      await writeFile(path, text.replace(/^ExecStart=.*$/m, 'ExecStart=/bin/true'));
      const verified = await execa('systemd-analyze', ['verify', '--man=no', path], { reject: false });
      assert.deepEqual([verified.exitCode, verified.stderr], [0, '']);
      const args = ['security', '--offline=true', `--threshold=${EXPOSURE_MAX}`, '--no-pager', path];
      const rated = await execa('systemd-analyze', args, { reject: false });
      assert.equal(rated.exitCode, 0, rated.stdout.split('\n').at(-1));
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

describe('packaging/confined.conf', () => {
  it('takes the capabilities that confinement needs, and no others', async () => {
    const settings = await settingsOf('confined.conf');
    holds(settings, { User: [''], Group: [''], SupplementaryGroups: [''], Environment: ['QSHIM_CONFINE=full'] });
    const capabilities = (settings.get('CapabilityBoundingSet') ?? []).flatMap((value) => value.split(' '));
    assert.deepEqual(capabilities.sort(), [
      'CAP_CHOWN',
      'CAP_DAC_OVERRIDE',
      'CAP_FOWNER',
      'CAP_KILL',
      'CAP_NET_ADMIN',
      'CAP_SETGID',
      'CAP_SETPCAP',
      'CAP_SETUID',
      'CAP_SYS_ADMIN',
      'CAP_SYS_PTRACE',
    ]);
  });

  it('opens of the other walls only what bubblewrap has to pass', async () => {
    const settings = await settingsOf('confined.conf');
    holds(settings, {
      RestrictNamespaces: ['', 'mnt pid ipc uts net'],
      RestrictAddressFamilies: ['AF_NETLINK'],
      SystemCallFilter: ['@mount sethostname'],
      ProtectHostname: ['no'],
    });
    const opened = ['Environment', 'User', 'Group', 'SupplementaryGroups', 'CapabilityBoundingSet'];
    const walls = ['RestrictNamespaces', 'RestrictAddressFamilies', 'SystemCallFilter'];
    assert.deepEqual([...settings.keys()].sort(), [...opened, ...walls, 'ProtectHostname'].sort());
  });
});
