import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { CliFailure } from '../../src/cli/cli-failure.ts';
import { leaseFields } from '../../src/cli/leases.ts';
import { collectAssignment, collectPair, commaList, present, wholeNumber } from '../../src/cli/options.ts';
import { createRequest, execRequest } from '../../src/cli/sandbox-requests.ts';
import { attachRequest } from '../../src/cli/volume-requests.ts';

describe('option values', () => {
  it('whole numbers within their bounds, and nothing else', () => {
    const parse = wholeNumber(1, 255);
    assert.equal(parse('255'), 255);
    for (const wrong of ['0', '256', '-1', '1.5', '1e2', '0x10', '', ' 1', '1 ', '٣', 'NaN', '9'.repeat(17)]) {
      assert.throws(() => parse(wrong), { code: 'commander.invalidArgument' }, wrong);
    }
  });

  it('every uint32 survives', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 0xffff_ffff }), (n) => wholeNumber()(String(n)) === n));
    assert.throws(() => wholeNumber()('4294967296'));
  });

  it('pairs keep further equals signs and later ones win', () => {
    assert.deepEqual(collectPair('a=b=c', { a: 'x', z: '1' }), { a: 'b=c', z: '1' });
    assert.deepEqual(collectPair('a='), { a: '' });
    assert.throws(() => collectPair('a'));
    assert.throws(() => collectPair('=a'));
  });

  it('environment keeps order and repeats', () => {
    assert.deepEqual(collectAssignment('A=2', collectAssignment('A=1')), ['A=1', 'A=2']);
    assert.throws(() => collectAssignment('A'));
  });

  it('comma lists drop empty parts', () => {
    assert.deepEqual(commaList('noatime,,ro,'), ['noatime', 'ro']);
  });

  it('leases are durations or times', () => {
    assert.deepEqual(leaseFields('1h30m'), { leaseMs: 5_400_000 });
    assert.deepEqual(leaseFields('1970-01-01T00:00:01.5Z'), { leaseUntil: { seconds: 1, nanos: 500_000_000 } });
    assert.deepEqual(leaseFields('1970-01-01T01:00:00+01:00'), { leaseUntil: { seconds: 0, nanos: 0 } });
    for (const wrong of ['', '10', '0s', 'soon', '2030-01-01', '2030-13-01T00:00:00Z', 'T1Z']) {
      assert.throws(() => leaseFields(wrong), { code: 'commander.invalidArgument' }, wrong);
    }
    const request = attachRequest('s', 'v', { sources: { raw: '/a' }, lease: { leaseMs: 7 } }, '/');
    assert.equal(request.leaseMs, 7);
  });

  it('only what is set is present; false, 0 and "" are set', () => {
    assert.deepEqual(present({ a: undefined, b: 0, c: false, d: '' }), { b: 0, c: false, d: '' });
  });
});

describe('create', () => {
  it('without options the spec is empty: the daemon decides', () => {
    assert.deepEqual(createRequest('sb1', {}, '/cwd'), { sandboxId: 'sb1', spec: {} });
  });

  it('every option reaches its field', () => {
    const request = createRequest(
      'sb1',
      {
        vcpus: 3,
        memory: 900,
        kernel: 'k',
        initrd: '/i',
        kernelParameters: 'quiet',
        accelerator: 'kvm',
        volumeCapacity: 5,
        label: { a: 'b' },
        readyWhen: 'started',
        template: 'required',
      },
      '/cwd',
    );
    assert.deepEqual(request.spec, {
      vcpus: 3,
      memoryMib: 900,
      kernel: '/cwd/k',
      initrd: '/i',
      kernelParameters: 'quiet',
      accelerator: 'ACCELERATOR_KVM',
      volumeCapacity: 5,
      labels: { a: 'b' },
      readyWhen: 'READY_WHEN_STARTED',
      template: 'TEMPLATE_REQUIRED',
    });
  });
});

it('exec carries the command, its environment and its input', () => {
  const input = Buffer.from([0, 255]);
  assert.deepEqual(execRequest('sb1', { path: '/bin/x', arguments: ['-a'] }, { env: ['A=1'], timeout: 5 }, input), {
    sandboxId: 'sb1',
    path: '/bin/x',
    arguments: ['-a'],
    environment: ['A=1'],
    standardInput: input,
    timeoutMs: 5,
  });
});

describe('attach', () => {
  it('each source has its own field and an absolute path', () => {
    const spec = (options: Parameters<typeof attachRequest>[2]): unknown =>
      attachRequest('sb1', 'v', options, '/cwd').spec;
    assert.deepEqual(spec({ sources: { raw: 'a' } }), { rawFile: { path: '/cwd/a' } });
    assert.deepEqual(spec({ sources: { qcow2: '../a' } }), { qcow2File: { path: '/a' } });
    assert.deepEqual(spec({ sources: { block: '/dev/x' } }), { blockDevice: { path: '/dev/x' } });
  });

  it('every option reaches its field', () => {
    const request = attachRequest(
      'sb1',
      'v',
      {
        sources: { raw: '/r' },
        readOnly: true,
        cache: 'directsync',
        aio: 'io_uring',
        discard: 'ignore',
        detectZeroes: 'unmap',
        serial: 's',
        queues: 2,
        logicalBlockSize: 512,
        physicalBlockSize: 4096,
        mount: 'relative/in/guest',
        fsType: 'xfs',
        mountOptions: ['ro'],
        format: 'if-empty',
        partition: 3,
        fsck: 'repair',
        timeout: 7,
      },
      '/cwd',
    );
    assert.deepEqual(request, {
      sandboxId: 'sb1',
      volumeId: 'v',
      timeoutMs: 7,
      spec: {
        rawFile: { path: '/r' },
        readOnly: true,
        cache: 'CACHE_MODE_DIRECTSYNC',
        aio: 'AIO_MODE_IO_URING',
        discard: 'DISCARD_MODE_IGNORE',
        detectZeroes: 'DETECT_ZEROES_UNMAP',
        serial: 's',
        queues: 2,
        logicalBlockSize: 512,
        physicalBlockSize: 4096,
        mount: {
          mountPoint: 'relative/in/guest',
          fsType: 'xfs',
          options: ['ro'],
          format: 'FORMAT_IF_EMPTY',
          partition: 3,
          fsck: 'FSCK_REPAIR',
        },
      },
    });
  });

  it('contradictions are usage errors', () => {
    const usage = (error: unknown): boolean => error instanceof CliFailure && error.exitCode === 2;
    assert.throws(() => attachRequest('s', 'v', { sources: {} }, '/'), usage);
    assert.throws(() => attachRequest('s', 'v', { sources: { raw: 'a', block: 'b' } }, '/'), usage);
    assert.throws(() => attachRequest('s', 'v', { sources: { raw: 'a' }, fsType: 'xfs' }, '/'), usage);
    assert.throws(() => attachRequest('s', 'v', { sources: { raw: 'a' }, format: 'never' }, '/'), usage);
    assert.throws(() => attachRequest('s', 'v', { sources: { raw: 'a' }, partition: 1 }, '/'), usage);
  });
});
