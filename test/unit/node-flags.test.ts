import assert from 'node:assert/strict';
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { NODE_FLAGS } from '../../src/base/node-flags.ts';
import { onSignal, tcpListeners } from '../support/listening.ts';

const BIN = join(import.meta.dirname, '../../bin');

describe("Node's flags", () => {
  it('are those of every launcher', async () => {
    for (const name of await readdir(BIN)) {
      const text = await readFile(join(BIN, name), 'utf8');
      assert.equal(/^flags="(.*)"$/m.exec(text)?.[1], NODE_FLAGS.join(' '), name);
      assert.match(text, /exec "\$candidate" \$flags "\$root\/\$entry" "\$@"/, name);
    }
  });

  it('leave SIGUSR1 without a handler, and NODE_OPTIONS without an inspector', async () => {
    const child = spawn(process.execPath, [...NODE_FLAGS, '--eval', 'console.log(1); setInterval(() => {}, 1000)'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, NODE_OPTIONS: '--inspect-wait=127.0.0.1:0 --inspect-brk=127.0.0.1:0' },
    });
    try {
      await once(child.stdout, 'data');
      assert.ok(child.pid !== undefined);
      assert.deepEqual(await tcpListeners(child.pid), []);
      assert.deepEqual(await onSignal(child.pid, constants.signals.SIGUSR1), { handled: false, blocked: true });
    } finally {
      child.kill('SIGKILL');
      await once(child, 'close');
    }
  });
});
