import assert from 'node:assert/strict';
import { accessSync, constants } from 'node:fs';
import { chmod, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { AcceleratorChoice, payloadFirmware, probeAccelerator } from '../../src/qemu/accelerator.ts';
import { bareQemuBinary, bareQemuMissing } from '../support/bare-qemu.ts';

/** As isa-debug-exit makes it of the payload's 0x2a. */
const PAYLOAD_EXIT_CODE = 85;

/** A program in QEMU's place. */
async function program(script: string): Promise<AsyncDisposable & { readonly path: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-accel-'));
  const path = join(directory, 'qemu');
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return { path, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

const probe = (binary: string, timeoutMs = 60_000): ReturnType<typeof probeAccelerator> =>
  probeAccelerator({ binary, timeoutMs, accelerator: 'tcg' });

function kvmMissing(): string | false {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return false;
  } catch {
    return '/dev/kvm cannot be opened here, so there is nothing to try';
  }
}

async function leftovers(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => /^qshim-[0-9a-f]{8}-/.test(name));
}

describe('accelerator probe', () => {
  it('the payload runs to its end under TCG', { skip: bareQemuMissing() }, async () => {
    const found = await probe(bareQemuBinary);
    assert.deepEqual([found.usable, found.reason], [true, 'a test payload ran']);
    assert.ok(found.milliseconds > 0);
  });

  it('the firmware fills 64 KiB and begins at the reset vector', () => {
    const firmware = payloadFirmware();
    assert.equal(firmware.length, 65_536);
    const jump = firmware.subarray(0xfff0, 0xfff3);
    assert.equal(jump[0], 0xe9);
    assert.equal((0xfff3 + jump.readInt16LE(1)) & 0xffff, 0, 'it jumps to the first instruction');
  });

  it(
    'a probe that cannot be made is no answer: nothing rejects, and it is made again',
    { skip: kvmMissing() },
    async () => {
      await using qemu = await program(`exit ${PAYLOAD_EXIT_CODE}`);
      const choice = new AcceleratorChoice(qemu.path, 60_000);
      const directory = process.env['TMPDIR'];
      process.env['TMPDIR'] = join(tmpdir(), 'qshim-nowhere');
      try {
        const seen = await choice.kvm();
        assert.equal(seen.usable, false);
        assert.match(seen.reason, /could not be tried: ENOENT/);
      } finally {
        if (directory === undefined) delete process.env['TMPDIR'];
        else process.env['TMPDIR'] = directory;
      }
      assert.equal((await choice.kvm()).reason, 'a test payload ran');
    },
  );

  it('only the exit code of the payload counts as usable', async () => {
    for (const code of [0, 1, 84, 86, 127]) {
      await using qemu = await program(`exit ${code}`);
      const found = await probe(qemu.path);
      assert.equal(found.usable, false, `exit code ${code}`);
      assert.ok(found.reason.includes(`exit code ${code}`), found.reason);
    }
    await using qemu = await program(`exit ${PAYLOAD_EXIT_CODE}`);
    assert.equal((await probe(qemu.path)).usable, true);
  });

  it('what QEMU said last is part of the reason', async () => {
    await using qemu = await program('echo first >&2; echo "KVM: no such thing" >&2; exit 1');
    assert.match((await probe(qemu.path)).reason, /KVM: no such thing$/);
  });

  it('what QEMU said is quoted without its full stop', async () => {
    await using qemu = await program('echo "kvm_init_vcpu: failed. Try another host." >&2; kill -ABRT $$');
    const { reason } = await probe(qemu.path);
    assert.match(reason, /SIGABRT/);
    assert.match(reason, /failed; Try another host$/);
  });

  it('a payload that hangs is ended, and counts as unusable', async () => {
    await using qemu = await program('exec sleep 600');
    const found = await probe(qemu.path, 100);
    assert.deepEqual([found.usable, found.reason], [false, 'a test payload did not finish within 100 ms']);
  });

  it('a QEMU that dies of a signal is not usable', async () => {
    await using qemu = await program('kill -ABRT $$');
    const found = await probe(qemu.path);
    assert.equal(found.usable, false);
    assert.match(found.reason, /SIGABRT/);
  });

  it('a binary that is not there is an answer, not a hang', async () => {
    const found = await probe('/nowhere/qemu');
    assert.equal(found.usable, false);
    assert.notEqual(found.reason, '');
  });

  it('it leaves nothing behind', async () => {
    const before = await leftovers();
    await using qemu = await program('exit 1');
    await probe(qemu.path);
    const since = (await leftovers()).filter((name) => !before.includes(name));
    // Other probes may run beside this one; their directories go soon.
    for (let turn = 0; turn < 200 && (await leftovers()).some((name) => since.includes(name)); turn += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const still = await leftovers();
    assert.deepEqual(
      since.filter((name) => still.includes(name)),
      [],
    );
  });

  it('a device that appears later is tried then; what was tried is remembered', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-kvm-'));
    try {
      const device = join(directory, 'kvm');
      const runs = join(directory, 'runs');
      await using qemu = await program(`echo run >> ${runs}; exit ${PAYLOAD_EXIT_CODE}`);
      const choice = new AcceleratorChoice(qemu.path, 60_000, device);
      const before = await choice.kvm();
      assert.deepEqual([before.usable, before.reason], [false, `${device} does not exist`]);
      await writeFile(device, '');
      assert.equal((await choice.kvm()).usable, true);
      await rm(device);
      assert.equal((await choice.kvm()).usable, true);
      assert.equal(await readFile(runs, 'utf8'), 'run\n');
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it('the choice is probed once', async () => {
    const choice = new AcceleratorChoice('/nowhere/qemu', 1000);
    const first = choice.kvm();
    assert.equal(choice.kvm(), first);
    assert.equal((await first).usable, false);
  });
});
