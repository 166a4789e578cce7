import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseProcStat, readProcStat } from '../../src/base/proc-stat.ts';

/** Fields 3 to 52, each with its own number as its value. */
const BEHIND_NAME = ['S', ...Array.from({ length: 49 }, (_, index) => String(index + 4))].join(' ');

describe('/proc/PID/stat', () => {
  it('the fields are those of the manual, whatever the command is called', () => {
    const name = fc.string({ unit: fc.constantFrom('a', ' ', '(', ')', '\n', '1', 'S') });
    fc.assert(
      fc.property(name, (command) => {
        assert.deepEqual(parseProcStat(`7 (${command}) ${BEHIND_NAME}\n`), {
          ...{ state: 'S', parentPid: 4, processGroup: 5, session: 6, userMs: 140, systemMs: 150 },
          ...{ threads: 20, startTicks: 22, residentBytes: 24 * 4096 },
        });
      }),
    );
  });

  it('of this process it says what others say of it', async () => {
    const stat = await readProcStat(process.pid);
    assert.match(stat.state, /^[RSD]$/);
    assert.equal(stat.parentPid, process.ppid);
    assert.ok(stat.threads > 1 && stat.userMs + stat.systemMs > 0 && stat.residentBytes > 0);
    assert.equal(1000 / Number(execFileSync('getconf', ['CLK_TCK'])), 10, 'milliseconds in a tick');
    assert.equal(Number(execFileSync('getconf', ['PAGESIZE'])), 4096);
  });

  it('there is none of a process that does not exist', async () => {
    await assert.rejects(readProcStat(2 ** 22 + 1), { code: 'ENOENT' });
  });
});
