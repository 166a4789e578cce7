import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestDaemon } from '../support/daemon.ts';
import { Samples, type Section } from './figures.ts';
import { SETTLE_MS, startDaemon, timed, type Bench } from './rig.ts';

const MIB = 1024 * 1024;
const KEY_BYTES = 32;
/** Little, since the key is random: what is measured is the way, not the stretching of a password. */
const ITERATION_MS = 50;

type Spec = NonNullable<Parameters<TestDaemon['client']['attach']>[0]['spec']>;

/** Attach and detach of plain volumes, of images that QEMU opens, and of LUKS2 that the guest opens. */
export async function encryption(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using daemon = await startDaemon(bench, { config: { key_directories: bench.directory } });
  const { client } = daemon;
  const sandbox = { vcpus: 2, memoryMib: 768, template: 'TEMPLATE_OFF' } as const;
  await client.createSandbox({ sandboxId: 'vm', spec: sandbox });
  const file = join(bench.directory, 'key');
  await writeFile(file, randomBytes(KEY_BYTES / 2).toString('hex'), { mode: 0o600 });
  const ephemeral = { ephemeralKey: {}, mode: 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY', sectorSize: 512 } as const;
  const variants: readonly (readonly [name: string, spec: Spec])[] = [
    ['plain', {}],
    [
      'host_luks',
      { encryption: { hostLuks: { key: { file }, format: 'FORMAT_IF_EMPTY', iterationMs: ITERATION_MS } } },
    ],
    ['guest_luks2, ephemeral key', { encryption: { guestLuks2: ephemeral } }],
  ];
  for (let round = 0; round < (bench.quick ? 1 : 5); round += 1) {
    for (const [name, spec] of variants) {
      // New each time: what is measured includes the making of the encryption.
      const path = await daemon.rawFile(`${name.split(',')[0] ?? ''}.raw`, 64 * MIB);
      const request = { sandboxId: 'vm', volumeId: 'data', spec: { ...spec, rawFile: { path } }, timeoutMs: 120_000 };
      samples.add('attach an empty volume', name, await timed(() => client.attach(request)));
      await sleep(SETTLE_MS);
      samples.add('detach', name, await timed(() => client.detach({ sandboxId: 'vm', volumeId: 'data' })));
      await sleep(SETTLE_MS);
    }
  }
  return {
    name: 'encryption',
    title: 'Encrypted volumes',
    rows: samples.rows(),
    ratios: [],
    notes: [`64 MiB, made anew for each attach. host_luks stretches its key for ${ITERATION_MS} ms.`],
  };
}
