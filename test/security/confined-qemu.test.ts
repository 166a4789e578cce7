import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { asBrokenQemu, brokenQemuMissing, connecting, opening, type Attempt } from '../support/broken-qemu.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const skip = brokenQemuMissing() || (await realVmSkipReason());
const CRON_FILE = '/etc/cron.d/qshim-broken-qemu';
const O_WRONLY_CREAT = 0o101;
const O_RDWR = 2;

/** What code in one QEMU tries on the host, on the daemon and on another sandbox. */
function attempts(daemon: TestDaemon, own: string, other: string): Readonly<Record<string, string>> {
  const pid = daemon.child.pid ?? 0;
  return {
    shadow: opening('/etc/shadow', 0),
    cron: opening(CRON_FILE, O_WRONLY_CREAT),
    daemonMemory: opening(`/proc/${pid}/mem`, O_RDWR),
    hostFacts: opening('/proc/mounts', 0),
    ownFacts: opening('/proc/self/status', 0),
    signal: `((int (*)(int, int))kill)(${pid}, 0)`,
    api: connecting(daemon.socket),
    otherMonitor: connecting(join(other, 'spare.sock')),
    otherJournal: opening(join(other, 'state.json'), 0),
    ownJournal: opening(join(own, 'state.json'), 0),
    newFile: opening(join(own, 'new'), O_WRONLY_CREAT),
    ownSocketAway: `((int (*)(const char *))unlink)("${join(own, 'uevents.sock')}")`,
  };
}

async function played(confine: 'off' | 'degraded'): Promise<Readonly<Record<string, Attempt>>> {
  await using daemon = await TestDaemon.start({ config: { confine } });
  const own = await daemon.client.createSandbox({ sandboxId: 'broken', spec: { readyWhen: 'READY_WHEN_STARTED' } });
  const other = await daemon.client.createSandbox({ sandboxId: 'other', spec: { readyWhen: 'READY_WHEN_STARTED' } });
  return await asBrokenQemu(own.qemuPid, attempts(daemon, own.stateDir, other.stateDir));
}

describe('code that has broken out into QEMU', { skip }, () => {
  after(() => rm(CRON_FILE, { force: true }));

  it('confined: it reaches no file, no process, no socket of the host, the daemon or another sandbox', async () => {
    const { ENOENT, EACCES, ESRCH, EROFS } = constants.errno;
    const may: Readonly<Record<string, readonly number[]>> = {
      ...{ shadow: [ENOENT], cron: [ENOENT, EROFS], daemonMemory: [ENOENT], signal: [ESRCH] },
      ...{ hostFacts: [ENOENT], ownFacts: [ENOENT] },
      ...{ api: [ENOENT], otherMonitor: [ENOENT], otherJournal: [ENOENT] },
      ...{ ownJournal: [EACCES], newFile: [EACCES], ownSocketAway: [EACCES] },
    };
    for (const [name, { result, errno }] of Object.entries(await played('degraded'))) {
      assert.equal(result, -1, `${name} came to ${result}`);
      assert.ok(may[name]?.includes(errno), `${name}: errno ${errno}`);
    }
  });

  it('not confined: all of it works, so that the test above is known to look at something', async () => {
    for (const [name, { result }] of Object.entries(await played('off'))) {
      assert.ok(result >= 0, `${name} came to ${result}`);
    }
  });
});
