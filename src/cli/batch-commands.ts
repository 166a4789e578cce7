/** `qshim volume attach-many`, `detach-many` and `plan`. */
import { readFile } from 'node:fs/promises';
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import { messageOf } from '../base/errors.ts';
import type { BatchResponse__Output } from '../grpc/generated/qshim/v1/BatchResponse.ts';
import type { PlanResponse__Output } from '../grpc/generated/qshim/v1/PlanResponse.ts';
import type { Problem__Output } from '../grpc/generated/qshim/v1/Problem.ts';
import type { VolumeToAttach } from '../grpc/generated/qshim/v1/VolumeToAttach.ts';
import { volumesFromJson } from './batch-requests.ts';
import { usageFailure } from './cli-failure.ts';
import { exitCodeOf } from './exit-codes.ts';
import { absolutePath, present, wholeNumber } from './options.ts';
import type { Session, Work } from './session.ts';
import { readStandardInput } from './standard-input.ts';

const BY_DAEMON = "(default: the daemon's configuration)";

const LIST_HELP = `
The list is a JSON array: volume ids with specs in the shape of the API, where what is left out has its default.
  [{ "volumeId": "a", "spec": { "rawFile": { "path": "a.img" } } },
   { "volumeId": "b", "spec": { "qcow2File": { "path": "b.qcow2" }, "readOnly": true } }]`;

export function addBatchCommands(volume: CommandUnknownOpts, session: Session): void {
  addAttachMany(volume, session);
  addDetachMany(volume, session);
  addPlan(volume, session);
}

function addAttachMany(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('attach-many')
    .description('Hot-plug several volumes at once; they wait for the guest together. A line for each.')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<file>', 'the list of volumes as JSON; - reads standard input')
    .option('--atomic', 'if one fails, detach those again that this call attached (default: they stay)')
    .option('--timeout <ms>', `milliseconds for each volume ${BY_DAEMON}`, wholeNumber(1))
    .addHelpText('after', `${LIST_HELP}\n\nExample:\n  qshim volume attach-many sb1 volumes.json --atomic`)
    .action(async (sandboxId, file, { atomic, timeout }) => {
      const work = workOn('attaching volumes to', sandboxId);
      await session.run(work, async (api) => {
        const volumes = await readList(session, file);
        const request = { sandboxId, volumes, ...present({ atomic, timeoutMs: timeout }) };
        const answer = await session.waiting(work, () =>
          api.call<BatchResponse__Output>((options, done) => api.volumes.AttachMany(request, options, done)),
        );
        await showBatch(session, answer);
      });
    });
}

function addDetachMany(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('detach-many')
    .description('Unplug several volumes at once and wait until each is proven gone. A line for each.')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volumes...>', 'ids of the volumes')
    .option(
      '--force',
      'take them even if the guest still uses them or does not answer: unwritten data is lost (default: ask the guest first)',
    )
    .option('--timeout <ms>', `milliseconds to wait for the guest, for each volume ${BY_DAEMON}`, wholeNumber(1))
    .addHelpText('after', '\nExample:\n  qshim volume detach-many sb1 a b c')
    .action(async (sandboxId, volumeIds, { force, timeout }) => {
      const work = workOn('detaching volumes from', sandboxId);
      await session.run(work, async (api) => {
        const request = { sandboxId, volumeIds, ...present({ force, timeoutMs: timeout }) };
        const answer = await session.waiting(work, () =>
          api.call<BatchResponse__Output>((options, done) => api.volumes.DetachMany(request, options, done)),
        );
        await showBatch(session, answer);
      });
    });
}

function addPlan(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('plan')
    .description(
      'Tell what attach-many would do: slots, block graph, exact commands, and why it would fail. Changes nothing.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<file>', 'the list of volumes as JSON; - reads standard input')
    .addHelpText('after', `${LIST_HELP}\n\nExample:\n  qshim volume plan sb1 volumes.json`)
    .action(async (sandboxId, file) => {
      await session.run({ sandboxId }, async (api) => {
        const volumes = await readList(session, file);
        const answer = await api.call<PlanResponse__Output>((options, done) =>
          api.volumes.Plan({ sandboxId, volumes }, options, done),
        );
        if (session.json) await session.document(answer);
        else {
          const { planText } = await import('./batch-view.ts');
          await session.say(planText(answer.volumes));
        }
        setExitCode(session, answer.volumes.flatMap(({ problems }) => problems)[0]);
      });
    });
}

/** @throws CliFailure of usage when the list cannot be read */
async function readList(session: Session, file: string): Promise<VolumeToAttach[]> {
  const { stdin, signal, cwd } = session.surroundings;
  if (file === '-') return volumesFromJson((await readStandardInput(stdin, signal)).toString('utf8'), cwd);
  const text = await readFile(absolutePath(cwd, file), 'utf8').catch((error: unknown) => {
    throw usageFailure(`the list of volumes cannot be read: ${messageOf(error)}`);
  });
  return volumesFromJson(text, cwd);
}

async function showBatch(session: Session, answer: BatchResponse__Output): Promise<void> {
  if (session.json) await session.document(answer);
  else {
    const { batchTable } = await import('./batch-view.ts');
    await session.say(batchTable(answer.results, session.widthMax));
  }
  setExitCode(session, answer.results.find(({ problem }) => problem !== null)?.problem);
}

/** The first problem decides, as if it were the failure of a single command. */
function setExitCode(session: Session, problem: Problem__Output | null | undefined): void {
  if (problem !== null && problem !== undefined) session.exitCode = exitCodeOf(problem.code, true);
}

function workOn(doing: string, sandboxId: string): Work {
  return { sandboxId, progress: `${doing} ${sandboxId}`, lookAgain: `\`qshim volume list ${sandboxId} --all\`` };
}
