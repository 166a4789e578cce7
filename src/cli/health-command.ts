/** `qshim health`: one question to the daemon, for supervisors such as a container's HEALTHCHECK. */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import { EXIT } from './exit-codes.ts';
import type { Session } from './session.ts';
import { visible } from '../base/visible.ts';

/** A daemon that is well answers a health check in milliseconds. */
export const HEALTH_DEADLINE_MS = 3000;

export function addHealthCommand(program: CommandUnknownOpts, session: Session): void {
  program
    .command('health')
    .description('Ask the daemon whether it serves (grpc.health.v1), and print its answer')
    .addHelpText(
      'after',
      `\nExits with 0 when the answer is SERVING, and with 1 for any other. Waits for ${HEALTH_DEADLINE_MS} ms without --deadline.\n\nExamples:\n  qshim health\n  qshim --deadline 1000 health`,
    )
    .action(async () => {
      await session.guard({}, async () => {
        session.checkSocket();
        const { askHealth } = await import('./connection.ts');
        const options = session.connectionOptions;
        const status = await askHealth({ ...options, deadlineMs: options.deadlineMs ?? HEALTH_DEADLINE_MS });
        if (session.json) await session.document({ status });
        else await session.say(visible(status));
        session.exitCode = status === 'SERVING' ? EXIT.ok : EXIT.failed;
      });
    });
}
