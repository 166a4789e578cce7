import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { waitFor } from '../../src/base/deadline.ts';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { QmpLink } from '../../src/qmp/link.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { FakeQmp } from '../support/fake-qmp.ts';

const ENDED = new ShimError('UNAVAILABLE', 'QEMU ended', { reason: 'VM_GONE' });
/** Only a hang lasts so long. */
const LIMIT = { milliseconds: 20_000, onTimeout: () => new Error('it hangs') };

/** A look at a new connection that lasts until it is told to end, whatever becomes of the connection. */
class SlowLook {
  readonly begun = Promise.withResolvers<undefined>();
  readonly end = Promise.withResolvers<undefined>();

  readonly onConnected = async (): Promise<void> => {
    this.begun.resolve(undefined);
    await this.end.promise;
  };
}

function linkTo(path: string, gone: AbortSignal, onConnected: () => Promise<void>): QmpLink {
  return new QmpLink({ connect: { path, log: silentLogger() }, log: silentLogger(), gone, onConnected });
}

describe('qmp link', { timeout: 60_000 }, () => {
  it('disposed of while a connection that was made again is being looked over: it ends, and closes it', async () => {
    await using fake = await FakeQmp.listen();
    const gone = new AbortController();
    const look = new SlowLook();
    let looks = 0;
    const link = linkTo(fake.path, gone.signal, async () => {
      looks += 1;
      if (looks > 1) await look.onConnected();
    });
    const first = await link.open();
    fake.drop();
    await first.closed;
    await look.begun.promise;
    gone.abort(ENDED);
    const disposed = link[Symbol.asyncDispose]();
    look.end.resolve(undefined);
    await waitFor(disposed, LIMIT);
    assert.throws(() => link.current, shimFailure('UNAVAILABLE', 'QMP_LOST'));
  });

  it('disposed of while the first connection is being looked over: that connection is closed, too', async () => {
    await using fake = await FakeQmp.listen();
    const gone = new AbortController();
    const look = new SlowLook();
    const link = linkTo(fake.path, gone.signal, look.onConnected);
    const opened = link.openEventually();
    await look.begun.promise;
    gone.abort(ENDED);
    await waitFor(link[Symbol.asyncDispose](), LIMIT);
    look.end.resolve(undefined);
    await assert.rejects(opened, shimFailure('UNAVAILABLE', 'VM_GONE'));
    assert.throws(() => link.current, shimFailure('UNAVAILABLE', 'QMP_LOST'));
    await waitFor(link[Symbol.asyncDispose](), LIMIT);
  });

  it('who waits for a connection that never was hears of the end of the VM', async () => {
    const gone = new AbortController();
    const link = linkTo('/nonexistent/qmp.sock', gone.signal, () => Promise.resolve());
    const waiting = link.ready();
    gone.abort(ENDED);
    await assert.rejects(waitFor(waiting, LIMIT), shimFailure('UNAVAILABLE', 'VM_GONE'));
    await link[Symbol.asyncDispose]();
  });
});
