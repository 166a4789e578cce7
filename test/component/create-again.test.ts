import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { z } from 'zod';
import { isShimError } from '../../src/base/errors.ts';
import type { Sandbox } from '../../src/sandbox/sandbox.ts';
import type { RequestedSandboxSpec } from '../../src/sandbox/spec.ts';
import { FakeQemu } from '../support/fake-qemu.ts';
import { InProcess } from '../support/in-process.ts';

/** A Create that fails, and another of the same id: the second begins when the first has ended, not before. */

const SPEC: RequestedSandboxSpec = {
  vcpus: 0,
  memoryMib: 0,
  kernel: '',
  initrd: '',
  kernelParameters: '',
  accelerator: 'tcg',
  volumeCapacity: 0,
  iothreads: 0,
  labels: {},
  readyWhen: 'agent',
  template: 'off',
};
const OTHER_SPEC = { ...SPEC, labels: { try: 'second' } };
const journalSchema = z.object({ sandbox: z.object({ uuid: z.string() }) });

/** Keeps the sandbox from being let go of, once that has begun, until it is allowed. */
function holdRelease(sandbox: Sandbox): Disposable & { readonly begun: Promise<undefined> } {
  const begun = Promise.withResolvers<undefined>();
  const allowed = Promise.withResolvers<undefined>();
  const release = sandbox.release.bind(sandbox);
  sandbox.release = async () => {
    begun.resolve(undefined);
    await allowed.promise;
    await release();
  };
  return { begun: begun.promise, [Symbol.dispose]: () => allowed.resolve(undefined) };
}

async function reasonOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    assert.ok(isShimError(error), String(error));
    return error.reason;
  }
  return 'none';
}

async function settled(work: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  const turn = new Promise((resolve) => setImmediate(resolve, pending));
  return (await Promise.race([work.catch(() => undefined), turn])) !== pending;
}

it('the id of a failed Create is taken until the last of it has ended', { timeout: 60_000 }, async () => {
  await using qemu = await FakeQemu.make();
  const boot = join(qemu.directory, 'boot');
  const qemuBinary = join(qemu.directory, 'qemu');
  await using daemon = await InProcess.start({
    qemu_binary: qemuBinary,
    kernel: boot,
    initrd: boot,
    boot_timeout_ms: 300,
  });
  const { manager } = daemon;
  const types: string[] = [];
  using watcher = manager.events.watch();
  qemu.options.set('one', { prepare: (vm) => vm.agent.stop() });

  const failed = reasonOf(manager.create('one', SPEC));
  const first = manager.sandbox('one');
  let others: readonly Promise<string>[];
  {
    using held = holdRelease(first);
    await held.begun;
    assert.ok(!existsSync(first.files.directory));
    const repeated = reasonOf(manager.create('one', SPEC));
    const other = reasonOf(manager.create('one', OTHER_SPEC));
    const deleted = reasonOf(manager.delete('one', true));
    others = [repeated, deleted];
    assert.equal(await other, 'SANDBOX_EXISTS');
    assert.deepEqual(await Promise.all([failed, ...others].map(settled)), [false, false, false]);
  }
  assert.equal(await failed, 'GUEST_AGENT_TIMEOUT');
  assert.deepEqual(await Promise.all(others), ['GUEST_AGENT_TIMEOUT', 'none']);

  qemu.options.delete('one');
  const second = manager.create('one', OTHER_SPEC);
  assert.equal(await reasonOf(manager.delete('one', true)), 'SANDBOX_CREATING');
  const { uuid, state } = await second;
  assert.equal(state, 'running');
  const journal = await readFile(join(manager.sandbox('one').files.directory, 'state.json'), 'utf8');
  assert.equal(journalSchema.parse(JSON.parse(journal)).sandbox.uuid, uuid);
  while (types.at(-1) !== 'sandbox.running') {
    for (const { type } of await watcher.take(AbortSignal.timeout(10_000))) types.push(type);
  }
  assert.deepEqual(types, [
    'sandbox.creating',
    'sandbox.stopped',
    'sandbox.deleted',
    'sandbox.creating',
    'sandbox.running',
  ]);
});
