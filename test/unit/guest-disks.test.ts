import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { findDisk, prepareMount, unmount, type PrepareMountRequest } from '../../src/guest/disks.ts';
import { DiskHolders } from '../../src/guest/holders.ts';
import { lastWords } from '../../src/guest/run-script.ts';
import { agentPair, type AgentPair } from '../support/agent-pair.ts';
import type { Behaviour } from '../support/fake-agent.ts';

const identity = { pci: { domain: 0, bus: 0x1f, slot: 0x1a }, serial: 'v $(x) "1"' };
const wish: PrepareMountRequest = {
  ...identity,
  fsType: 'ext4',
  mountPoint: '/mnt/a b\\c',
  options: ['noatime', 'errors=remount-ro'],
  format: 'if_empty',
  readOnly: true,
  timeoutMs: 5000,
};

const guest = (answer: Behaviour): Promise<AgentPair> => agentPair({ answer });

/** A guest whose every script ends like this; `argv` collects the arguments of the last one. */
function scripted(result: { stdout?: string; stderr?: string; code?: number }, argv: unknown[] = []): Behaviour {
  return (request) => {
    if (request.execute === 'guest-exec') {
      argv.splice(0, argv.length, ...(request.arguments['arg'] as unknown[]));
      return { pid: 5 };
    }
    return {
      exited: true,
      exitcode: result.code ?? 0,
      'out-data': Buffer.from(result.stdout ?? '').toString('base64'),
      'err-data': Buffer.from(result.stderr ?? '').toString('base64'),
    };
  };
}

function refused(code: string, reason: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShimError, String(error));
    assert.deepEqual([error.code, error.reason], [code, reason]);
    assert.match(error.message, message);
    return true;
  };
}

describe('what a program said of its failure', () => {
  const usage = [
    'Usage: mkfs.xfs',
    '/* blocksize */\t[-b size=num]',
    '/* devicename */\t<devicename>',
    '<devicename> is required.',
  ];
  for (const [what, text, expected] of [
    [
      'mkfs.xfs',
      `size 4194304 of data subvolume is too small.\n${usage.join('\n')}\n`,
      'size 4194304 of data subvolume is too small',
    ],
    [
      'busybox',
      `mount: invalid option -- 'q'\nBusyBox v1.35.0 (Debian) multi-call binary.\n\n${usage.join('\n')}`,
      "mount: invalid option -- 'q'",
    ],
    ['usage alone', usage.join('\n'), 'Usage: mkfs.xfs'],
    ['its last lines', 'one\ntwo\n\nthree\nfour.\nfive.\n', 'two; three; four; five'],
    [
      'what fits, from the end',
      `${'x'.repeat(300)}\n${'y'.repeat(200)}\nkernel: why`,
      `${'y'.repeat(200)}; kernel: why`,
    ],
    ['one line that is too long', 'z'.repeat(500), 'z'.repeat(400)],
    ['nothing', '\n', ''],
  ] as const) {
    it(what, () => assert.equal(lastWords(text), expected));
  }
});

describe('prepareMount', () => {
  it('values go as arguments, never into the script', async () => {
    const argv: unknown[] = [];
    await using it = await guest(scripted({ stdout: 'device=/dev/vdb\nformatted=1\nuuid=u-1\n' }, argv));
    assert.deepEqual(await prepareMount(it.agent, wish), { device: '/dev/vdb', formatted: true, uuid: 'u-1' });
    assert.deepEqual(
      [argv[0], ...argv.slice(2)],
      [
        '-c',
        'sh',
        '0000:1f:1a.0',
        identity.serial,
        'ext4',
        '/mnt/a b\\c',
        '/mnt/a\\040b\\134c',
        'ro,noatime,errors=remount-ro',
        'if_empty',
        'never',
        'look',
        '17179869184',
        '3',
        '0',
      ],
    );
  });

  it('no uuid is no uuid', async () => {
    await using it = await guest(scripted({ stdout: 'device=/dev/vdb\nformatted=0\nuuid=\n' }));
    assert.deepEqual(await prepareMount(it.agent, wish), { device: '/dev/vdb', formatted: false });
  });

  it("a refusal has the script's reason and one line of its stderr", async () => {
    await using it = await guest(
      scripted({ stdout: 'device=/dev/vdb\nerror=GUEST_FS_MISMATCH\n', stderr: 'it holds\n  xfs\n', code: 1 }),
    );
    await assert.rejects(
      prepareMount(it.agent, wish),
      refused('FAILED_PRECONDITION', 'GUEST_FS_MISMATCH', /at 0000:1f:1a\.0\): it holds; xfs$/),
    );
  });

  it('a missing tool is UNIMPLEMENTED; a missing shell as well', async () => {
    const tool = { stdout: 'error=GUEST_TOOL_MISSING\n', stderr: 'mkfs.xfs', code: 1 };
    await using it = await guest(scripted(tool));
    await assert.rejects(prepareMount(it.agent, wish), refused('UNIMPLEMENTED', 'GUEST_TOOL_MISSING', /mkfs\.xfs$/));
    await using bare = await guest(() => new Error('No such file or directory'));
    await assert.rejects(prepareMount(bare.agent, wish), refused('UNIMPLEMENTED', 'GUEST_TOOL_MISSING', /\/bin\/sh/));
  });

  for (const [what, result] of [
    ['a bad end without a reason', { stdout: 'device=/dev/vdb\nformatted=1\n', stderr: 'sh: oops', code: 2 }],
    ['a good end without a result', { stdout: 'device=/dev/vdb\n' }],
    ['a reason that nobody knows', { stdout: 'error=ALL_IS_WELL\n', code: 1 }],
  ] as const) {
    it(`${what} is never success`, async () => {
      await using it = await guest(scripted(result));
      await assert.rejects(prepareMount(it.agent, wish), refused('FAILED_PRECONDITION', 'GUEST_MOUNT_FAILED', /./));
    });
  }

  it('what cannot be a mount point, an option or a serial is refused before the guest is asked', async () => {
    await using it = await guest(() => assert.fail('the guest was asked'));
    for (const mountPoint of [
      '',
      'mnt',
      '/',
      '/mnt/',
      '/mnt//a',
      '/mnt/../etc',
      '/mnt/./a',
      '/mnt/a\nb',
      `/${'a'.repeat(5000)}`,
    ]) {
      const refusal = refused('INVALID_ARGUMENT', 'INVALID_MOUNT_POINT', /mountPoint/);
      await assert.rejects(prepareMount(it.agent, { ...wish, mountPoint }), refusal);
    }
    for (const option of ['', 'a,b', 'rw', 'ro', '=x', 'a b', '$(a)']) {
      const refusal = refused('INVALID_ARGUMENT', 'INVALID_MOUNT_OPTION', /options/);
      await assert.rejects(prepareMount(it.agent, { ...wish, options: [option] }), refusal);
    }
    const refusal = refused('INVALID_ARGUMENT', 'INVALID_FIELD', /serial/);
    await assert.rejects(prepareMount(it.agent, { ...wish, serial: '' }), refusal);
  });
});

describe('unmount and holders', () => {
  const request = { ...identity, mountPoint: '/mnt/a', force: false, timeoutMs: 5000 };

  it('gone, busy and no answer', async () => {
    await using gone = await guest(scripted({ stdout: 'device=/dev/vdb\nunmounted=1\n' }));
    assert.deepEqual(await unmount(gone.agent, request), { unmounted: true });
    await using busy = await guest(
      scripted({
        stdout: 'busy=7 fd/3 my db\nbusy=nonsense\nbusy=8 cwd \nleft=/a\\040b\\134c\nleft=/d\nunmounted=0\n',
      }),
    );
    assert.deepEqual(await unmount(busy.agent, request), {
      unmounted: false,
      busy: [
        { pid: 7, command: 'my db', what: 'fd/3' },
        { pid: 8, command: '', what: 'cwd' },
      ],
      mountedAt: ['/a b\\c', '/d'],
    });
    await using mute = await guest(scripted({ stdout: 'device=/dev/vdb\n' }));
    await assert.rejects(
      unmount(mute.agent, request),
      refused('FAILED_PRECONDITION', 'GUEST_UNMOUNT_FAILED', /no result/),
    );
  });

  it('several disks are looked at in one script, each has its own users, and what fails fails for all who asked', async () => {
    const argv: unknown[] = [];
    const stdout = [
      'disk=0000:1f:1a.0 254:0 254:1',
      'missing=0000:1f:1b.0 GUEST_DISK_NOT_FOUND',
      'disk=0000:1f:1c.0 254:16',
      'use=254:1 0 mount:/a\\040b kernel',
      'use=254:0 0 superblock:ext4 kernel',
      'use=254:16 0 superblock:xfs kernel',
      'use=8:0 9 fd/1 not ours',
      'looked=1\n',
    ].join('\n');
    await using it = await guest(scripted({ stdout }, argv));
    const looks = new DiskHolders(it.agent);
    const at = (slot: number) => looks.of({ pci: { domain: 0, bus: 0x1f, slot }, serial: `s${slot}` });
    const answers = await Promise.all([at(0x1a), at(0x1b), at(0x1c)]);
    assert.deepEqual(argv.slice(3), ['0000:1f:1a.0', 's26', '0000:1f:1b.0', 's27', '0000:1f:1c.0', 's28']);
    assert.deepEqual(answers, [
      { there: true, users: [{ pid: 0, command: 'kernel', what: 'mount:/a\\040b' }] },
      { there: false },
      { there: true, users: [{ pid: 0, command: 'kernel', what: 'superblock:xfs' }] },
    ]);
    await assert.rejects(at(0x1d), refused('FAILED_PRECONDITION', 'GUEST_PROBE_FAILED', /no result/));
    await using broken = await guest(scripted({ stdout: 'error=GUEST_PROBE_FAILED\n', stderr: 'blind', code: 1 }));
    const failing = new DiskHolders(broken.agent);
    const both = [failing.of(identity), failing.of({ ...identity, serial: 'other' })];
    for (const each of both) {
      await assert.rejects(each, refused('FAILED_PRECONDITION', 'GUEST_PROBE_FAILED', /blind/));
    }
  });

  it('no more than 64 are named', async () => {
    const stdout = `disk=0000:1f:1a.0 254:0 254:1\n${'use=254:1 7 fd/3 x\n'.repeat(100)}looked=1\n`;
    await using it = await guest(scripted({ stdout }));
    const use = await new DiskHolders(it.agent).of(identity);
    assert.equal(use.there && use.users.length, 64);
  });
});

it('findDisk matches the address, and the serial where the guest knows it', async () => {
  const disk = (name: string, slot: number, more: object = {}, partition = false): object => ({
    name,
    partition,
    address: { 'pci-controller': { domain: 0, bus: 0x1f, slot, function: 0 }, ...more },
  });
  const answer =
    (...disks: object[]): Behaviour =>
    () =>
      disks;
  const expectations: readonly (readonly [Behaviour, string | undefined])[] = [
    [answer(), undefined],
    [answer(disk('/dev/vda', 1), disk('/dev/vdb', 0x1a)), '/dev/vdb'],
    [answer(disk('/dev/vdb1', 0x1a, {}, true)), undefined],
    [answer(disk('/dev/vdb', 0x1a, { serial: identity.serial })), '/dev/vdb'],
    [answer(disk('/dev/vdb', 0x1a, { serial: 'another' })), undefined],
  ];
  for (const [behaviour, expected] of expectations) {
    await using it = await guest(behaviour);
    assert.equal(await findDisk(it.agent, identity), expected);
  }
});
