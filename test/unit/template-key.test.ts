import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bridgesFor } from '../../src/volume/model/slots.ts';
import { qemuArguments, type Launch } from '../../src/qemu/argv.ts';
import type { FileIdentity } from '../../src/qemu/file-identity.ts';
import { sameFile, templateKey, type TemplateInputs } from '../../src/template/key.ts';
import { sandboxFiles } from '../../src/qemu/files.ts';

const file = (path: string): FileIdentity => ({ path, device: '1', inode: '2', bytes: '3', modifiedNs: '4' });

const INPUTS: TemplateInputs = {
  launch: {
    accelerator: 'tcg',
    vcpus: 2,
    memoryMib: 512,
    kernel: '/boot/vmlinuz',
    initrd: '/boot/initrd.img',
    kernelParameters: 'quiet',
    iothreads: [],
    bridges: bridgesFor(31),
    portsMax: 127,
  },
  qemu: file('/usr/bin/qemu'),
  qemuVersion: '7.2.22',
  kernel: file('/boot/vmlinuz'),
  initrd: file('/boot/initrd.img'),
  qshimVersion: '0.1.0',
  hostBoot: 'a',
};

/** The inputs once for each thing that matters, with only that changed. */
function variants(): Map<string, TemplateInputs> {
  const found = new Map<string, TemplateInputs>();
  const launches: Partial<Launch>[] = [
    { accelerator: 'kvm' },
    { vcpus: 3 },
    { memoryMib: 513 },
    { kernel: '/boot/other' },
    { initrd: '/boot/other' },
    { kernelParameters: 'quiet quiet' },
    { bridges: bridgesFor(62) },
    { portsMax: 511 },
    { bridges: bridgesFor(31).map((bridge) => ({ ...bridge, address: bridge.address + 1 })) },
  ];
  for (const change of launches) {
    found.set(JSON.stringify(change), { ...INPUTS, launch: { ...INPUTS.launch, ...change } });
  }
  for (const which of ['qemu', 'kernel', 'initrd'] as const) {
    for (const member of ['path', 'device', 'inode', 'bytes', 'modifiedNs'] as const) {
      found.set(`${which}.${member}`, { ...INPUTS, [which]: { ...INPUTS[which], [member]: '9' } });
    }
  }
  for (const member of ['qemuVersion', 'qshimVersion', 'hostBoot'] as const) {
    found.set(member, { ...INPUTS, [member]: '9' });
  }
  return found;
}

describe('template key', () => {
  it('same inputs, same key, fit for a file name', () => {
    assert.equal(templateKey(INPUTS), templateKey(structuredClone(INPUTS)));
    assert.match(templateKey(INPUTS), /^[0-9a-f]{64}$/);
  });

  it('each thing that matters changes it, and no two changes give the same key', () => {
    const keys = new Map([['unchanged', templateKey(INPUTS)]]);
    for (const [what, inputs] of variants()) keys.set(what, templateKey(inputs));
    assert.equal(keys.size, 1 + 9 + 15 + 3);
    assert.equal(new Set(keys.values()).size, keys.size, JSON.stringify([...keys]));
  });

  it('the parts of one input do not run into those of the next', () => {
    const swapped = { ...INPUTS, kernel: INPUTS.initrd, initrd: INPUTS.kernel };
    assert.notEqual(templateKey(swapped), templateKey(INPUTS));
    assert.notEqual(
      templateKey({ ...INPUTS, qemuVersion: 'a', qshimVersion: 'bc' }),
      templateKey({ ...INPUTS, qemuVersion: 'ab', qshimVersion: 'c' }),
    );
  });

  it('a file is the same only in the same version', () => {
    assert.ok(sameFile(file('/a'), file('/a')));
    for (const member of ['path', 'device', 'inode', 'bytes', 'modifiedNs'] as const) {
      assert.ok(!sameFile(file('/a'), { ...file('/a'), [member]: '9' }), member);
    }
  });
});

describe('QEMU arguments of templates and clones', () => {
  const plain: Launch = { ...INPUTS.launch, sandboxId: 'one', uuid: 'u', files: sandboxFiles('/run/s/one') };
  const withMemory = (kind: 'template' | 'clone'): readonly string[] =>
    qemuArguments({ ...plain, memory: { kind, identitySocket: '/run/s/one/ident.sock' } });

  it('a plain launch has none of it, whether it says so or says nothing', () => {
    const args = qemuArguments(plain);
    assert.deepEqual(qemuArguments({ ...plain, memory: { kind: 'anonymous' } }), args);
    assert.ok(!args.some((arg) => /memory|incoming|identity/.test(arg)), args.join(' '));
  });

  it('the template shares the memory that it inherits, the clone has it privately and waits; else they are the same machine', () => {
    const [template, clone] = [withMemory('template'), withMemory('clone')];
    const object = 'memory-backend-file,id=memory0,size=512M,mem-path=/proc/self/fd/3,share=';
    assert.ok(template.includes(`${object}on`), template.join(' '));
    assert.ok(clone.includes(`${object}off`));
    assert.ok(!template.includes('-incoming'));
    assert.equal(clone[clone.indexOf('-incoming') + 1], 'defer');
    const machine = (args: readonly string[]): string[] =>
      args.filter((arg) => !arg.startsWith(object) && arg !== '-incoming' && arg !== 'defer');
    assert.deepEqual(machine(clone), machine(template));
    assert.ok(clone.some((arg) => arg.startsWith('q35,') && arg.endsWith(',memory-backend=memory0')));
    assert.ok(clone.some((arg) => arg.startsWith('virtserialport,id=identity,bus=serial0.0,nr=2,')));
  });
});
