import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { fioArguments, JOBS, resultFrom, targetOf, userOf, type Job } from '../../src/cli/bench-fio.ts';
import { resultSvg } from '../../src/cli/bench-svg.ts';
import { CliFailure } from '../../src/cli/cli-failure.ts';

/** Where `qshim bench volume` may write, and what it makes of fio's words. */

function volume(changed: object): Volume__Output {
  const spec = { mount: null, readOnly: false };
  const attached = { volumeId: 'a', state: 'VOLUME_STATE_ATTACHED', guestDevice: '/dev/vdb', evidence: [], spec };
  // What the choice depends on, and no more.
  return { ...attached, encryption: null, ...changed } as unknown as Volume__Output;
}

const mount = { mountPoint: '/mnt/a' };
const isRefused = (error: unknown): boolean => error instanceof CliFailure && error.reason === 'BENCH_REFUSED';

describe('where it measures', () => {
  const asked = { writeDevice: false, name: '.own' };

  it('a file of its own where Attach was seen to have mounted it', () => {
    const mounted = volume({ spec: { mount, readOnly: false }, evidence: ['guest-mount'] });
    assert.deepEqual(targetOf(mounted, asked), { path: '/mnt/a/.own', isFile: true, writes: true });
    assert.throws(() => targetOf(mounted, { ...asked, writeDevice: true }), isRefused);
  });

  it('else the disk, which it only reads', () => {
    for (const [spec, evidence] of [
      [{ mount, readOnly: true }, ['guest-mount']],
      [{ mount, readOnly: false }, []],
      [{ mount: null, readOnly: false }, []],
    ] as const) {
      const target = targetOf(volume({ spec, evidence }), asked);
      assert.deepEqual(target, { path: '/dev/vdb', isFile: false, writes: false });
    }
    const mapped = volume({ encryption: { mappedDevice: '/dev/mapper/a' } });
    assert.equal(targetOf(mapped, asked).path, '/dev/mapper/a', 'below it is the ciphertext');
  });

  it('writes to the disk when it is told to, and never to one that is read only, or has no name', () => {
    const told = { ...asked, writeDevice: true };
    assert.equal(targetOf(volume({}), told).writes, true);
    assert.throws(() => targetOf(volume({ spec: { mount: null, readOnly: true } }), told), isRefused);
    assert.throws(() => targetOf(volume({ guestDevice: '' }), asked), isRefused);
    assert.throws(() => targetOf(volume({ state: 'VOLUME_STATE_DETACHING' }), asked), isRefused);
  });

  it('not to a disk that the guest uses, whole or in part, or that something stands on', () => {
    const mounts = 'proc /proc proc rw 0 0\n/dev/vdb1 /mnt ext4 rw 0 0\n/dev/vdcc /other ext4 rw 0 0\n';
    assert.match(userOf('/dev/vdb', mounts, '') ?? '', /vdb1 is in use in the guest \(\/mnt\)/);
    assert.equal(userOf('/dev/vdc', mounts, ''), undefined, 'another disk begins with the same letters');
    assert.match(userOf('/dev/vdcc', mounts, '') ?? '', /vdcc/);
    assert.match(userOf('/dev/nvme0n1', '/dev/nvme0n1p2 swap', '') ?? '', /p2/);
    const holder = '/sys/class/block/vdc/vdc1/holders/dm-0';
    assert.match(userOf('/dev/vdc', mounts, `${holder}\n`) ?? '', /dm-0/);
  });

  it('tells fio itself not to write where nothing may be written', () => {
    const limits = { seconds: 3, bytes: 1_048_576 };
    for (const job of JOBS) {
      const reads = fioArguments(job, { path: '/dev/vdb', isFile: false, writes: false }, limits);
      assert.ok(reads.includes('--readonly'));
      const writes = fioArguments(job, { path: '/mnt/a/f', isFile: true, writes: true }, limits);
      assert.deepEqual([writes.includes('--readonly'), writes.includes('--size=1048576')], [false, true]);
    }
  });
});

describe('what fio says', () => {
  const [read] = JOBS as readonly [Job];
  const side = { iops: 1000.5, bw_bytes: 4_098_048, total_ios: 3000, clat_ns: { mean: 1_500_000 } };
  const percentile = { '50.000000': 1_000_000, '99.000000': 9_000_000 };
  const none = { iops: 0, bw_bytes: 0, total_ios: 0, clat_ns: { mean: 0 } };
  const said = (job: object): string => JSON.stringify({ 'fio version': 'fio-3.33', jobs: [job] });

  it('the side of the job, behind the lines that it may write before', () => {
    const text = `note: something\n${said({ error: 0, read: { ...side, clat_ns: { mean: 1_500_000, percentile } }, write: none })}`;
    assert.deepEqual(resultFrom(read, text), {
      ...{ job: 'randread 4k', iops: 1000.5, bytesPerSecond: 4_098_048 },
      ...{ meanNs: 1_500_000, halfNs: 1_000_000, mostNs: 9_000_000 },
    });
    assert.equal(resultFrom(read, said({ error: 0, read: side, write: none })).mostNs, undefined);
  });

  it('what failed, did nothing or is not understood is no result', () => {
    for (const text of ['', 'fio: error', '{', said({ error: 0 }), said({ error: 5, read: side, write: side })]) {
      assert.throws(() => resultFrom(read, text), { reason: 'BENCH_FAILED' }, text);
    }
    assert.throws(() => resultFrom(read, said({ error: 0, read: none, write: side })), /has done nothing/);
  });

  it('a picture has all of it, and nothing that a name could break', () => {
    const result = { job: 'randread 4k', iops: 10, bytesPerSecond: 40_960, meanNs: 1e6, halfNs: 1e5, mostNs: 1e9 };
    const svg = resultSvg('a <&> b', [result, { ...result, job: 'seqwrite 1M', halfNs: undefined, mostNs: 1e12 }]);
    assert.match(svg, /a &lt;&amp;&gt; b/);
    assert.equal(svg.match(/<rect x="120"/g)?.length, 2);
    assert.equal(/NaN|undefined|Infinity/.test(svg), false);
  });
});
