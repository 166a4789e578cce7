/** An option for each kind of source. */
import { Option, type CommandUnknownOpts } from '@commander-js/extra-typings';
import { messageOf } from '../base/errors.ts';
import type { VolumeSpec } from '../grpc/generated/qshim/v1/VolumeSpec.ts';
import { SOURCES } from '../volume/source/registry.ts';
import { usageFailure } from './cli-failure.ts';
import { absolutePath } from './options.ts';

/** Adds them to a command; they exclude each other. */
export function addSources(command: CommandUnknownOpts, group: string): void {
  for (const { command: source } of SOURCES) {
    const others = SOURCES.filter((other) => other.command !== source).map((other) => other.command.option);
    command.addOption(
      new Option(`--${source.option} ${source.value}`, source.description).conflicts(others).helpGroup(group),
    );
  }
}

/**
 * The message of the source that was given, by its name in the API.
 * @param options by their names; others are passed over
 * @throws CliFailure for none, several, or one that is wrong
 */
export function sourceOf(
  options: Readonly<Record<string, unknown>>,
  cwd: string,
): Pick<VolumeSpec, 'rawFile' | 'qcow2File' | 'blockDevice' | 'nbdExport'> {
  const given = SOURCES.flatMap(({ messageName, command }) => {
    const text = options[command.option];
    return typeof text === 'string' ? [{ messageName, command, text }] : [];
  });
  const [source, ...more] = given;
  if (source === undefined || more.length > 0) {
    const all = SOURCES.map(({ command }) => `--${command.option} ${command.value.slice(1, -1).toUpperCase()}`);
    throw usageFailure(`give exactly one of ${all.slice(0, -1).join(', ')} and ${all.at(-1) ?? ''}`);
  }
  try {
    return { [source.messageName]: source.command.fromText(source.text, (path) => absolutePath(cwd, path)) };
  } catch (error) {
    throw usageFailure(`--${source.command.option} ${source.text}: ${messageOf(error)}`);
  }
}
