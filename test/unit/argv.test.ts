import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { VOLUME_CAPACITY_MAX, bridgesFor } from '../../src/volume/model/slots.ts';
import { qemuArguments, type Launch } from '../../src/qemu/argv.ts';
import { sandboxFiles } from '../../src/qemu/files.ts';

const LAUNCH: Launch = {
  sandboxId: 'one',
  uuid: '6f1c24e8-0000-4000-8000-000000000000',
  accelerator: 'tcg',
  vcpus: 3,
  memoryMib: 768,
  kernel: '/boot/vmlinuz',
  initrd: '/boot/initrd.img',
  kernelParameters: 'console=ttyS0 quiet',
  iothreads: [],
  bridges: bridgesFor(62),
  portsMax: 127,
  files: sandboxFiles('/run/s/one'),
};

/** The values of one option, in order. */
function valuesOf(option: string, launch: Launch = LAUNCH): string[] {
  const args = qemuArguments(launch);
  return args.flatMap((arg, index) => (arg === option ? [args[index + 1] ?? ''] : []));
}

describe('QEMU arguments', () => {
  it('same input, same arguments', () => {
    assert.deepEqual(qemuArguments(LAUNCH), qemuArguments(structuredClone(LAUNCH)));
  });

  it('what the VM is', () => {
    assert.deepEqual(valuesOf('-machine'), ['q35,accel=tcg,usb=off,vmport=off,graphics=off']);
    assert.deepEqual(valuesOf('-cpu'), ['max']);
    assert.deepEqual(valuesOf('-smp'), ['cpus=3']);
    assert.deepEqual(valuesOf('-m'), ['size=768M']);
    assert.deepEqual(valuesOf('-kernel'), ['/boot/vmlinuz']);
    assert.deepEqual(valuesOf('-initrd'), ['/boot/initrd.img']);
    assert.deepEqual(valuesOf('-append'), ['console=ttyS0 quiet']);
    assert.deepEqual(valuesOf('-uuid'), [LAUNCH.uuid]);
    assert.deepEqual(valuesOf('-name'), ['guest=qshim-one,debug-threads=on']);
  });

  it('KVM takes the host CPU', () => {
    const launch = { ...LAUNCH, accelerator: 'kvm' } as const;
    assert.deepEqual(valuesOf('-cpu', launch), ['host']);
    assert.match(valuesOf('-machine', launch)[0] ?? '', /^q35,accel=kvm,/);
  });

  it('nothing by default, and the process is confined', () => {
    const args = qemuArguments(LAUNCH);
    for (const flag of ['-nodefaults', '-no-user-config']) assert.ok(args.includes(flag), flag);
    assert.deepEqual(valuesOf('-display'), ['none']);
    assert.deepEqual(valuesOf('-sandbox'), ['on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny']);
  });

  it('hot-plug goes through ACPI', () => {
    assert.deepEqual(valuesOf('-global'), ['ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on']);
  });

  it('monitors, console and agent have their files, and wait for nobody', () => {
    assert.deepEqual(valuesOf('-chardev'), [
      'socket,id=qmp,path=/run/s/one/qmp.sock,server=on,wait=off',
      'socket,id=spare,path=/run/s/one/spare.sock,server=on,wait=off',
      'file,id=console,path=/run/s/one/console.log,append=on',
      'socket,id=agent,path=/run/s/one/qga.sock,server=on,wait=off',
      'socket,id=uevents,path=/run/s/one/uevents.sock,server=on,wait=off',
    ]);
    assert.deepEqual(valuesOf('-qmp'), ['chardev:qmp', 'chardev:spare']);
    assert.deepEqual(valuesOf('-serial'), ['chardev:console']);
    assert.ok(
      valuesOf('-device').includes(
        'virtserialport,id=agent,bus=serial0.0,nr=1,chardev=agent,name=org.qemu.guest_agent.0',
      ),
    );
    assert.ok(
      valuesOf('-device').includes(
        'virtserialport,id=uevents,bus=serial0.0,nr=3,chardev=uevents,name=org.qshim.uevents.0',
      ),
    );
  });

  it('one bridge for 31 volumes, each with the reservations that make its slots usable', () => {
    const bridges = valuesOf('-device').filter((value) => value.startsWith('pci-bridge'));
    const rest = 'shpc=off,io-reserve=4k,mem-reserve=1m,pref64-reserve=1m';
    assert.deepEqual(bridges, [
      `pci-bridge,id=bridge0,bus=pcie.0,addr=0x10,chassis_nr=1,${rest}`,
      `pci-bridge,id=bridge1,bus=pcie.0,addr=0x11,chassis_nr=2,${rest}`,
    ]);
    const all = { ...LAUNCH, bridges: bridgesFor(VOLUME_CAPACITY_MAX) };
    const addresses = valuesOf('-device', all).flatMap(
      (value) => /,bus=pcie\.0,addr=(0x[0-9a-f]+)/.exec(value)?.[1] ?? [],
    );
    assert.equal(new Set(addresses).size, addresses.length, 'no two devices at one address');
    assert.equal(addresses.length, 2 + 7);
  });

  it('commas in ids and paths are written twice; options without sub-options stay as they are', () => {
    const launch = { ...LAUNCH, sandboxId: 'a,b', kernelParameters: 'a=1,2', files: sandboxFiles('/run/x,y') };
    assert.deepEqual(valuesOf('-name', launch), ['guest=qshim-a,,b,debug-threads=on']);
    assert.equal(valuesOf('-chardev', launch)[0], 'socket,id=qmp,path=/run/x,,y/qmp.sock,server=on,wait=off');
    assert.equal(valuesOf('-chardev', launch)[2], 'file,id=console,path=/run/x,,y/console.log,append=on');
    assert.deepEqual(valuesOf('-append', launch), ['a=1,2']);
    assert.deepEqual(valuesOf('-append', { ...launch, hostname: 'box' }), ['qshim.hostname=box a=1,2']);
  });
});
