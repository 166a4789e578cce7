import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import type { ConsoleChunk__Output } from '../../src/grpc/generated/qshim/v1/ConsoleChunk.ts';
import { TestDaemon } from '../support/daemon.ts';
import { until } from '../support/until.ts';

const LIMIT_BYTES = 65_536;

await describe('a guest that floods its console', async () => {
  let daemon: TestDaemon;
  let log = '';
  before(async () => {
    daemon = await TestDaemon.start({ config: { console_bytes_max: LIMIT_BYTES, console_check_ms: 50 } });
    const { stateDir } = await daemon.client.createSandbox({ sandboxId: 'vm' });
    log = `${stateDir}/console.log`;
  });
  after(async () => {
    await daemon[Symbol.asyncDispose]();
  });

  function readConsole(): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    let text = '';
    const stream = daemon.client.sandboxes.console({ sandboxId: 'vm' });
    stream.on('data', (chunk: ConsoleChunk__Output) => {
      text += chunk.data.toString();
    });
    stream.on('error', reject);
    stream.on('end', () => resolve(text));
    return promise;
  }

  await it('leaves a log within its limit, which ends with what was written last', async () => {
    await daemon.client.guest(
      'vm',
      'seq 1 30000 > /dev/ttyS0; for i in 1 2 3 4 5 6; do sleep 0.2; echo end$i > /dev/ttyS0; done',
    );
    // QEMU has all of it; the next look cuts what is still too long.
    await until('the log is cut', async () => (await stat(log)).size <= LIMIT_BYTES);
    assert.equal((await stat(`${log}.1`)).size, LIMIT_BYTES / 2);
    const text = await readConsole();
    assert.match(text, /end6\s*$/);
    assert.ok(text.length <= LIMIT_BYTES * 1.5, `${text.length} bytes`);
  });

  await it('shows a follower what comes after a cut', async () => {
    const stream = daemon.client.sandboxes.console({ sandboxId: 'vm', follow: true });
    const { promise: shown, resolve } = Promise.withResolvers<void>();
    let text = '';
    stream.on('data', (chunk: ConsoleChunk__Output) => {
      text = (text + chunk.data.toString()).slice(-100_000);
      if (text.includes('after-all')) resolve();
    });
    stream.on('error', () => undefined);
    await daemon.client.guest('vm', 'seq 1 20000 > /dev/ttyS0; sleep 1; echo after-all > /dev/ttyS0');
    await shown;
    stream.cancel();
  });
});
