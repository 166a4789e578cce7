import assert from 'node:assert/strict';
import { copyFile, mkdir, mkdtemp, open, readdir, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import type { OptionName } from '../../src/config.ts';
import { identify } from '../../src/qemu/process.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import { TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { KERNEL, realVmSkipReason } from '../support/guest-image.ts';
import { qemuProcessesBelow } from '../support/leaks.ts';
import { endHoldersBelow, holdersBelow } from '../support/template-holders.ts';
import { until } from '../support/until.ts';

/** Sandboxes that start from templates, through the daemon: when they do, when they do not, and what is left. */

const CLONE = 'START_KIND_CLONE';
const COLD = 'START_KIND_COLD_BOOT';
/** Without the search for a KVM that works. */
const spec = { accelerator: 'ACCELERATOR_TCG' } as const;
const TEMPLATE_KEY = /^[0-9a-f]{64}$/;

/** Machine ids that two clones must not share, by the guest's own words. */
const MACHINE_FACTS = [
  'echo "random=$(head -c 16 /dev/urandom | od -An -tx1)"',
  'echo "kernelUuid=$(cat /proc/sys/kernel/random/uuid)"',
  'echo "bootId=$(cat /proc/sys/kernel/random/boot_id)"',
  'echo "productUuid=$(cat /sys/class/dmi/id/product_uuid)"',
  'echo "hostname=$(hostname)"',
].join('\n');

describe('sandboxes from templates', { skip: await realVmSkipReason() }, () => {
  let root = '';
  let templates = '';

  before(async () => {
    root = await mkdtemp('/dev/shm/qshim-t-');
    templates = join(root, 'templates');
  });

  after(async () => {
    assert.deepEqual(await qemuProcessesBelow(root), []);
    await endHoldersBelow(root);
    await rm(root, { recursive: true });
  });

  const start = (config: Partial<Record<OptionName, string | number>> = {}, directory?: string): Promise<TestDaemon> =>
    TestDaemon.start({
      config: { template: 'required', templates_dir: templates, template_delay_ms: 1, ...config },
      ...(directory !== undefined && { directory }),
    });

  /** What is in a directory of templates: finished ones, and what is being made or removed. */
  const contents = async (directory: string): Promise<readonly string[]> => (await readdir(directory)).sort();

  /** The only process that holds a template's memory below a directory. */
  const onlyHolder = async (directory: string): Promise<number> => {
    const [holder = 0, ...others] = await holdersBelow(directory);
    assert.deepEqual(others, []);
    assert.notEqual(holder, 0);
    return holder;
  };

  it('a clone is required and there is no template: it is made first. Two clones are two machines', async () => {
    await using daemon = await start();
    const { client } = daemon;
    const one = await client.createSandbox({ sandboxId: 'one.a', spec });
    const two = await client.createSandbox({ sandboxId: 'two', spec });
    assert.deepEqual([one.start?.kind, one.start?.reason, two.start?.kind], [CLONE, '', CLONE]);
    assert.match(one.start?.templateId ?? '', TEMPLATE_KEY);
    assert.equal(one.start?.templateId, two.start?.templateId);
    assert.deepEqual([one.state, one.agentReady, one.runState], ['SANDBOX_STATE_RUNNING', true, 'running']);
    const [first, second] = await Promise.all(['one.a', 'two'].map((id) => factsOf(client.guest(id, MACHINE_FACTS))));
    for (const name of ['random', 'kernelUuid', 'bootId', 'productUuid', 'hostname']) {
      assert.notEqual(first?.[name] ?? '', '', name);
      assert.notEqual(first?.[name], second?.[name], name);
    }
    assert.deepEqual([first?.['hostname'], second?.['hostname']], ['one-a', 'two']);
    for (const id of ['one.a', 'two']) {
      const earliest = Math.floor(Date.now() / 1000) - 1;
      const seen = Number(await client.guest(id, 'date +%s'));
      assert.ok(seen >= earliest && seen <= Date.now() / 1000 + 1, `the clock of ${id}`);
    }
    assert.deepEqual(await contents(templates), [one.start?.templateId]);
    // Repeating answers as the first time.
    assert.deepEqual((await client.createSandbox({ sandboxId: 'two', spec })).start, two.start);
  });

  it('auto: a boot first, which says so; the template is made behind it; then clones', async () => {
    const own = join(root, 'auto');
    await using daemon = await start({ template: 'auto', templates_dir: own });
    const { client } = daemon;
    const first = await client.createSandbox({ sandboxId: 'first', spec });
    assert.equal(first.start?.kind, COLD);
    assert.match(first.start.reason, /no template for it yet/);
    await until('the template', async () => (await readdir(own)).some((name) => TEMPLATE_KEY.test(name)));
    const second = await client.createSandbox({ sandboxId: 'second', spec });
    assert.equal(second.start?.kind, CLONE);
    const without = await client.createSandbox({ sandboxId: 'off', spec: { ...spec, template: 'TEMPLATE_OFF' } });
    assert.deepEqual([without.start?.kind, without.start?.reason], [COLD, '']);
    const started = await client.createSandbox({ sandboxId: 's', spec: { ...spec, readyWhen: 'READY_WHEN_STARTED' } });
    assert.deepEqual([started.spec?.template, started.start?.kind], ['TEMPLATE_OFF', COLD]);
  });

  it('required and ready when started contradict each other', async () => {
    await using daemon = await start();
    const contradictory = { readyWhen: 'READY_WHEN_STARTED', template: 'TEMPLATE_REQUIRED' } as const;
    const seen = await refusal(daemon.client.createSandbox({ sandboxId: 'one', spec: contradictory }));
    assert.deepEqual([seen.code, seen.metadata['field']], ['INVALID_ARGUMENT', 'spec.template']);
  });

  it('the holder of its memory has ended: it is made anew, also by a daemon that comes back; clones run on', async () => {
    const own = join(root, 'unheld');
    const first = await start({ templates_dir: own });
    const { start: how } = await first.client.createSandbox({ sandboxId: 'before', spec });
    const holder = await onlyHolder(own);
    process.kill(holder, 'SIGKILL');
    const made = await first.client.createSandbox({ sandboxId: 'after', spec });
    assert.deepEqual(made.start, how);
    const another = await onlyHolder(own);
    assert.notEqual(another, holder);
    await first.kill('SIGKILL');
    process.kill(another, 'SIGKILL');
    await using second = await start({ templates_dir: own }, first.directory);
    const again = await second.client.createSandbox({ sandboxId: 'again', spec });
    assert.deepEqual(again.start, how);
    await onlyHolder(own);
    for (const id of ['before', 'after', 'again']) {
      await until('the agent', async () => (await second.client.getSandbox(id)).agentReady);
      assert.equal(await second.client.guest(id, 'hostname'), `${id}\n`);
    }
  });

  it('a directory on a disk does: the memory of a template is not in it', async () => {
    await using cleanup = new AsyncDisposableStack();
    const onDisk = await mkdtemp('/var/tmp/qshim-t-');
    cleanup.defer(async () => {
      await endHoldersBelow(onDisk);
      await rm(onDisk, { recursive: true });
    });
    await using daemon = await start({ templates_dir: onDisk });
    const { start: how } = await daemon.client.createSandbox({ sandboxId: 'one', spec });
    assert.equal(how?.kind, CLONE);
    for (const name of await readdir(join(onDisk, how.templateId)))
      assert.ok((await stat(join(onDisk, how.templateId, name))).size < 16 * 1_048_576, name);
  });

  it('a clone whose journal is lost still has its template', async () => {
    const first = await start();
    const { start: how, stateDir } = await first.client.createSandbox({ sandboxId: 'vm', spec });
    await first.kill('SIGKILL');
    await rm(join(stateDir, 'state.json'));
    await using second = await start({}, first.directory);
    assert.deepEqual((await second.client.getSandbox('vm')).start, how);
  });

  it('a template that does not work: required is refused, auto boots and says why, nothing is left', async () => {
    const own = join(root, 'damaged');
    await using daemon = await start({ templates_dir: own });
    const { client } = daemon;
    const ids: string[] = [];
    for (const vcpus of [1, 2]) {
      const { start: good } = await client.createSandbox({ sandboxId: `good${vcpus}`, spec: { ...spec, vcpus } });
      ids.push(good?.templateId ?? '');
      await client.deleteSandbox(`good${vcpus}`);
    }
    for (const id of ids) await damage(join(own, id, 'state'));
    const seen = await refusal(client.createSandbox({ sandboxId: 'one', spec: { ...spec, vcpus: 1 } }));
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'CLONE_FAILED']);
    assert.deepEqual(await qemuProcessesBelow(daemon.directory), []);
    const auto = { ...spec, template: 'TEMPLATE_AUTO' as const };
    const booted = await client.createSandbox({ sandboxId: 'two', spec: { ...auto, vcpus: 2 } });
    assert.deepEqual([booted.start?.kind, booted.start?.templateId], [COLD, '']);
    assert.match(booted.start?.reason ?? '', /^the clone failed: .*not restored/);
    assert.equal(await client.guest('two', 'hostname'), 'two\n');
    assert.equal((await qemuProcessesBelow(daemon.directory)).length, 1);
    assert.deepEqual(await contents(own), [], 'neither is tried again');
    assert.deepEqual(await holdersBelow(own), [], 'nor does anybody hold their memory');
    // For a while none is made anew: it would fail again and again, at the cost of a boot each time.
    const later = await client.createSandbox({ sandboxId: 'three', spec: { ...auto, vcpus: 1 } });
    assert.match(later.start?.reason ?? '', /^its template could not be made: .*not restored/);
  });

  it('another kernel file, by time or by place, is another template', async () => {
    await using daemon = await start();
    const kernel = join(daemon.bootDir, 'vmlinuz');
    await copyFile(KERNEL, kernel);
    const ids = new Set<string>();
    for (const sandboxId of ['one', 'two']) {
      const made = await daemon.client.createSandbox({ sandboxId, spec: { ...spec, kernel } });
      ids.add(made.start?.templateId ?? '');
      await utimes(kernel, 1, 1);
    }
    const usual = await daemon.client.createSandbox({ sandboxId: 'three', spec });
    assert.equal(ids.add(usual.start?.templateId ?? '').size, 3);
  });

  it('a daemon that comes back adopts its clones, and keeps their template; without users it makes room', async () => {
    const own = join(root, 'kept');
    const first = await start({ templates_dir: own });
    const created = await first.client.createSandbox({ sandboxId: 'vm', spec });
    const held = created.start?.templateId ?? '';
    const holder = await onlyHolder(own);
    await first.kill('SIGKILL');
    await using second = await start({ templates_dir: own, templates_bytes_max: 1_048_576 }, first.directory);
    const adopted = await second.client.getSandbox('vm');
    assert.deepEqual([adopted.start, adopted.qemuPid], [created.start, created.qemuPid]);
    await until('the agent', async () => (await second.client.getSandbox('vm')).agentReady);
    assert.equal(await second.client.guest('vm', 'hostname'), 'vm\n');
    // It is in use: too large as it is for this daemon, it stays.
    assert.deepEqual(await contents(own), [held]);
    assert.equal(await onlyHolder(own), holder);
    const seen = await refusal(second.client.createSandbox({ sandboxId: 'big', spec: { ...spec, vcpus: 2 } }));
    assert.equal(seen.reason, 'TEMPLATE_TOO_LARGE');
    assert.deepEqual(await contents(own), [held]);
    await second.client.deleteSandbox('vm');
    await until('its removal', async () => (await contents(own)).length === 0);
    assert.equal(await identify(holder), undefined);
  });

  it('nothing is left of a template whose daemon was killed while it was made', async () => {
    const own = join(root, 'unfinished');
    await mkdir(own, { mode: 0o700 });
    const first = await start({ templates_dir: own });
    const creating = first.client.createSandbox({ sandboxId: 'vm', spec }).catch(() => undefined);
    await until('its VM', async () => (await qemuProcessesBelow(own)).length === 1);
    await first.kill('SIGKILL');
    await creating;
    await using second = await start({ templates_dir: own, template: 'off' }, first.directory);
    assert.deepEqual(await contents(own), []);
    assert.deepEqual(await holdersBelow(own), []);
    assert.deepEqual(await qemuProcessesBelow(own), []);
    await until('the sandbox is there or gone', async () => {
      const [sandbox] = await second.client.listSandboxes();
      return sandbox?.state !== 'SANDBOX_STATE_CREATING';
    });
  });

  it('a clone whose daemon was killed before it was one is begun anew', async () => {
    const first = await start();
    await first.client.createSandbox({ sandboxId: 'ready', spec });
    const creating = first.client.createSandbox({ sandboxId: 'vm', spec }).catch(() => undefined);
    await until('its QEMU', async () => (await qemuProcessesBelow(first.directoryOf('vm'))).length === 1);
    const [pid = 0] = await qemuProcessesBelow(first.directoryOf('vm'));
    await first.kill('SIGKILL');
    await creating;
    await using second = await start({}, first.directory);
    const made: Sandbox__Output = await second.client.createSandbox({ sandboxId: 'vm', spec });
    assert.equal(made.start?.kind, CLONE);
    if (made.qemuPid !== pid) assert.equal(await identify(pid), undefined, 'the first QEMU is gone');
    assert.equal((await qemuProcessesBelow(second.directoryOf('vm'))).length, 1);
    assert.equal(await second.client.guest('vm', 'hostname'), 'vm\n');
  });
});

async function factsOf(said: Promise<string>): Promise<Readonly<Partial<Record<string, string>>>> {
  const lines = (await said).trim().split('\n');
  return Object.fromEntries(lines.map((line) => [line.split('=')[0] ?? '', line.split('=')[1] ?? '']));
}

/** Overwrites most of a file and leaves everything by which it is recognised as it was, the nanoseconds included. */
async function damage(path: string): Promise<void> {
  const { size } = await stat(path);
  const reference = `${path}.time`;
  await execa('touch', ['-r', path, reference]);
  await using file = await open(path, 'r+');
  await file.write(Buffer.alloc(size - 128, 0xff), 0, size - 128, 64);
  await execa('touch', ['-r', reference, path]);
}
