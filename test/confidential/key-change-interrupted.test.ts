import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { KeySlots__Output } from '../../src/grpc/generated/qshim/v1/KeySlots.ts';
import { ConfidentialRig, hostLuks, MIB, mountAt, NOTHING_LEFT } from '../support/confidential.ts';
import { call, TestDaemon } from '../support/daemon.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();
const TARGET = { attached: { sandboxId: 'vm', volumeId: 'slots' } };
const SLOW_MS = 6000;

await describe('the daemon is killed while it changes keys of an attached volume', { skip }, async () => {
  let rig: ConfidentialRig;
  before(async () => {
    rig = await ConfidentialRig.start();
    for (const name of ['first', 'second', 'third']) await rig.daemon.keyFile(name, `the ${name} key`);
  });
  after(() => rig[Symbol.asyncDispose]());

  const key = (name: string): { readonly file: string } => ({ file: `${rig.daemon.keyDir}/${name}` });
  const add = (fresh: string, iterationMs: number): Promise<KeySlots__Output> =>
    call((done) =>
      rig.daemon.client.volumes.addKey({ target: TARGET, key: key('first'), newKey: key(fresh), iterationMs }, done),
    );
  const journal = (): Promise<string> => readFile(join(rig.daemon.directoryOf('vm'), 'state.json'), 'utf8');
  const underWay = async (): Promise<boolean> => (await journal()).includes('"kind":"change-keys"');

  await it('the next daemon waits for what QEMU does, tells what is in the header, and takes the next change', async () => {
    const path = await rig.daemon.rawFile('slots.raw', 24 * MIB);
    await rig.attach('slots', { rawFile: { path }, mount: mountAt('/mnt/slots'), ...hostLuks({ key: key('first') }) });
    await rig.guest('echo kept > /mnt/slots/f; sync');

    const ended = assert.rejects(add('second', SLOW_MS));
    await until('the change, in the journal', underWay);
    const busy = await refusal(
      call((done) =>
        rig.daemon.client.volumes.resize({ sandboxId: 'vm', volumeId: 'slots', sizeBytes: 32 * MIB }, done),
      ),
    );
    assertRefusal(busy, { code: 'FAILED_PRECONDITION', reason: 'OPERATION_IN_PROGRESS' });
    await rig.daemon.kill('SIGKILL');
    await ended;
    assert.ok(await underWay(), 'the intent outlives the daemon');

    rig.daemon = await TestDaemon.start({ directory: rig.daemon.directory });
    await until('the slot free again', async () => !(await underWay()));
    const listed = (
      await call<KeySlots__Output>((done) => rig.daemon.client.volumes.listKeySlots({ target: TARGET }, done))
    ).used.filter(Boolean).length;
    assert.ok(listed === 1 || listed === 2, `${listed} slots`);
    assert.equal((await rig.daemon.client.getVolume('vm', 'slots')).encryption?.keySlots, listed);

    assert.equal((await add('third', 20)).used.filter(Boolean).length, listed + 1);
    assert.equal(await rig.guest('cat /mnt/slots/f'), 'kept\n');
    await rig.detach('slots');
    assert.deepEqual(await rig.left(), NOTHING_LEFT);
  });
});
