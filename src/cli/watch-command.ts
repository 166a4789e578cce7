/** `qshim watch` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { Event__Output } from '../grpc/generated/qshim/v1/Event.ts';
import { present, wholeNumber } from './options.ts';
import type { Session } from './session.ts';
import { causeText, NOTHING, timestampOrNothing, timingsText, visible } from './values.ts';

const SEQUENCE_WIDTH = 6;
const SUBJECT_WIDTH = 24;
const TYPE_WIDTH = 18;

export function addWatchCommand(program: CommandUnknownOpts, session: Session): void {
  program
    .command('watch')
    .description('Print every change that the daemon observes, as it comes, until Ctrl-C')
    .option('--sandbox <id>', 'only this sandbox and its volumes (default: all)')
    .option(
      '--after <n>',
      'first the events after this sequence number, as far as the daemon still has them (default: from now on)',
      wholeNumber(0, Number.MAX_SAFE_INTEGER),
    )
    .addHelpText('after', '\nExamples:\n  qshim watch\n  qshim watch --sandbox sb1 --after 120 --json')
    .action(async (options) => {
      await session.run({ sandboxId: options.sandbox }, async (api) => {
        const request = present({ sandboxId: options.sandbox, afterSequence: options.after });
        await api.stream<Event__Output>(
          (callOptions) => api.events.Watch(request, callOptions),
          (event) => (session.json ? session.jsonLine(event) : session.say(eventLine(event))),
        );
      });
    });
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
