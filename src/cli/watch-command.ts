/** `qshim watch` */
import { Option, type CommandUnknownOpts } from '@commander-js/extra-typings';
import type { Event__Output } from '../grpc/generated/qshim/v1/Event.ts';
import type { Sandbox__Output } from '../grpc/generated/qshim/v1/Sandbox.ts';
import { visible } from '../base/visible.ts';
import { CliFailure } from './cli-failure.ts';
import type { Connection } from './connection.ts';
import { present, wholeNumber } from './options.ts';
import type { Session } from './session.ts';
import { causeText, NOTHING, timestampOrNothing, timingsText } from './values.ts';

const SEQUENCE_WIDTH = 6;
const SUBJECT_WIDTH = 24;
const TYPE_WIDTH = 18;

export function addWatchCommand(program: CommandUnknownOpts, session: Session): void {
  program
    .command('watch')
    .description('Print every change that the daemon observes, as it comes, until Ctrl-C')
    .option('--sandbox <id>', 'only this sandbox and its volumes (default: all)')
    .addOption(
      new Option('--after <n>', 'first the events after this sequence number (default: from now on)')
        .argParser(wholeNumber(1, Number.MAX_SAFE_INTEGER))
        .conflicts('all'),
    )
    .option('--epoch <epoch>', 'with --after: the epoch of that number, as --json shows it (default: whatever it is)')
    .option('--all', 'first all events that the daemon still has (default: from now on)')
    .addHelpText('after', '\nExamples:\n  qshim watch --all\n  qshim watch --sandbox sb1 --after 120 --json')
    .action(async (options) => {
      const { sandbox: sandboxId } = options;
      await session.run({ sandboxId }, async (api) => {
        if (sandboxId !== undefined) await remarkIfUnknown(session, api, sandboxId);
        const { sandbox, after, epoch, all } = options;
        const request = present({ sandboxId: sandbox, afterSequence: after, afterEpoch: epoch, allRetained: all });
        await api.stream<Event__Output>(
          (callOptions) => api.events.Watch(request, callOptions),
          (event) => (session.json ? session.jsonLine(event) : session.say(eventLine(event))),
        );
      });
    });
}

/** Events may come of a sandbox that is not made yet, or is gone. A typing error waits for ever: say so. */
async function remarkIfUnknown(session: Session, api: Connection, sandboxId: string): Promise<void> {
  try {
    await api.call<Sandbox__Output>((options, done) => api.sandboxes.Get({ sandboxId }, options, done));
  } catch (error) {
    if (!(error instanceof CliFailure) || error.reason !== 'SANDBOX_NOT_FOUND') throw error;
    session.remark(`there is no sandbox ${sandboxId} now; what comes of one of that name is shown`);
  }
}

/** One event on one line: time, sequence, what it is about, type, then cause and timings where there are any. */
export function eventLine(event: Event__Output): string {
  const subject = event.volumeId === '' ? event.sandboxId : `${event.sandboxId}/${event.volumeId}#${event.generation}`;
  const line = [
    timestampOrNothing(event.time).padEnd('2000-01-01T00:00:00.000Z'.length),
    String(event.sequence).padStart(SEQUENCE_WIDTH),
    visible(subject).padEnd(SUBJECT_WIDTH),
    visible(event.type).padEnd(TYPE_WIDTH),
  ];
  const cause = causeText(event.cause);
  if (cause !== NOTHING) line.push(cause);
  if (event.timings.length > 0) line.push(`[${timingsText(event.timings)}]`);
  return line.join('  ').trimEnd();
}
