/** `qshim top` and `qshim stats` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { GetStatsResponse__Output as GetStatsResponse } from '../grpc/generated/qshim/v1/GetStatsResponse.ts';
import { present, wholeNumber } from './options.ts';
import type { Session } from './session.ts';

const PERIOD_MS = 2000;
const PERIOD_MS_MIN = 250;
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

export function addStatsCommands(program: CommandUnknownOpts, session: Session): void {
  addTop(program, session);
  addStats(program, session);
}

function addTop(program: CommandUnknownOpts, session: Session): void {
  program
    .command('top')
    .description('What volumes do, the busiest first, until Ctrl-C: rates and times between two looks')
    .argument('[sandbox]', 'id of the sandbox (default: all sandboxes)')
    .option('--once', 'print one table, of the time between two looks, and exit (default: one after the other)')
    .option(
      '--period <ms>',
      `milliseconds between two looks (default: ${PERIOD_MS})`,
      wholeNumber(PERIOD_MS_MIN, 86_400_000),
    )
    .addHelpText('after', '\nExamples:\n  qshim top\n  qshim top sb1 --once --json')
    .action(async (sandboxId, { once = false, period = PERIOD_MS }) => {
      await session.run({ sandboxId }, async (api) => {
        let looks = 0;
        await api.stream<GetStatsResponse>(
          (options) => api.stats.Watch(present({ sandboxId, periodMs: period }), options),
          async (answer) => {
            looks += 1;
            // What goes on is between two looks.
            if (once && looks === 1) return true;
            await showTop(session, answer);
            return !once;
          },
        );
      });
    });
}

async function showTop(session: Session, answer: GetStatsResponse): Promise<void> {
  if (session.json) {
    await session.jsonLine(answer);
    return;
  }
  const { topTable, notLookedAtText } = await import('./stats-view.ts');
  const text = [topTable(answer.volumes, session.widthMax), ...answer.notLookedAt.map(notLookedAtText)].join('\n');
  await session.say(session.surroundings.stdout.isTTY === true ? `${CLEAR_SCREEN}${text}` : `${text}\n`);
}

function addStats(program: CommandUnknownOpts, session: Session): void {
  program
    .command('stats')
    .description('All that QEMU has counted of a volume, looked at now')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .option('--last', 'what was seen last, without asking QEMU (default: look now)')
    .addHelpText('after', '\nExample:\n  qshim stats sb1 data')
    .action(async (sandboxId, volumeId, { last = false }) => {
      await session.run({ sandboxId, volumeId }, async (api) => {
        const request = { sandboxId, volumeId, fresh: !last };
        const { volumes } = await api.call<GetStatsResponse>((options, done) => api.stats.Get(request, options, done));
        const { statsSheet } = await import('./stats-view.ts');
        for (const volume of volumes) {
          if (session.json) await session.document(volume);
          else await session.say(statsSheet(volume, session.widthMax));
        }
      });
    });
}
