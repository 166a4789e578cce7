/** `qshim volume ...` */
import { Option, type CommandUnknownOpts } from '@commander-js/extra-typings';
import type { ListVolumesResponse__Output } from '../grpc/generated/qshim/v1/ListVolumesResponse.ts';
import type { Volume__Output } from '../grpc/generated/qshim/v1/Volume.ts';
import { addBatchCommands } from './batch-commands.ts';
import { addKeys, addResize } from './key-commands.ts';
import { addLimit } from './limit-command.ts';
import { addLimitOptions, type LimitOptions } from './limit-options.ts';
import { addRenew } from './lease-commands.ts';
import { LEASE_OPTION_FORM, leaseFields } from './leases.ts';
import { addMoveCommands } from './move-commands.ts';
import { commaList, keysOf, present, wholeNumber } from './options.ts';
import { sizeInBytes, sizeOrAll } from './sizes.ts';
import { addSources } from './source-options.ts';
import type { Session, Work } from './session.ts';
import { addStale } from './stale-commands.ts';
import {
  AIO_MODES,
  attachRequest,
  collectState,
  CACHE_MODES,
  DETECT_ZEROES,
  DISCARD_MODES,
  ENCRYPTIONS,
  FORMATS,
  FSCKS,
  FS_TYPES,
  listRequest,
  LUKS_CREATES,
  READ_ERROR_POLICIES,
  VOLUME_STATES,
  WRITE_ERROR_POLICIES,
} from './volume-requests.ts';

const BY_DAEMON = "(default: the daemon's configuration)";

export function addVolumeCommands(program: CommandUnknownOpts, session: Session): void {
  const volume = program
    .command('volume')
    .alias('vol')
    .description('Volumes of running sandboxes: attach, detach, look at');
  addAttach(volume, session);
  addDetach(volume, session);
  addBatchCommands(volume, session);
  addResize(volume, session);
  addLimit(volume, session);
  addRenew(volume, session);
  addMoveCommands(volume, session);
  addKeys(volume, session);
  addStale(volume, session);
  addGetAndList(volume, session);
}

function addAttach(parent: CommandUnknownOpts, session: Session): void {
  const attach = parent.command('attach');
  addSources(attach, 'Source (one of):');
  addLimitOptions(attach);
  attach
    .description(
      "Hot-plug a volume and wait until the guest's driver is live on it. Repeating it with the same options answers as the first time did.",
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<id>', 'id of your choice for the volume, unique in the sandbox')
    .option('--read-only', 'the guest may not write (default: it may)')
    .addOption(
      new Option('--cache <mode>', 'host page cache and flushing (default: writeback)').choices(keysOf(CACHE_MODES)),
    )
    .addOption(
      new Option('--aio <mode>', 'how QEMU does I/O; auto takes the best that the host allows (default: auto)').choices(
        keysOf(AIO_MODES),
      ),
    )
    .addOption(
      new Option(
        '--discard <mode>',
        'what becomes of the discards of the guest (default: unmap for writable volumes)',
      ).choices(keysOf(DISCARD_MODES)),
    )
    .addOption(
      new Option(
        '--detect-zeroes <mode>',
        'turn written zeroes into holes; unmap needs --discard unmap (default: off)',
      ).choices(keysOf(DETECT_ZEROES)),
    )
    .addOption(
      new Option(
        '--write-errors <policy>',
        'when the host cannot write; stop-on-enospc pauses the VM until there is room (default: stop-on-enospc)',
      ).choices(keysOf(WRITE_ERROR_POLICIES)),
    )
    .addOption(
      new Option(
        '--read-errors <policy>',
        'when the host cannot read (default: report, the guest gets the error)',
      ).choices(keysOf(READ_ERROR_POLICIES)),
    )
    .option('--serial <text>', 'serial that the guest sees, at most 20 bytes (default: made from the volume id)')
    .option('--queues <n>', 'virtqueues (default: the number of vCPUs)', wholeNumber(1))
    .option('--logical-block-size <size>', 'power of two from 512 to 4096 (default: 512)', sizeInBytes())
    .option('--physical-block-size <size>', 'power of two (default: the logical block size)', sizeInBytes())
    .option(
      '--lease <time>',
      `for how long it may stay, unless it is renewed: ${LEASE_OPTION_FORM} (default: until it is detached)`,
      leaseFields,
    )
    .optionsGroup('Mount in the guest:')
    .option('--mount <point>', 'mount it there, and unmount it when it is detached (default: only the bare disk)')
    .addOption(new Option('--fs-type <type>', 'file system (default: ext4)').choices(FS_TYPES))
    .option('--mount-options <list>', 'mount options, separated by commas (default: none)', commaList)
    .addOption(
      new Option(
        '--format <when>',
        'make a file system, only on a volume that is provably empty (default: never)',
      ).choices(keysOf(FORMATS)),
    )
    .option('--partition <n>', 'mount this partition of the disk (default: the whole disk)', wholeNumber(1))
    .addOption(
      new Option(
        '--fsck <when>',
        'check ext4 before it is mounted; repair: what is marked as damaged, full: all of it (default: never)',
      ).choices(keysOf(FSCKS)),
    )
    .optionsGroup('Encryption:')
    .addOption(
      new Option(
        '--encrypt <kind>',
        'host-luks: at rest, QEMU opens it; guest-luks2: also from the host, the guest opens it (default: none)',
      ).choices(ENCRYPTIONS),
    )
    .option(
      '--key <source>',
      'where the key is: file:PATH, credential:NAME, env:NAME, command:NAME, tang:PATH; ephemeral for one that the guest makes (default: none)',
    )
    .addOption(
      new Option(
        '--luks-create <when>',
        'encrypt a volume that is provably empty; only: refuse any other (default: never)',
      ).choices(LUKS_CREATES),
    )
    .option('--luks-uuid <uuid>', 'refuse a volume that has another LUKS UUID (default: any)')
    .option('--integrity', 'guest-luks2: protect every sector with hmac-sha256 (default: no)')
    .option('--luks-sector-size <size>', 'guest-luks2: 512 or 4096 (default: 4096)', sizeInBytes())
    .option('--luks-size <size>', 'host-luks: what the guest sees: 10G, max for what fits (default: max)', sizeOrAll)
    .option('--luks-cipher <name>', 'host-luks: e.g. aes-128, serpent-256 (default: aes-256)')
    .option('--luks-hash <name>', 'host-luks: sha1, sha256, sha512 (default: sha256)')
    .option('--luks-iteration-ms <ms>', 'host-luks: work for each try of a key (default: 2000)', wholeNumber(1))
    .optionsGroup('Waiting:')
    .option('--timeout <ms>', `milliseconds for the guest to bring its driver up ${BY_DAEMON}`, wholeNumber(1))
    .addHelpText(
      'after',
      `
Examples:
  qshim volume attach sb1 data --raw ./data.img
  qshim volume attach sb1 data --qcow2 /var/lib/qshim/volumes/data.qcow2 --cache none --aio native
  qshim volume attach sb1 logs --block /dev/vg0/logs --mount /mnt/logs --fs-type xfs --format if-empty
  qshim volume attach sb1 safe --raw ./safe.img --encrypt guest-luks2 --key file:/etc/qshim/keys/safe --luks-create if-empty`,
    )
    .action(async (sandboxId, volumeId, options, command) => {
      const work = workOn(`attaching ${volumeId} to ${sandboxId}`, sandboxId, volumeId);
      await session.run(work, async (api) => {
        const request = attachRequest(
          sandboxId,
          volumeId,
          { ...options, sources: command.opts(), limits: command.opts() as LimitOptions },
          session.surroundings.cwd,
        );
        const attached = await session.waiting(work, () =>
          api.call<Volume__Output>((callOptions, done) => api.volumes.Attach(request, callOptions, done)),
        );
        await showSummary(session, attached);
      });
    });
}

function addDetach(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('detach')
    .description(
      'Unplug a volume and wait until it is proven gone. When the guest does not let go in time this exits with 5 and the daemon keeps asking.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .option(
      '--force',
      'take it even if the guest still uses it or does not answer: unwritten data is lost (default: ask the guest first)',
    )
    .option('--timeout <ms>', `milliseconds to wait for the guest ${BY_DAEMON}`, wholeNumber(1))
    .addHelpText('after', '\nExamples:\n  qshim volume detach sb1 data\n  qshim volume detach sb1 data --timeout 2000')
    .action(async (sandboxId, volumeId, { force, timeout }) => {
      const work = workOn(`detaching ${volumeId} from ${sandboxId}`, sandboxId, volumeId);
      await session.run(work, async (api) => {
        const request = { sandboxId, volumeId, ...present({ force, timeoutMs: timeout }) };
        const detached = await session.waiting(work, () =>
          api.call<Volume__Output>((callOptions, done) => api.volumes.Detach(request, callOptions, done)),
        );
        await showSummary(session, detached);
      });
    });
}

function addGetAndList(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('get')
    .description('Show one volume: state and evidence, guest device, source, and how long each phase took')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .addHelpText('after', '\nExample:\n  qshim volume get sb1 data')
    .action(async (sandboxId, volumeId) => {
      await session.run({ sandboxId, volumeId }, async (api) => {
        const found = await api.call<Volume__Output>((callOptions, done) =>
          api.volumes.Get({ sandboxId, volumeId }, callOptions, done),
        );
        if (session.json) {
          await session.document(found);
          return;
        }
        const { volumeSheet } = await import('./volume-view.ts');
        await session.say(volumeSheet(found, session.widthMax));
      });
    });
  parent
    .command('list')
    .description('List volumes')
    .argument('[sandbox]', 'id of the sandbox (default: all sandboxes)')
    .addOption(
      new Option('--state <state>', 'only those in this state; may be repeated (default: all but removed)')
        .choices(keysOf(VOLUME_STATES))
        .argParser(collectState)
        .conflicts('all'),
    )
    .option('--all', 'also those that are removed, as far as the daemon remembers them (default: not those)')
    .addHelpText('after', '\nExamples:\n  qshim volume list\n  qshim volume list sb1 --all --json')
    .action(async (sandboxId, options) => {
      await session.run({ sandboxId }, async (api) => {
        const request = listRequest(sandboxId, options);
        const answer = await api.call<ListVolumesResponse__Output>((callOptions, done) =>
          api.volumes.List(request, callOptions, done),
        );
        if (session.json) {
          await session.document(answer);
          return;
        }
        const { volumeTable } = await import('./volume-view.ts');
        await session.say(volumeTable(answer.volumes, session.widthMax));
      });
    });
}

function workOn(progress: string, sandboxId: string, volumeId: string): Work {
  return { sandboxId, volumeId, progress, lookAgain: `\`qshim volume get ${sandboxId} ${volumeId}\`` };
}

async function showSummary(session: Session, volume: Volume__Output): Promise<void> {
  if (session.json) {
    await session.document(volume);
    return;
  }
  const { volumeSummary } = await import('./volume-view.ts');
  await session.say(volumeSummary(volume));
}
