/**
 * `qshim doctor`: the checks of this host come from src/doctor by injection; only the question to the daemon is ours.
 */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import { resolve } from 'node:path';
import { inOneLine, type Finding } from '../doctor/finding.ts';
import { messageOf } from '../base/errors.ts';
import { CliFailure, Interrupted } from './cli-failure.ts';
import { EXIT } from './exit-codes.ts';
import { HEALTH_DEADLINE_MS } from './health-command.ts';
import { hintFor } from './hints.ts';
import type { Session } from './session.ts';
import { visible } from '../base/visible.ts';

const CONTAINERD_CONFIG = '/etc/containerd/config.toml';

export function addDoctorCommand(program: CommandUnknownOpts, session: Session): void {
  program
    .command('doctor')
    .description('Look at this host: QEMU, KVM, I/O, guest image, folders, memory, daemon; and say what to do')
    .option(
      '--config <file>',
      'configuration file of the daemon (default: /etc/qshim/config.toml if there is one; QSHIM_* variables count as well)',
    )
    .option(
      '--containerd [file]',
      'also look at the setup of containerd (default: do not; its configuration without FILE: /etc/containerd/config.toml)',
    )
    .addHelpText(
      'after',
      '\nEach line is ok, warning or failure. Exits with 0 when nothing failed, else with 1.\n\nExamples:\n  qshim doctor\n  qshim doctor --json\n  qshim doctor --containerd',
    )
    .action(async ({ config, containerd }) => {
      const work = { progress: 'examining this host' };
      await session.guard(work, async () => {
        const { cwd, signal } = session.surroundings;
        const configFile = config === undefined ? undefined : resolve(cwd, config);
        const containerdConfig =
          containerd === undefined ? undefined : containerd === true ? CONTAINERD_CONFIG : resolve(cwd, containerd);
        const asked = { socketPath: session.socketPath, configFile, containerdConfig, signal };
        const found = await session.waiting(work, async () => [
          ...(await session.surroundings.doctor(asked)),
          await daemonFinding(session),
        ]);
        const findings = found.map(inOneLine);
        if (session.json) await session.document({ findings });
        else await session.say(await findingsText(findings));
        session.exitCode = findings.some(({ status }) => status === 'failure') ? EXIT.failed : EXIT.ok;
      });
    });
}

/**
 * Whether the daemon answers grpc.health.v1 over the socket. No daemon is a warning: it may not have been started yet.
 */
async function daemonFinding(session: Session): Promise<Finding> {
  const check = 'daemon';
  const options = session.connectionOptions;
  try {
    session.checkSocket();
    const { askHealth } = await import('./connection.ts');
    const status = await askHealth({ ...options, deadlineMs: options.deadlineMs ?? HEALTH_DEADLINE_MS });
    const detail = `answers at ${options.socketPath}: ${status}`;
    if (status === 'SERVING') return { check, status: 'ok', detail };
    return { check, status: 'failure', detail, remedy: 'see its log; it may be stopping' };
  } catch (error) {
    if (error instanceof Interrupted) throw error;
    const failure = error instanceof CliFailure ? error : undefined;
    const remedy = failure === undefined ? undefined : hintFor(failure);
    return {
      check,
      status: failure?.reason === 'DAEMON_UNREACHABLE' ? 'warning' : 'failure',
      detail: messageOf(error),
      ...(remedy === undefined ? {} : { remedy }),
    };
  }
}

async function findingsText(findings: readonly Finding[]): Promise<string> {
  const { table } = await import('./table.ts');
  // Never cut: what to do is at the end of the line.
  const rows = findings.flatMap(({ check, status, detail, remedy }) => [
    [status, visible(check), visible(detail)],
    ...(remedy === undefined ? [] : [['', '', `-> ${visible(remedy)}`]]),
  ]);
  return table([], rows);
}
