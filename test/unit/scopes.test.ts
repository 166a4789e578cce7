import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { groupName } from '../../src/confine/cgroup.ts';
import { findGroups, removeGroup, removeLeftGroup } from '../../src/confine/groups.ts';
import { startArguments } from '../../src/confine/scope.ts';
import { MadeUpSystemd } from '../support/made-up-systemd.ts';

const PID = 4711;
const FILES = [
  ['memory.max', '805306368'],
  ['pids.max', '164'],
  ['cpu.max', '400000 100000'],
] as const;
const EXISTS = 'Call failed: Unit qshim-one.scope was already loaded or has a fragment file.\n';

describe('a scope of systemd', () => {
  it('is asked for with its process and its limits', () => {
    const io = [
      ['io.max', '8:0 rbps=1 wiops=2'],
      ['io.max', '8:16 rbps=3'],
    ] as const;
    assert.deepEqual(startArguments('qshim-a.scope', [...FILES, ...io], PID), [
      ...['ssa(sv)a(sa(sv))', 'qshim-a.scope', 'fail', '10'],
      ...['Description', 's', 'A virtual machine of qshim', 'Slice', 's', 'qshim.slice'],
      ...['PIDs', 'au', '1', '4711', 'CollectMode', 's', 'inactive-or-failed'],
      ...['MemoryMax', 't', '805306368', 'TasksMax', 't', '164'],
      // Microseconds in a second, and in a period.
      ...['CPUQuotaPerSecUSec', 't', '4000000', 'CPUQuotaPeriodUSec', 't', '100000'],
      ...['IOReadBandwidthMax', 'a(st)', '2', '/dev/block/8:0', '1', '/dev/block/8:16', '3'],
      ...['IOWriteIOPSMax', 'a(st)', '1', '/dev/block/8:0', '2'],
      '0',
    ]);
  });

  it('has a name that systemd takes, and that tells two directories apart', async () => {
    await using made = await MadeUpSystemd.make(['']);
    const [one, other] = ['/run/a/pool+01', '/run/a/pool_01'].map((path) => made.scopes.directoryOf(groupName(path)));
    assert.match(one ?? '', /\/qshim\.slice\/qshim-pool_01-[0-9a-f]{12}\.scope$/);
    assert.notEqual(one, other);
  });

  it('is believed when the process is seen in it, and the limits: not by the reply', async () => {
    await using made = await MadeUpSystemd.make(['']);
    const { scopes } = made;
    const directory = scopes.directoryOf('one');
    let entered = false;
    const entering = scopes.enter(directory, FILES, PID).then(() => (entered = true));
    const [call] = await made.called(1);
    assert.deepEqual(call, ['StartTransientUnit', ...startArguments('qshim-one.scope', FILES, PID)]);
    // First no group, then one without the process, then one whose limits are not there yet.
    await made.group(directory, FILES, []);
    await made.group(directory, [['memory.max', 'max']], [PID + 1, PID]);
    assert.equal(entered, false);
    await made.group(directory, FILES, [PID]);
    await entering;
    assert.equal((await made.calls()).length, 1);
  });

  it('that the process never gets into, or that has other limits, is told', async () => {
    await using made = await MadeUpSystemd.make([''], { lookMs: 1 });
    const { scopes } = made;
    const directory = scopes.directoryOf('one');
    await assert.rejects(scopes.enter(directory, FILES, PID), /made qshim-one\.scope, but process 4711 is not in \//);
    await made.group(directory, [['memory.max', '1'], ...FILES.slice(1)], [PID]);
    await assert.rejects(scopes.enter(directory, FILES, PID), /memory\.max has "1", and not "805306368"/);
    await rm(join(directory, 'memory.max'));
    await assert.rejects(scopes.enter(directory, FILES, PID), /there is no \S+memory\.max/);
  });

  it('is not there when the call is refused: the reason is what systemd says', async () => {
    await using made = await MadeUpSystemd.make(['Call failed: Interactive authentication\nrequired.\n']);
    const { scopes } = made;
    await assert.rejects(scopes.enter(scopes.directoryOf('one'), FILES, PID), {
      message: "systemd's StartTransientUnit failed: Call failed: Interactive authentication required",
    });
    const { mountinfo, systemd } = made;
    // The trial ends what it has started.
    await assert.rejects(findGroups({ mountinfo, systemd }), /Interactive authentication required/);
  });

  it('is not there when no answer comes, or there is no busctl', async () => {
    await using made = await MadeUpSystemd.make(['hang'], { callMs: 300 });
    const { mountinfo, systemd } = made;
    await assert.rejects(findGroups({ mountinfo, systemd }), /StartTransientUnit failed: no answer came in time/);
    const without = { ...systemd, busctl: ['/nonexistent/busctl'] as const };
    await assert.rejects(findGroups({ mountinfo, systemd: without }), /StartTransientUnit failed: .*ENOENT/);
  });

  it('of the same name that has just ended is waited for', async () => {
    await using made = await MadeUpSystemd.make([EXISTS, '', EXISTS, 'Call failed: Unit not loaded.', '']);
    const { scopes } = made;
    const directory = scopes.directoryOf('one');
    const entering = scopes.enter(directory, FILES, PID);
    const calls = await made.called(5);
    assert.deepEqual(
      calls.map(([method]) => method),
      ['StartTransientUnit', 'ResetFailedUnit', 'StartTransientUnit', 'ResetFailedUnit', 'StartTransientUnit'],
    );
    assert.deepEqual(calls[1], ['ResetFailedUnit', 's', 'qshim-one.scope']);
    await made.group(directory, FILES, [PID]);
    await entering;
  });

  it('of the same name that stays is told', async () => {
    await using made = await MadeUpSystemd.make([EXISTS], { lookMs: 1 });
    const { scopes } = made;
    await assert.rejects(scopes.enter(scopes.directoryOf('one'), FILES, PID), /was already loaded/);
  });

  it('is tried with a process that ends, and then found', async () => {
    await using made = await MadeUpSystemd.make(['']);
    const { mountinfo, systemd, scopes } = made;
    const finding = findGroups({ mountinfo, systemd });
    const [call = []] = await made.called(1);
    const [, , unit = ''] = call;
    const pid = Number(call[call.indexOf('PIDs') + 3]);
    assert.ok(process.kill(pid, 0));
    const name = /^qshim-(trial-.*)\.scope$/.exec(unit)?.[1] ?? assert.fail(unit);
    const limits = [
      ['memory.max', '67108864'],
      ['pids.max', '16'],
      ['cpu.max', '100000 100000'],
    ] as const;
    await made.group(scopes.directoryOf(name), limits, [pid]);
    assert.equal((await finding).by, 'as scopes of systemd');
    assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' });
  });

  it('is removed by systemd: nothing is removed here, and its end is waited for', async () => {
    await using made = await MadeUpSystemd.make(['']);
    const directory = made.scopes.directoryOf(groupName('/run/a/pool+01'));
    await mkdir(directory, { recursive: true });
    let removed = false;
    const left = removeLeftGroup('/run/a/pool+01', silentLogger(), made.mountinfo).then(() => (removed = true));
    const removing = removeGroup(directory).then(() => (removed = true));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(removed, false);
    await rm(directory, { recursive: true });
    await Promise.all([left, removing]);
    assert.deepEqual(await made.calls(), []);
    assert.match(basename(directory), /\.scope$/);
  });
});
