import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { connectToStarted, type FirstConnection, type StartingUp } from '../../src/qemu/connect.ts';
import type { QemuProcess } from '../../src/qemu/process.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { FakeQmp } from '../support/fake-qmp.ts';
import { Scratch } from '../support/shell-qemu.ts';

const HOUR_MS = 3_600_000;
const SIGNAL = new AbortController().signal;

/** A shell in place of QEMU, which is ended with the test, and how it is connected to. */
class Rig implements AsyncDisposable {
  readonly scratch: Scratch;
  readonly qemu: QemuProcess;

  private constructor(scratch: Scratch, qemu: QemuProcess) {
    this.scratch = scratch;
    this.qemu = qemu;
  }

  static async make(script: string): Promise<Rig> {
    const scratch = await Scratch.make();
    return new Rig(scratch, await scratch.shell(script));
  }

  get path(): string {
    return join(this.scratch.directory, 'qmp.sock');
  }

  connect<T>(
    connect: (start: StartingUp) => Promise<T>,
    more: Partial<Omit<FirstConnection<T>, 'connect'>> = {},
  ): Promise<T> {
    const { qemu, path, scratch } = this;
    return connectToStarted({ qemu, path, logFile: scratch.log, timeoutMs: HOUR_MS, signal: SIGNAL, connect, ...more });
  }

  /** As a QEMU that has bound its socket. */
  async bound(): Promise<void> {
    await writeFile(this.path, '');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qemu.kill('SIGKILL');
    await this.qemu.exited;
    await this.scratch[Symbol.asyncDispose]();
  }
}

/** A connection that is not made until it is given up. */
async function never({ signal }: StartingUp): Promise<never> {
  if (!signal.aborted) await once(signal, 'abort');
  throw new Error('the connection was given up');
}

describe('connecting to a QEMU that was just started', { timeout: 60_000 }, () => {
  it('waits for its socket, then for its greeting', async () => {
    await using rig = await Rig.make('exec sleep 600');
    const connecting = rig.connect((start) => QmpClient.connect({ log: silentLogger(), ...start }));
    await using _fake = await FakeQmp.listen({ path: rig.path });
    await using qmp = await connecting;
    assert.equal(qmp.state, 'ready');
  });

  it('one that ends without a socket is told with its own words, and never connected to', async () => {
    await using rig = await Rig.make('echo oops >&2; echo worse; exit 3');
    const metadata = { sandboxId: 's' };
    await assert.rejects(
      rig.connect(() => assert.fail('there is no socket'), { metadata }),
      {
        ...{ code: 'FAILED_PRECONDITION', reason: 'QEMU_EXITED', metadata },
        message: 'QEMU exited with code 3: oops; worse',
      },
    );
    const describe = (): string => 'QEMU did not start';
    await assert.rejects(
      rig.connect(() => assert.fail('there is no socket'), { describe }),
      { reason: 'QEMU_EXITED', message: 'QEMU did not start: oops; worse' },
    );
  });

  it('one that ends in the middle of it is told, whichever of the two is seen first', async () => {
    for (const how of ['the connection breaks first', 'the end is seen first'] as const) {
      await using rig = await Rig.make('exec sleep 600');
      await rig.bound();
      const broken = new Error('the connection broke');
      const connecting = rig.connect(async (start) => {
        await rig.qemu.kill('SIGKILL');
        if (how === 'the end is seen first') return await never(start);
        throw broken;
      });
      await assert.rejects(connecting, (error: Error) => {
        shimFailure('FAILED_PRECONDITION', 'QEMU_EXITED')(error);
        assert.equal(error.message, 'QEMU was ended by SIGKILL', how);
        if (how === 'the connection breaks first') assert.equal(error.cause, broken);
        return true;
      });
    }
  });

  it('the limit holds for the socket and for the connection', async () => {
    await using rig = await Rig.make('exec sleep 600');
    const late = { code: 'DEADLINE_EXCEEDED', reason: 'TIMEOUT', message: 'QEMU did not start within 20 ms' };
    await assert.rejects(rig.connect(never, { timeoutMs: 20 }), late);
    await rig.bound();
    await assert.rejects(rig.connect(never, { timeoutMs: 20 }), late);
    const mine = new Error('too late');
    await assert.rejects(rig.connect(never, { timeoutMs: 20, timedOut: () => Promise.reject(mine) }), mine);
  });

  it('whoever gives it up hears its own reason', async () => {
    await using rig = await Rig.make('exec sleep 600');
    const reason = new Error('enough');
    await assert.rejects(rig.connect(never, { signal: AbortSignal.abort(reason) }), reason);
    await rig.bound();
    const stop = new AbortController();
    const connecting = rig.connect(
      (start) => {
        setImmediate(() => stop.abort(reason));
        return never(start);
      },
      { signal: stop.signal },
    );
    await assert.rejects(connecting, reason);
  });

  it('what fails while QEMU lives is the failure', async () => {
    await using rig = await Rig.make('exec sleep 600');
    await rig.bound();
    const refused = new Error('no such machine');
    await assert.rejects(
      rig.connect(() => Promise.reject(refused)),
      refused,
    );
  });
});
