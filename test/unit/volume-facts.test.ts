import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { EncryptionView } from '../../src/volume/model/encryption.ts';
import { NOTHING_MADE, observe, type VolumeFacts, type VolumeInput } from '../../src/volume/model/facts.ts';
import { NO_OPERATION } from '../../src/volume/model/operating.ts';
import { slotAt } from '../../src/volume/model/slots.ts';

const SLOT = slotAt(0);
const VIEW: EncryptionView = {
  ...{ format: 'luks1', cipher: 'aes-xts-plain64', sectorSize: 512, integrity: false, keySlots: 1 },
  ...{ uuid: 'u', created: false, mappedDevice: '' },
};
const FACTS: VolumeFacts = {
  state: { state: 'pending', phase: 'attaching', slot: SLOT },
  times: { pending: 1, attached: undefined, detaching: undefined, removed: undefined },
  ...{
    timings: [],
    sizeBytes: 512,
    askedBytes: undefined,
    guest: undefined,
    made: NOTHING_MADE,
    aio: undefined,
    encryption: undefined,
  },
  ...{
    creating: undefined,
    ...NO_OPERATION,
    job: undefined,
    limits: undefined,
    draw: undefined,
    heldBy: undefined,
    lease: undefined,
    health: { failing: false, errors: 0 },
  },
};

function after(...inputs: readonly VolumeInput[]): VolumeFacts {
  return inputs.reduce((facts, input) => observe(facts, input, 7).facts, FACTS);
}

const news = (facts: VolumeFacts, input: VolumeInput): unknown => observe(facts, input, 7).news?.cause.reason;

const GUEST = { pciAddress: undefined, device: '/dev/vda', evidence: ['virtio-status'], formatted: false } as const;
const ERROR = { operation: 'write', message: 'no space', action: 'stop', noSpace: true, timeMs: 3 };
const JOB = { type: 'create', status: 'running', current: 1, total: 2 };

describe('what is known of a volume', () => {
  it('a new state has its time, and takes over what the guest shows', () => {
    const facts = after({ kind: 'driver-live', guest: GUEST });
    assert.deepEqual([facts.state.state, facts.times.attached, facts.guest], ['attached', 7, GUEST]);
    assert.deepEqual(after({ kind: 'all-gone' }), FACTS, 'what is denied changes nothing');
  });

  it('mount and mapping are made and taken away by themselves', () => {
    const both: readonly VolumeInput[] = [
      { kind: 'mapped', mapping: true },
      { kind: 'mounted', mount: true },
    ];
    assert.deepEqual(after(...both).made, { mapping: true, mount: true });
    assert.deepEqual(after(...both, { kind: 'mounted', mount: false }).made, { mapping: true, mount: false });
    const gone: VolumeInput = { kind: 'vm-gone', cause: { reason: 'VM_GONE', message: 'm' } };
    assert.deepEqual(after(...both, gone).made, NOTHING_MADE);
  });

  it('a reset ends what the guest had, and not what QEMU has open', () => {
    const made: VolumeInput = { kind: 'mounted', mount: true };
    const reset: VolumeInput = { kind: 'guest-reset' };
    assert.deepEqual(after(made, { kind: 'encrypted', encryption: VIEW }, reset).encryption, VIEW);
    const inGuest = { ...VIEW, format: 'luks2' as const };
    const facts = after(made, { kind: 'encrypted', encryption: inGuest }, reset);
    assert.deepEqual([facts.made, facts.encryption], [NOTHING_MADE, undefined]);
  });

  it('a size is news when it is another one, a job when it has moved', () => {
    assert.equal(news(FACTS, { kind: 'sized', sizeBytes: 1024, askedBytes: 1024 }), 'RESIZED');
    assert.equal(news(FACTS, { kind: 'sized', sizeBytes: 512, askedBytes: 512 }), undefined);
    assert.equal(news(FACTS, { kind: 'job', job: JOB }), 'JOB_PROGRESS');
    assert.equal(news(after({ kind: 'job', job: JOB }), { kind: 'job', job: JOB }), undefined);
    assert.equal(news(after({ kind: 'job', job: JOB }), { kind: 'job', job: undefined }), undefined);
  });

  it('errors count up; a VM that goes on has tried anew what failed for want of space, and nothing else', () => {
    const failed = after({ kind: 'io-error', error: ERROR }, { kind: 'io-error', error: ERROR });
    assert.deepEqual(failed.health, { failing: true, errors: 2, last: ERROR });
    assert.equal(news(FACTS, { kind: 'io-error', error: ERROR }), 'NO_SPACE');
    assert.equal(news(FACTS, { kind: 'io-error', error: { ...ERROR, noSpace: false } }), 'IO_ERROR');
    assert.equal(news(failed, { kind: 'resumed' }), 'RESUMED');
    const other = after({ kind: 'io-error', error: { ...ERROR, noSpace: false } });
    assert.deepEqual(observe(other, { kind: 'resumed' }, 7).facts, other);
  });

  it('an operation ends with the volume', () => {
    const operation = { kind: 'resize', sizeBytes: 1024, timeoutMs: 1 } as const;
    const begun = after({ kind: 'operation-begun', operation, tag: { id: 'one', startedMs: 5 } });
    assert.deepEqual(begun.operation, operation);
    const gone: VolumeInput = { kind: 'vm-gone', cause: { reason: 'VM_GONE', message: 'm' } };
    const { facts, news: told } = observe(begun, gone, 7);
    assert.equal(facts.operation, undefined);
    assert.equal(told?.cause.reason, 'OPERATION_FAILED');
    const [outcome] = facts.outcomes;
    assert.deepEqual([outcome?.id, outcome?.kind, outcome?.endedMs], ['one', 'resize', 7]);
    assert.equal(outcome?.problem?.reason, 'VOLUME_REMOVED');
  });
});
