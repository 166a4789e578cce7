import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { KeySlots__Output } from '../../src/grpc/generated/qshim/v1/KeySlots.ts';
import type { KeySlotsTarget } from '../../src/grpc/generated/qshim/v1/KeySlotsTarget.ts';
import { ConfidentialRig, hostLuks, MIB, mountAt, NOTHING_LEFT } from '../support/confidential.ts';
import { call } from '../support/daemon.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const skip = await realVmSkipReason();

await describe('key slots of host_luks', { skip }, async () => {
  let rig: ConfidentialRig;
  let path: string;
  before(async () => {
    rig = await ConfidentialRig.start();
    path = await rig.daemon.rawFile('slots.raw', 24 * MIB);
    for (const name of ['first', 'second', 'third', 'none']) await rig.daemon.keyFile(name, `the ${name} key`);
  });
  after(() => rig[Symbol.asyncDispose]());

  const key = (name: string): { readonly file: string } => ({ file: `${rig.daemon.keyDir}/${name}` });
  const used = ({ used }: KeySlots__Output): number => used.filter(Boolean).length;
  const volumes = (): ConfidentialRig['daemon']['client']['volumes'] => rig.daemon.client.volumes;
  const add = (target: KeySlotsTarget, opens: string, fresh: string): Promise<KeySlots__Output> =>
    call((done) => volumes().addKey({ target, key: key(opens), newKey: key(fresh), iterationMs: 20 }, done));
  const change = (target: KeySlotsTarget, old: string, fresh: string): Promise<KeySlots__Output> =>
    call((done) => volumes().changeKey({ target, key: key(old), newKey: key(fresh), iterationMs: 20 }, done));
  const remove = (target: KeySlotsTarget, name: string, slot?: number): Promise<KeySlots__Output> =>
    call((done) => volumes().removeKey({ target, key: key(name), ...(slot !== undefined && { slot }) }, done));
  const list = (target: KeySlotsTarget): Promise<KeySlots__Output> =>
    call((done) => volumes().listKeySlots({ target }, done));
  const attachWith = async (name: string): Promise<void> => {
    await rig.attach('slots', { rawFile: { path }, mount: mountAt('/mnt/slots'), ...hostLuks({ key: key(name) }) });
  };

  const everything = async (target: KeySlotsTarget): Promise<void> => {
    assert.equal(used(await list(target)), 1);
    const last = await refusal(remove(target, 'first'));
    assertRefusal(last, { code: 'FAILED_PRECONDITION', reason: 'LAST_KEY' });
    const wrong = await refusal(add(target, 'none', 'second'));
    assertRefusal(wrong, { code: 'FAILED_PRECONDITION', reason: 'LUKS_WRONG_KEY' });
    assert.equal(used(await add(target, 'first', 'second')), 2);
    const unknown = await refusal(remove(target, 'none'));
    assertRefusal(unknown, { code: 'FAILED_PRECONDITION', reason: 'LUKS_WRONG_KEY' });
    assert.equal(used(await change(target, 'second', 'third')), 2);
    const gone = await refusal(remove(target, 'second'));
    assertRefusal(gone, { code: 'FAILED_PRECONDITION', reason: 'LUKS_WRONG_KEY' });
    const unused = await refusal(remove(target, 'first', 7));
    assertRefusal(unused, { code: 'FAILED_PRECONDITION', reason: 'KEY_SLOT_NOT_IN_USE' });
    const slot = (await list(target)).used.lastIndexOf(true);
    assert.equal(used(await remove(target, 'first', slot)), 1);
    assert.equal(used(await add(target, 'first', 'second')), 2);
    const itself = await refusal(change(target, 'first', 'first'));
    assertRefusal(itself, { code: 'FAILED_PRECONDITION', reason: 'SAME_KEY' });
    // Both slots would go, whoever opens them.
    const same = await add(target, 'first', 'first');
    assert.equal(used(same), 3);
    assert.equal(used(await remove(target, 'second')), 2);
    const all = await refusal(remove(target, 'first'));
    assertRefusal(all, { code: 'FAILED_PRECONDITION', reason: 'LAST_KEY' });
    assert.equal(used(await list(target)), 2);
    assert.equal(used(await remove(target, 'first', (await list(target)).used.lastIndexOf(true))), 1);
  };

  await it('while it is attached; the bytes stay', async () => {
    await attachWith('first');
    await rig.guest('echo kept > /mnt/slots/f; sync');
    await everything({ attached: { sandboxId: 'vm', volumeId: 'slots' } });
    assert.equal((await rig.daemon.client.getVolume('vm', 'slots')).encryption?.keySlots, 1);
    assert.equal(await rig.guest('cat /mnt/slots/f'), 'kept\n');
    const inUse = await refusal(add({ image: path }, 'first', 'second'));
    assertRefusal(inUse, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });
    await rig.detach('slots');
    assert.deepEqual(await rig.left(), NOTHING_LEFT);
  });

  await it('while nothing uses it; afterwards the new key opens it and the old one does not', async () => {
    await everything({ image: path });
    await change({ image: path }, 'first', 'second');
    const old = await refusal(attachWith('first'));
    assertRefusal(old, { code: 'FAILED_PRECONDITION', reason: 'LUKS_WRONG_KEY' });
    await attachWith('second');
    assert.equal(await rig.guest('cat /mnt/slots/f'), 'kept\n');
    await rig.detach('slots');
    assert.deepEqual(await rig.left(), NOTHING_LEFT);
  });

  await it('a plain file has none, and a volume of another kind has none of these', async () => {
    const plain = await rig.daemon.rawFile('plain.raw', 4 * MIB);
    const refused = await refusal(add({ image: plain }, 'first', 'second'));
    assertRefusal(refused, { code: 'FAILED_PRECONDITION', reason: 'LUKS_NO_HEADER' });
    await rig.attach('plain', { rawFile: { path: plain } });
    const target = { attached: { sandboxId: 'vm', volumeId: 'plain' } };
    const other = await refusal(list(target));
    assertRefusal(other, { code: 'FAILED_PRECONDITION', reason: 'NOT_HOST_LUKS' });
    await rig.detach('plain');
  });
});
