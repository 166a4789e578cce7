import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { LOCK_FILE } from '../../src/grpc/state-lock.ts';
import { sandboxesDirectory } from '../../src/qemu/files.ts';
import { MIB, hostLuks, mountAt } from '../support/confidential.ts';
import { TestDaemon } from '../support/daemon.ts';
import { INITRD, KERNEL } from '../support/guest-image.ts';
import { qemuInventory, qemuProcessesBelow } from '../support/leaks.ts';
import { until } from '../support/until.ts';
import type { Tree } from './tree.ts';

const SANDBOXES = ['one', 'two'] as const;
/** Of these the later daemon must know everything. */
const VOLUMES = ['raw', 'qcow2', 'luks'] as const;
const MOUNTED = ['raw', 'luks'] as const;
type VolumeName = (typeof VOLUMES)[number];

/** Runs one check, and counts it. */
export type Check = (what: string, act: () => Promise<void>) => Promise<void>;

/** What a daemon said of a sandbox right before it was killed. */
interface Seen {
  readonly sandbox: Sandbox__Output;
  readonly volumes: ReadonlyMap<string, Volume__Output>;
  readonly bootId: string;
}

/**
 * One daemon is killed, and one of another version comes to what it has left: VMs that run, their journals, and the
 * events. Everything that the first one said must be what the second one says.
 */
export class Crossing {
  readonly #writer: Tree;
  readonly #reader: Tree;
  readonly #check: Check;
  readonly #specs = new Map<string, VolumeSpec>();
  readonly #seen = new Map<string, Seen>();

  /** @param writer the version that makes the sandboxes, @param reader the one that adopts them */
  constructor(writer: Tree, reader: Tree, check: Check) {
    this.#writer = writer;
    this.#reader = reader;
    this.#check = check;
  }

  async run(): Promise<void> {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-x-'));
    try {
      await this.#check(`${this.#writer.name} makes sandboxes and volumes`, () => this.#write(directory));
      await this.#adopt(directory);
    } finally {
      // Those that a failure has left: their sockets lie in the directory of this run.
      for (const pid of await qemuProcessesBelow(directory)) process.kill(pid, 'SIGKILL');
      await rm(directory, { recursive: true, force: true });
    }
  }

  #start(tree: Tree, directory: string): Promise<TestDaemon> {
    return TestDaemon.start({ directory, tree: tree.directory, config: { kernel: KERNEL, initrd: INITRD } });
  }

  /** Makes everything with the first version, takes note of what it says, and kills it in the middle of a detach. */
  async #write(directory: string): Promise<void> {
    const daemon = await this.#start(this.#writer, directory);
    try {
      await Promise.all(SANDBOXES.map((id) => this.#build(daemon, id)));
      for (const id of SANDBOXES) this.#seen.set(id, await look(daemon, id));
      const { qemuPid } = this.#of('two').sandbox;
      process.kill(qemuPid, 'SIGSTOP');
      try {
        const { client } = daemon;
        client.detach({ sandboxId: 'two', volumeId: 'leaving' }).catch(() => undefined);
        const journal = join(this.#of('two').sandbox.stateDir, 'state.json');
        await until('the detach is in the journal', async () =>
          (await readFile(journal, 'utf8')).includes('"state":"detaching"'),
        );
        await daemon.kill('SIGKILL');
      } finally {
        process.kill(qemuPid, 'SIGCONT');
      }
    } finally {
      await daemon.kill('SIGKILL');
    }
  }

  async #build(daemon: TestDaemon, sandboxId: string): Promise<void> {
    const { client } = daemon;
    await client.createSandbox({
      sandboxId,
      spec: {
        ...{ vcpus: 1, memoryMib: 256, volumeCapacity: 40, iothreads: 1, accelerator: 'ACCELERATOR_TCG' },
        ...{ labels: { made: 'before', of: sandboxId }, kernelParameters: 'audit=0' },
      },
    });
    const key = await daemon.keyFile(`${sandboxId}.key`, 'a key of text');
    const image = join(daemon.volumeDir, `${sandboxId}.qcow2`);
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', image, '32M']);
    const raw = (name: string, mib: number): Promise<string> => daemon.rawFile(`${sandboxId}-${name}`, mib * MIB);
    const specs: readonly (readonly [string, VolumeSpec])[] = [
      ['gone', { rawFile: { path: await raw('gone', 16) } }],
      ['raw', { rawFile: { path: await raw('raw', 32) }, mount: { ...mountAt('/mnt/raw'), options: ['noatime'] } }],
      ['qcow2', { qcow2File: { path: image }, cache: 'CACHE_MODE_NONE', detectZeroes: 'DETECT_ZEROES_UNMAP' }],
      [
        'luks',
        { rawFile: { path: await raw('luks', 32) }, mount: mountAt('/mnt/luks'), ...hostLuks({ key: { file: key } }) },
      ],
      ['leaving', { rawFile: { path: await raw('leaving', 16) } }],
    ];
    for (const [volumeId, spec] of specs) {
      this.#specs.set(`${sandboxId}/${volumeId}`, spec);
      await client.attach({ sandboxId, volumeId, spec });
    }
    await client.detach({ sandboxId, volumeId: 'gone' });
    for (const name of MOUNTED) await client.guest(sandboxId, `echo ${sandboxId} > /mnt/${name}/file; sync`);
    // A daemon that adopts a volume asks for no key.
    await rm(key);
  }

  async #adopt(directory: string): Promise<void> {
    const check = this.#check;
    let daemon: TestDaemon | undefined;
    await check(`${this.#reader.name} starts on what is left`, async () => {
      if ((await this.#writer.hasOwnNames()) && !(await this.#reader.hasOwnNames()))
        await rollBack(join(directory, 's'));
      daemon = await this.#start(this.#reader, directory);
    });
    if (daemon === undefined) return;
    const reader: TestDaemon = daemon;
    for (const id of SANDBOXES) await this.#checkSandbox(reader, id);
    await check('two: the detach that was under way is finished', async () => {
      await until('removed', async () =>
        (await reader.client.listVolumes('two')).some(
          ({ volumeId, state }) => volumeId === 'leaving' && state === 'VOLUME_STATE_REMOVED',
        ),
      );
      assert.equal((await reader.client.getVolume('two', 'leaving')).cause?.reason, 'DETACH_REQUESTED');
    });
    for (const id of SANDBOXES) await this.#checkDetach(reader, id);
    await check('nothing was set aside', async () => {
      const names = await readdir(join(directory, 's'), { recursive: true });
      assert.deepEqual(
        names.filter((name) => name.includes('.corrupt-') || name.includes('.left-')),
        [],
      );
    });
    await check('deleted, nothing is left', () => reader[Symbol.asyncDispose]());
    await reader.kill('SIGKILL');
  }

  async #checkSandbox({ client }: TestDaemon, id: string): Promise<void> {
    const check = this.#check;
    await check(`${id}: adopted, the same QEMU, with spec and labels`, async () => {
      const { sandbox } = this.#of(id);
      const now = await client.getSandbox(id);
      assert.equal(now.state, 'SANDBOX_STATE_RUNNING');
      for (const member of ['spec', 'qemuPid', 'accelerator', 'start', 'volumeCapacity'] as const)
        assert.deepEqual(now[member], sandbox[member], member);
    });
    await check(`${id}: its guest was not touched, and answers`, async () => {
      await until('the agent', async () => (await client.getSandbox(id)).agentReady);
      assert.equal(await client.guest(id, 'cat /proc/sys/kernel/random/boot_id'), this.#of(id).bootId);
      for (const name of MOUNTED) assert.equal(await client.guest(id, `cat /mnt/${name}/file`), `${id}\n`);
    });
    for (const name of VOLUMES) {
      await check(`${id}/${name}: attached, with the same spec, mount, guest device and evidence`, async () => {
        assertSame(await client.getVolume(id, name), this.#volume(id, name));
      });
      await check(`${id}/${name}: the same Attach again is a repeat`, async () => {
        const again = await client.attach({ sandboxId: id, volumeId: name, spec: this.#spec(id, name) });
        assertSame(again, this.#volume(id, name));
      });
    }
    await check(`${id}/gone: what was removed is remembered`, async () => {
      // What the guest called it is not kept of a volume that is gone.
      const guestView = { evidence: [], guestDevice: '', guestPciAddress: '' };
      assertSame(await client.getVolume(id, 'gone'), { ...this.#volume(id, 'gone'), ...guestView });
    });
  }

  async #checkDetach({ client }: TestDaemon, id: string): Promise<void> {
    const left = async (): Promise<readonly string[]> => {
      const { stateDir, qemuPid } = await client.getSandbox(id);
      const { peripherals, objects, blockNodes, descriptors } = await qemuInventory(stateDir, qemuPid);
      return [...peripherals, ...objects, ...blockNodes, ...descriptors];
    };
    for (const name of VOLUMES) {
      await this.#check(`${id}/${name}: detached, and QEMU has nothing of it`, async () => {
        const { generation, spec } = this.#volume(id, name);
        const path = spec?.rawFile?.path ?? spec?.qcow2File?.path ?? '';
        const ofVolume = (each: string): boolean => each.startsWith(`vol-${generation}-`) || each === path;
        assert.ok((await left()).filter(ofVolume).length > 2, 'QEMU had it');
        const { state } = await client.detach({ sandboxId: id, volumeId: name });
        assert.equal(state, 'VOLUME_STATE_REMOVED');
        assert.deepEqual((await left()).filter(ofVolume), []);
      });
    }
    await this.#check(`${id}: a volume that is attached anew is another generation, with the same bytes`, async () => {
      const volume = await client.attach({ sandboxId: id, volumeId: 'raw', spec: this.#spec(id, 'raw') });
      assert.ok(volume.generation > this.#volume(id, 'leaving').generation);
      assert.equal(await client.guest(id, 'cat /mnt/raw/file'), `${id}\n`);
    });
  }

  #of(id: string): Seen {
    const seen = this.#seen.get(id);
    assert.ok(seen !== undefined, `sandbox ${id} was not made`);
    return seen;
  }

  #volume(id: string, name: string): Volume__Output {
    const volume = this.#of(id).volumes.get(name);
    assert.ok(volume !== undefined, `volume ${name} of sandbox ${id} was not made`);
    return volume;
  }

  #spec(id: string, name: VolumeName): VolumeSpec {
    return this.#specs.get(`${id}/${name}`) ?? {};
  }
}

/** What docs/operations.md says of a roll-back to a version that had sandboxes by their ids. */
async function rollBack(stateDir: string): Promise<void> {
  const home = sandboxesDirectory(stateDir);
  for (const name of await readdir(home)) await rename(join(home, name), join(stateDir, name));
  await rm(join(stateDir, LOCK_FILE));
}

async function look({ client }: TestDaemon, id: string): Promise<Seen> {
  const [sandbox, volumes, bootId] = await Promise.all([
    client.getSandbox(id),
    client.listVolumes(id),
    client.guest(id, 'cat /proc/sys/kernel/random/boot_id'),
  ]);
  return { sandbox, volumes: new Map(volumes.map((volume) => [volume.volumeId, volume])), bootId };
}

/**
 * All that both versions tell of a volume, but how long its attach took, which is not kept. The API of one of them may
 * not have `resolved_source` yet.
 */
function assertSame(now: Volume__Output, before: Volume__Output): void {
  const bothTell = now.resolvedSource !== '' && before.resolvedSource !== '';
  const unlike = { timings: [], ...(bothTell ? {} : { resolvedSource: '' }) };
  assert.deepEqual({ ...now, ...unlike }, { ...before, ...unlike });
}
