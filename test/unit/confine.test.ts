import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import fc from 'fast-check';
import { silentLogger } from '../../src/base/log.ts';
import { cgroupFiles, groupName, mountOfCgroup2 } from '../../src/confine/cgroup.ts';
import { findGroups, removeGroup, removeLeftGroup } from '../../src/confine/groups.ts';
import { SYSTEMD } from '../../src/confine/scope.ts';
import { cellArguments, parentsOf, type CellCommand } from '../../src/confine/command.ts';
import { UNCONFINED, cellFactsSchema, type CellFacts } from '../../src/confine/facts.ts';
import { lackingCapabilities, lookAtWalls } from '../../src/confine/host.ts';
import { isBelow, parseLdd, singleFiles, withoutCovered, type QemuLayout } from '../../src/confine/layout.ts';
import { confinementOf } from '../../src/confine/running.ts';
import { exitOfQemu } from '../../src/confine/start.ts';
import { Uids, parseUidRange, uidsOfProcesses } from '../../src/confine/uids.ts';
import { confinementFinding } from '../../src/doctor/confine-checks.ts';
import { cellsFor } from '../support/cells.ts';

const LAYOUT: QemuLayout = {
  program: '/usr/bin/qemu',
  directories: ['/usr/lib/x86_64-linux-gnu', '/usr/share/qemu'],
  files: [
    { path: '/usr/bin/qemu', source: '/usr/bin/qemu' },
    { path: '/usr/bin/setpriv', source: '/usr/bin/setpriv' },
    { path: '/usr/lib64/ld.so', source: '/usr/lib/x86_64-linux-gnu/ld.so' },
  ],
  links: [{ path: '/lib', target: 'usr/lib' }],
};

const COMMAND: CellCommand = {
  layout: LAYOUT,
  uid: 1_900_000_001,
  groups: [],
  directory: '/run/s/one',
  readable: ['/boot/vmlinuz', '/usr/share/qemu/bios.bin'],
  copied: [{ descriptor: 3, path: '/boot/initrd' }],
  devices: ['/dev/null'],
  preload: '/usr/lib/x86_64-linux-gnu/libtcmalloc.so',
  landlock: false,
  tied: false,
  infoDescriptor: 4,
  args: ['-name', 'one'],
};

it('a host that could not be tried for want of descriptors is not taken for one without walls', async () => {
  const main = join(import.meta.dirname, '../support/walls-main.ts');
  const script = 'ulimit -n 128; exec "$0" --disable-warning=ExperimentalWarning "$@"';
  // Any program will do for one that tells its version.
  const args = ['-c', script, process.execPath, main, '/usr/bin/env'];
  const { stdout } = await execa('sh', args, { stdin: 'ignore' });
  const { all, few, again } = JSON.parse(stdout) as Readonly<Record<'few' | 'again', string[]> & { all: string }>;
  assert.equal(few[0], 'CONFINEMENT_NOT_TRIED');
  for (const outcome of few) assert.ok([all, 'CONFINEMENT_NOT_TRIED'].includes(outcome), outcome);
  for (const outcome of again) assert.equal(outcome, all);
});

describe('the command of a cell', () => {
  it('bwrap with namespaces and a read-only root, then setpriv, then QEMU', () => {
    assert.deepEqual(cellArguments(COMMAND), [
      ...['--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-net', '--as-pid-1'],
      ...['--hostname', 'qemu', '--clearenv', '--setenv', 'LD_PRELOAD', '/usr/lib/x86_64-linux-gnu/libtcmalloc.so'],
      ...['--info-fd', '4'],
      ...['/boot', '/dev', '/proc', '/proc/self', '/run', '/run/s'].flatMap((path) => ['--dir', path]),
      ...['/usr', '/usr/bin', '/usr/lib', '/usr/lib64', '/usr/share'].flatMap((path) => ['--dir', path]),
      ...['--symlink', 'usr/lib', '/lib'],
      ...LAYOUT.directories.flatMap((path) => ['--ro-bind', path, path]),
      ...LAYOUT.files.flatMap(({ path, source }) => ['--ro-bind', source, path]),
      ...['--ro-bind', '/boot/vmlinuz', '/boot/vmlinuz'],
      ...['--perms', '0444', '--ro-bind-data', '3', '/boot/initrd'],
      ...['--dev-bind', '/dev/null', '/dev/null'],
      ...['--ro-bind', '/proc/self/fd', '/proc/self/fd'],
      ...['--bind', '/run/s/one', '/run/s/one'],
      ...['--chdir', '/run/s/one', '--remount-ro', '/', '--'],
      ...['/usr/bin/setpriv', '--reuid', '1900000001', '--regid', '1900000001', '--clear-groups'],
      ...['--bounding-set=-all', '--inh-caps=-all', '--ambient-caps=-all', '--no-new-privs', '--'],
      ...['/usr/bin/qemu', '-name', 'one'],
    ]);
  });

  it('a group for a device, a wait for the control group, an end with the daemon', () => {
    const args = cellArguments({ ...COMMAND, groups: [104], blockDescriptor: 5, tied: true }).join(' ');
    assert.match(args, / --block-fd 5 /);
    assert.match(args, / --groups 104 /);
    assert.doesNotMatch(args, /--clear-groups/);
    assert.match(args, / --pdeathsig KILL -- \/usr\/bin\/qemu /);
  });

  it('Landlock, where setpriv has it: writes below the directory and to devices, and nowhere else', () => {
    const args = cellArguments({ ...COMMAND, landlock: true });
    const at = args.indexOf('--landlock-access');
    assert.ok(at > args.indexOf('/usr/bin/setpriv', args.indexOf('--remount-ro')));
    assert.match(args[at + 1] ?? '', /^fs:write-file,remove-dir,/);
    assert.deepEqual(
      args.filter((word) => word.startsWith('path-beneath:')),
      ['path-beneath:write-file,make-reg,make-sock,remove-file:/run/s/one', 'path-beneath:write-file:/dev/null'],
    );
  });

  it('without users of its own: a user namespace, no capability, no setpriv', () => {
    const args = cellArguments({ ...COMMAND, uid: undefined });
    assert.ok(args.join(' ').includes('--unshare-user --cap-drop ALL'));
    assert.ok(!args.includes('--reuid'));
    assert.equal(args[args.indexOf('--', args.indexOf('--remount-ro')) + 1], '/usr/bin/qemu');
  });

  it('never waits for a death of its starter, nor binds what nobody named', () => {
    const args = cellArguments(COMMAND);
    assert.ok(!args.includes('--die-with-parent'));
    const bound = args.flatMap((word, index) => (/^--(ro-|dev-)?bind$/.test(word) ? [args[index + 1]] : []));
    for (const path of ['/', '/etc', '/proc', '/sys', '/run', '/dev', '/home', '/usr']) {
      assert.ok(!bound.includes(path), path);
    }
  });

  it('parents come first, each once, and not inside of what the host gives', () => {
    const path = fc
      .array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 5 })
      .map((parts) => `/${parts.join('/')}`);
    fc.assert(
      fc.property(fc.array(path), fc.array(path), (paths, given) => {
        const parents = parentsOf(paths, given);
        assert.equal(new Set(parents).size, parents.length);
        for (const [index, parent] of parents.entries()) {
          assert.ok(!isBelow(parent, given) && !given.includes(parent));
          assert.ok(parents.every((other, place) => !other.startsWith(`${parent}/`) || place > index));
        }
      }),
    );
  });
});

describe('what QEMU needs to see', () => {
  it('libraries and loader, from ldd', () => {
    const text = `
        linux-vdso.so.1 (0x00007f)
        libpixman-1.so.0 => /lib/x86_64-linux-gnu/libpixman-1.so.0 (0x00007f)
        libz.so.1 => /opt/my libs/libz.so.1 (0x00007f)
        libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)
        /lib64/ld-linux-x86-64.so.2 (0x00007f)`;
    assert.deepEqual(parseLdd(text), {
      directories: ['/lib/x86_64-linux-gnu'],
      loader: '/lib64/ld-linux-x86-64.so.2',
    });
    assert.throws(() => parseLdd('\tnot a dynamic executable'), /names no dynamic loader/);
  });

  it('files that do not come with a directory, and what a link inside of one leads out to', async () => {
    const root = await realpath(await mkdtemp(join(tmpdir(), 'qshim-layout-')));
    try {
      const [lib, out] = [join(root, 'lib'), join(root, 'out')];
      await mkdir(lib);
      for (const path of [out, join(lib, 'a.so.1')]) await writeFile(path, '');
      await symlink('a.so.1', join(lib, 'a.so'));
      await symlink(out, join(lib, 'b.so'));
      await symlink(out, join(root, 'link'));
      const paths = ['lib/a.so', 'lib/a.so.1', 'lib/b.so', 'link', 'out'].map((name) => join(root, name));
      assert.deepEqual(await singleFiles(paths, [lib]), [
        { path: out, source: out },
        { path: join(root, 'link'), source: out },
        { path: out, source: out },
      ]);
    } finally {
      await rm(root, { recursive: true });
    }
  });

  it('a directory inside of another is not bound twice', () => {
    assert.deepEqual(withoutCovered(['/a/b', '/a', '/ab']), ['/a', '/ab']);
  });
});

describe('user ids', () => {
  it('no two are out at once, whatever is taken and freed, and a freed one comes late', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.array(fc.boolean(), { maxLength: 60 }), (size, steps) => {
        const uids = new Uids({ first: 5000, last: 5000 + size - 1 });
        const out: number[] = [];
        for (const takes of steps) {
          if (!takes) {
            const uid = out.shift();
            if (uid !== undefined) uids.free(uid);
          } else if (out.length < size) {
            const uid = uids.take();
            assert.ok(!out.includes(uid) && uid >= 5000 && uid < 5000 + size);
            out.push(uid);
          } else assert.throws(() => uids.take(), { code: 'RESOURCE_EXHAUSTED', reason: 'CONFINE_UIDS_IN_USE' });
        }
      }),
    );
    const uids = new Uids({ first: 1, last: 3 }, [], 0);
    const first = uids.take();
    uids.free(first);
    assert.notEqual(uids.take(), first);
  });

  it('those of processes that live, and of adopted sandboxes, are given to nobody', () => {
    const uids = new Uids(parseUidRange('7000-7003'), [7001]);
    uids.hold(7003);
    assert.deepEqual([uids.take(), uids.take()].sort(), [7000, 7002]);
    assert.throws(() => uids.take());
  });

  it('processes are found by any of their ids', async () => {
    const own = process.getuid?.() ?? 0;
    assert.deepEqual([...(await uidsOfProcesses({ first: own, last: own }))], [own]);
    assert.deepEqual([...(await uidsOfProcesses({ first: 1_899_999_000, last: 1_899_999_001 }))], []);
  });
});

describe('control groups', () => {
  const systemd = { ...SYSTEMD, booted: '/nonexistent' };
  const files = cgroupFiles(
    { memoryMib: 512, vcpus: 2, iothreads: 1, kvm: true },
    { overheadMib: 256, io: ['8:0 rbps=1', '8:16 wiops=2'] },
  );

  it('limits follow from the machine', () => {
    assert.deepEqual(files, [
      ['memory.max', '805306368'],
      ['pids.max', '164'],
      ['cpu.max', '400000 100000'],
      ['io.max', '8:0 rbps=1'],
      ['io.max', '8:16 wiops=2'],
    ]);
  });

  it('without KVM there is memory for all the code that QEMU keeps translated', () => {
    const limits = { memoryMib: 512, vcpus: 2, iothreads: 1, kvm: false };
    const [memory] = cgroupFiles(limits, { overheadMib: 256, io: [] });
    assert.deepEqual(memory, ['memory.max', String((512 + 256 + 1024) * 1_048_576)]);
  });

  it('on a tree that was made up: controllers on, limits written, removed at the end', async () => {
    const root = await mkdtemp(join(tmpdir(), 'qshim-cgroup-'));
    try {
      await writeFile(join(root, 'cgroup.controllers'), 'cpuset cpu io memory pids\n');
      await writeFile(join(root, 'cgroup.subtree_control'), 'memory\n');
      await mkdir(join(root, 'qshim'));
      await writeFile(join(root, 'qshim/cgroup.subtree_control'), '');
      const mountinfo = `21 1 0:20 / /proc rw - proc proc rw\n30 1 0:26 / ${root} rw,nosuid shared:4 - cgroup2 cgroup2 rw`;
      const cgroups = await findGroups({ mountinfo, systemd });
      assert.equal(await readFile(join(root, 'cgroup.subtree_control'), 'utf8'), '+cpu +io +pids');
      const group = cgroups.directoryOf('one-0123');
      await cgroups.make(group, files);
      assert.equal(group, join(root, 'qshim/one-0123'));
      assert.equal(await readFile(join(group, 'memory.max'), 'utf8'), '805306368');
      // A kernel would not let a process in that has ended, nor forget the first line of io.max.
      await assert.rejects(cgroups.enter(group, files, 1), /io.max has "8:16 wiops=2", and not "8:0 rbps=1"/);
      await cgroups.enter(group, files.slice(0, 3), 1);
      assert.equal(await readFile(join(group, 'cgroup.procs'), 'utf8'), '1');
      for (const name of await readdir(group)) await rm(join(group, name));
      await removeGroup(group);
      await removeGroup(group);
      await assert.rejects(readdir(group), { code: 'ENOENT' });
    } finally {
      await rm(root, { recursive: true });
    }
  });

  it('none without namespaces: QEMU would not be put into it', async () => {
    const root = await mkdtemp(join(tmpdir(), 'qshim-cgroup-'));
    try {
      await writeFile(join(root, 'cgroup.controllers'), 'cpu io memory pids\n');
      await writeFile(join(root, 'cgroup.subtree_control'), 'cpu io memory pids\n');
      await mkdir(join(root, 'qshim'));
      await writeFile(join(root, 'qshim/cgroup.subtree_control'), 'cpu io memory pids\n');
      const mountinfo = `30 1 0:26 / ${root} rw - cgroup2 cgroup2 rw`;
      const options = { qemuBinary: '/nonexistent/qemu', allocator: 'system', uid: 1_900_000_000, mountinfo };
      const { layout, groups, missing } = await lookAtWalls(options);
      assert.deepEqual([layout, groups], [undefined, undefined]);
      assert.equal(missing.find(({ part }) => part === 'cgroup')?.why, 'it comes with the namespaces');
    } finally {
      await rm(root, { recursive: true });
    }
  });

  it('of an earlier daemon are removed by the directory of their QEMU, those of others stay', async () => {
    const root = await mkdtemp(join(tmpdir(), 'qshim-cgroup-'));
    try {
      const mountinfo = `30 1 0:26 / ${root} rw - cgroup2 cgroup2 rw`;
      const [ours, others] = ['/run/a/pool+01', '/run/b/pool+01'];
      for (const directory of [ours, others])
        await mkdir(join(root, 'qshim', groupName(directory)), { recursive: true });
      await removeLeftGroup(ours, silentLogger(), mountinfo);
      await removeLeftGroup(ours, silentLogger(), mountinfo);
      assert.deepEqual(await readdir(join(root, 'qshim')), [groupName(others)]);
    } finally {
      await rm(root, { recursive: true });
    }
  });

  it('a hybrid host says which controllers it lacks', async () => {
    const root = await mkdtemp(join(tmpdir(), 'qshim-cgroup-'));
    try {
      await writeFile(join(root, 'cgroup.controllers'), 'io\n');
      await assert.rejects(
        findGroups({ mountinfo: `1 1 0:1 / ${root} rw - cgroup2 c rw` }),
        /no controller cpu, memory, pids/,
      );
      await assert.rejects(findGroups({ mountinfo: '1 1 0:1 / / rw - ext4 /dev/a rw' }), /no cgroup2 is mounted/);
    } finally {
      await rm(root, { recursive: true });
    }
    assert.equal(mountOfCgroup2(''), undefined);
  });
});

describe('qshim doctor', () => {
  it('says which wall is missing, why, and what to do; only full cannot do without', () => {
    assert.deepEqual(confinementFinding('degraded', []), {
      check: 'confinement',
      status: 'ok',
      detail: 'confine = degraded; this host has namespaces, uid, cgroup, landlock',
    });
    const missing = [{ part: 'cgroup', why: 'no cgroup2 is mounted' }] as const;
    const { status, detail, remedy } = confinementFinding('degraded', missing);
    assert.equal(status, 'warning');
    assert.match(detail, /this host has namespaces, uid, landlock; missing: cgroup \(no cgroup2 is mounted\)/);
    assert.match(remedy ?? '', /mount cgroup2/);
    assert.equal(confinementFinding('full', missing).status, 'failure');
    assert.equal(
      confinementFinding('full', [], 'as scopes of systemd').detail,
      'confine = full; this host has namespaces, uid, cgroup (as scopes of systemd), landlock',
    );
    const bare = confinementFinding('degraded', [{ part: 'namespaces', why: 'nothing to make them with' }]);
    assert.match(bare.remedy ?? '', /install bubblewrap/);
  });
});

describe('cells', () => {
  it('off: nothing is tried, taken or written', async () => {
    const cell = await (await cellsFor()).take();
    assert.deepEqual(cell.facts, UNCONFINED);
    assert.deepEqual(cellFactsSchema.parse(cell.facts), UNCONFINED);
  });

  it('full refuses and degraded starts when a wall is missing, and both say which and why', async () => {
    const options = { qemu_binary: '/nonexistent/qemu' } as const;
    const full = await cellsFor({ ...options, confine: 'full' });
    await assert.rejects(full.take(), (error: Error) => {
      assert.match(error.message, /namespaces: \/nonexistent\/qemu is no program that can be run/);
      return 'reason' in error && error.reason === 'CONFINEMENT_MISSING';
    });
    const degraded = await (await cellsFor({ ...options, confine: 'degraded' })).take();
    assert.equal(degraded.facts.level, 'degraded');
    assert.equal(degraded.facts.uid, 0);
    assert.ok(degraded.facts.missing.some(({ part }) => part === 'namespaces'));
  });

  it('taken over: a QEMU that its daemon did not get into its group is not said to be in it', async () => {
    const cgroup = await mkdtemp(join(tmpdir(), 'qshim-cgroup-'));
    try {
      await writeFile(join(cgroup, 'cgroup.procs'), '41\n42\n');
      const facts: CellFacts = { level: 'full', uid: 0, missing: [], cgroup };
      const cells = await cellsFor();
      for (const pid of [42, undefined]) assert.deepEqual((await cells.resume(facts, pid)).facts, facts);
      for (const [pid, from] of [
        [4, facts],
        [42, { ...facts, cgroup: join(cgroup, 'gone') }],
      ] as const) {
        const { level, missing } = (await cells.resume(from, pid)).facts;
        assert.deepEqual([level, missing.map(({ part }) => part)], ['degraded', ['cgroup']]);
      }
    } finally {
      await rm(cgroup, { recursive: true });
    }
  });

  it('capabilities that lack are named', () => {
    assert.deepEqual(lackingCapabilities('Name:\tx\nCapEff:\t000001ffffffffff\n'), []);
    assert.deepEqual(lackingCapabilities('CapEff:\t00000000001ff1ff\n'), ['CAP_SYS_ADMIN']);
    assert.equal(lackingCapabilities('').length, 10);
  });

  it('QEMU ends as bwrap says', () => {
    assert.deepEqual(exitOfQemu(0, undefined), { code: 0, signal: undefined });
    assert.deepEqual(exitOfQemu(1, undefined), { code: 1, signal: undefined });
    assert.deepEqual(exitOfQemu(137, undefined), { code: undefined, signal: 'SIGKILL' });
    assert.deepEqual(exitOfQemu(255, undefined), { code: 255, signal: undefined });
  });
});

describe('a QEMU whose record is lost', { skip: process.getuid?.() !== 0 && 'only root makes namespaces' }, () => {
  const range = parseUidRange('7000-7003');
  const startedBelow = async (unshare: readonly string[]): Promise<{ readonly pid: number } & Disposable> => {
    // /proc is the host's: there a process finds itself by the pid that this process knows it by.
    const script = 'read pid rest < /proc/self/stat; echo "$pid"; exec sleep 600';
    const stdio = ['ignore', 'pipe', 'inherit'] as const;
    const started = spawn('unshare', [...unshare, 'sh', '-c', script], { stdio: [...stdio] });
    const [said] = (await once(started.stdout, 'data')) as [Buffer];
    const pid = Number(said.toString());
    return { pid, [Symbol.dispose]: () => void process.kill(pid, 'SIGKILL') };
  };

  it('is not confined because its daemon was started with other mounts', async () => {
    using qemu = await startedBelow(['--mount']);
    assert.equal(await confinementOf(qemu.pid, range), undefined);
  });

  it('is confined with the namespaces that bwrap makes', async () => {
    using qemu = await startedBelow(['--mount', '--pid', '--fork', '--net']);
    const facts = await confinementOf(qemu.pid, range);
    assert.equal(facts?.level, 'degraded');
    assert.deepEqual(
      facts.missing.map(({ part }) => part),
      ['uid', 'cgroup', 'landlock'],
    );
  });
});
