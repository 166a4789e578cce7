import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { configWith } from '../../src/config.ts';
import { bridgesFor } from '../../src/volume/model/slots.ts';
import { qemuArguments } from '../../src/qemu/argv.ts';
import { sandboxFromArguments } from '../../src/sandbox/recover.ts';
import { sandboxFiles } from '../../src/qemu/files.ts';
import { completeSandboxSpec, hostnameOf, type RequestedSandboxSpec } from '../../src/sandbox/spec.ts';

const NOTHING: RequestedSandboxSpec = {
  vcpus: 0,
  memoryMib: 0,
  kernel: '',
  initrd: '',
  kernelParameters: '',
  accelerator: 'auto',
  volumeCapacity: 0,
  iothreads: 0,
  labels: {},
  readyWhen: 'agent',
  template: undefined,
};

describe('the spec of a sandbox', () => {
  it('the configuration says how sandboxes start that do not say; without an agent they boot', () => {
    for (const template of ['auto', 'off', 'required'] as const) {
      const config = configWith({ template });
      assert.equal(completeSandboxSpec(NOTHING, config).template, template);
      assert.equal(completeSandboxSpec({ ...NOTHING, readyWhen: 'started' }, config).template, 'off');
      for (const asked of ['auto', 'off', 'required'] as const) {
        assert.equal(completeSandboxSpec({ ...NOTHING, template: asked }, config).template, asked);
      }
    }
  });

  it('a clone shows by its agent that it runs: required does not go without', () => {
    const spec = { ...NOTHING, readyWhen: 'started', template: 'required' } as const;
    assert.throws(() => completeSandboxSpec(spec, configWith({})), { code: 'INVALID_ARGUMENT' });
  });
});

describe('the host name', () => {
  for (const [id, parameters, expected] of [
    ['web', '', 'web'],
    ['web_1.prod', 'quiet', 'web-1-prod'],
    ['web', 'a=b qshim.hostname=box quiet', 'box'],
    ['web', 'qshim.hostname=box qshim.hostname=last', 'last'],
    ['web', 'notqshim.hostname=box', 'web'],
    ['a'.repeat(64), '', 'a'.repeat(63)],
    [`${'a'.repeat(62)}._`, '', 'a'.repeat(62)],
  ] as const) {
    it(`of ${id.slice(0, 10)} with "${parameters}" is ${expected.slice(0, 10)}`, () => {
      assert.equal(hostnameOf(id, parameters), expected);
    });
  }
});

describe('a sandbox read back from the command line of its QEMU', () => {
  const launch = {
    sandboxId: 'one,two',
    uuid: '6f1c24e8-0000-4000-8000-000000000000',
    accelerator: 'tcg',
    vcpus: 2,
    memoryMib: 256,
    kernel: '/k',
    initrd: '/i',
    kernelParameters: 'console=ttyS0 quiet extra=1',
    hostname: 'one-two',
    bridges: bridgesFor(62),
    iothreads: ['iothread0'],
    portsMax: 127,
    files: sandboxFiles('/s/one'),
  } as const;
  const readBack = (args: readonly string[], templateId = ''): ReturnType<typeof sandboxFromArguments> =>
    sandboxFromArguments(args, { pid: 7, startTicks: 8 }, 'console=ttyS0 quiet', templateId);

  it('the parameters that the daemon adds are not the caller’s', () => {
    const found = readBack(qemuArguments(launch));
    assert.equal(found?.spec.kernelParameters, 'extra=1');
    assert.deepEqual(found.start, { kind: 'cold', templateId: '', reason: '' });
    assert.equal(
      readBack(qemuArguments({ ...launch, kernelParameters: 'console=ttyS0 quiet' }))?.spec.kernelParameters,
      '',
    );
  });

  it('a clone is known by its memory, and its template by what is told of that', () => {
    const args = qemuArguments({ ...launch, memory: { kind: 'clone', identitySocket: '/s/one/ident.sock' } });
    for (const templateId of ['0123456789abcdef'.repeat(4), ''])
      assert.deepEqual(readBack(args, templateId)?.start, { kind: 'clone', templateId, reason: '' });
  });
});
