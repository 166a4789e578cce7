/** `qshim volume resize` and `qshim volume keys ...` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { CallOptions, ClientUnaryCall, requestCallback } from '@grpc/grpc-js';
import type { KeySlots__Output } from '../grpc/generated/qshim/v1/KeySlots.ts';
import type { KeySlotsTarget } from '../grpc/generated/qshim/v1/KeySlotsTarget.ts';
import type { VolumesClient } from '../grpc/generated/qshim/v1/Volumes.ts';
import type { Volume__Output } from '../grpc/generated/qshim/v1/Volume.ts';
import type { GetVolumeRequest } from '../grpc/generated/qshim/v1/GetVolumeRequest.ts';
import { usageFailure } from './cli-failure.ts';
import type { Connection } from './connection.ts';
import { absolutePath, present, wholeNumber } from './options.ts';
import { wantedSize, type WantedSize } from './sizes.ts';
import type { Session } from './session.ts';
import { keyReferenceOf } from './volume-requests.ts';

const KEY_OPTION =
  'where it is: file:PATH, credential:NAME, env:NAME, command:NAME, tang:PATH (default: none, it is needed)';

export function addResize(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('resize')
    .description(
      'Grow an attached volume: its image, the disk in the guest, its encryption, and the file system that attach mounted.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .argument(
      '<size>',
      'what the disk is to have, never less than it has: 20G; +5G is that much more; max is what its source has now',
      wantedSize,
    )
    .option('--timeout <ms>', "milliseconds for the guest (default: the daemon's configuration)", wholeNumber(1))
    .addHelpText(
      'after',
      '\nExamples:\n  qshim volume resize sb1 data 20G\n  qshim volume resize sb1 data +5G\n  qshim volume resize sb1 data max',
    )
    .action(async (sandboxId, volumeId, wanted, { timeout }) => {
      const lookAgain = `\`qshim volume get ${sandboxId} ${volumeId}\``;
      const work = { sandboxId, volumeId, progress: `resizing ${volumeId} of ${sandboxId}`, lookAgain };
      await session.run(work, async (api) => {
        const sizeBytes = await bytesOf(api, { sandboxId, volumeId }, wanted);
        const request = { sandboxId, volumeId, sizeBytes, ...present({ timeoutMs: timeout }) };
        const grown = await session.waiting(work, () =>
          api.call<Volume__Output>((options, done) => api.volumes.Resize(request, options, done)),
        );
        if (session.json) {
          await session.document(grown);
          return;
        }
        const { volumeSummary } = await import('./volume-view.ts');
        await session.say(volumeSummary(grown, { timings: false }));
      });
    });
}

/** For the API: bytes, or 0 for what the source has now. */
async function bytesOf(api: Connection, volume: GetVolumeRequest, wanted: WantedSize): Promise<number> {
  switch (wanted.kind) {
    case 'all':
      return 0;
    case 'bytes':
      return wanted.bytes;
    case 'more': {
      const now = await api.call<Volume__Output>((options, done) => api.volumes.Get(volume, options, done));
      const bytes = now.sizeBytes + wanted.bytes;
      if (!Number.isSafeInteger(bytes)) throw usageFailure(`${bytes} bytes are more than can be counted`);
      return bytes;
    }
  }
}

export function addKeys(parent: CommandUnknownOpts, session: Session): void {
  const keys = parent.command('keys').description('Key slots of host-luks images, attached or not');
  const leaf = (name: string, description: string, example: string): ReturnType<typeof withTarget> =>
    withTarget(keys, name, description, example);

  leaf('list', 'Show which key slots are in use', 'qshim volume keys list sb1 data').action(
    async (sandboxId, volumeId, { image }) => {
      const target = targetOf(session, sandboxId, volumeId, image);
      await run(session, sandboxId, volumeId, target, (volumes, ...rest) => volumes.ListKeySlots({ target }, ...rest));
    },
  );
  leaf('add', 'Let one more key open the image', 'qshim volume keys add sb1 data --key file:old --new-key file:new')
    .requiredOption('--key <source>', `a key that opens it now; ${KEY_OPTION}`)
    .requiredOption('--new-key <source>', 'the key to add, likewise (default: none, it is needed)')
    .option('--luks-iteration-ms <ms>', 'work for each try of the new key (default: 2000)', wholeNumber(1))
    .action(async (sandboxId, volumeId, options) => {
      const request = twoKeys(session, sandboxId, volumeId, options);
      await run(session, sandboxId, volumeId, request.target, (volumes, ...rest) => volumes.AddKey(request, ...rest));
    });
  leaf(
    'change',
    'Let another key open the image instead of one',
    'qshim volume keys change --image ./a.img --key file:old --new-key file:new',
  )
    .requiredOption('--key <source>', `the key that goes; ${KEY_OPTION}`)
    .requiredOption('--new-key <source>', 'the key that comes, likewise (default: none, it is needed)')
    .option('--luks-iteration-ms <ms>', 'work for each try of the new key (default: 2000)', wholeNumber(1))
    .action(async (sandboxId, volumeId, options) => {
      const request = twoKeys(session, sandboxId, volumeId, options);
      await run(session, sandboxId, volumeId, request.target, (volumes, ...rest) =>
        volumes.ChangeKey(request, ...rest),
      );
    });
  leaf('remove', 'Take a key away; the last one is refused', 'qshim volume keys remove sb1 data --key file:old')
    .requiredOption('--key <source>', `the key that goes, or with --slot one that stays; ${KEY_OPTION}`)
    .option('--slot <n>', 'the slot that goes, whatever its key (default: those that the key opens)', wholeNumber(0))
    .action(async (sandboxId, volumeId, { image, key, slot }) => {
      const target = targetOf(session, sandboxId, volumeId, image);
      const request = { target, key: keyReferenceOf(key, session.surroundings.cwd), ...present({ slot }) };
      await run(session, sandboxId, volumeId, target, (volumes, ...rest) => volumes.RemoveKey(request, ...rest));
    });
}

function withTarget(parent: CommandUnknownOpts, name: string, description: string, example: string) {
  return parent
    .command(name)
    .description(description)
    .argument('[sandbox]', 'id of the sandbox (default: none, for --image)')
    .argument('[volume]', 'id of the volume (default: none, for --image)')
    .option('--image <path>', 'an image or block device that nothing uses (default: the volume)')
    .addHelpText('after', `\nExample:\n  ${example}`);
}

function targetOf(
  session: Session,
  sandboxId: string | undefined,
  volumeId: string | undefined,
  image: string | undefined,
): KeySlotsTarget {
  if (image !== undefined && sandboxId === undefined) return { image: absolutePath(session.surroundings.cwd, image) };
  if (image === undefined && sandboxId !== undefined && volumeId !== undefined) {
    return { attached: { sandboxId, volumeId } };
  }
  throw usageFailure('give either SANDBOX and VOLUME or --image PATH');
}

function twoKeys(
  session: Session,
  sandboxId: string | undefined,
  volumeId: string | undefined,
  options: {
    readonly image?: string | undefined;
    readonly key: string;
    readonly newKey: string;
    readonly luksIterationMs?: number | undefined;
  },
) {
  const { cwd } = session.surroundings;
  return {
    target: targetOf(session, sandboxId, volumeId, options.image),
    key: keyReferenceOf(options.key, cwd),
    newKey: keyReferenceOf(options.newKey, cwd),
    ...present({ iterationMs: options.luksIterationMs }),
  };
}

type Start = (volumes: VolumesClient, options: CallOptions, done: requestCallback<KeySlots__Output>) => ClientUnaryCall;

async function run(
  session: Session,
  sandboxId: string | undefined,
  volumeId: string | undefined,
  target: KeySlotsTarget,
  start: Start,
): Promise<void> {
  const image = target.image ?? '';
  const subject = image === '' ? `${volumeId ?? ''} of ${sandboxId ?? ''}` : image;
  const work = {
    ...present({ sandboxId, volumeId }),
    progress: `key slots of ${subject}`,
    lookAgain: '`qshim volume keys list`',
  };
  await session.run(work, async (api) => {
    const slots = await session.waiting(work, () =>
      api.call<KeySlots__Output>((options, done) => start(api.volumes, options, done)),
    );
    if (session.json) {
      await session.document(slots);
      return;
    }
    const used = slots.used.flatMap((inUse, slot) => (inUse ? [String(slot)] : []));
    await session.say(`${subject}: ${used.length} of ${slots.used.length} key slots in use (${used.join(', ')})`);
  });
}
