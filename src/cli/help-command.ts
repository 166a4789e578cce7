/** `qshim help COMMAND...`, and the same below every group of commands. */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';

const NAME = 'help';

/** Gives a command with commands below it, and each of those in turn, a `help` that follows words to any depth. */
export function addHelpCommands(parent: CommandUnknownOpts): void {
  const groups = parent.commands.filter(({ commands }) => commands.length > 0);
  // Commander's own follows one word, and shows the help of a group for whatever comes behind it.
  parent.helpCommand(false);
  const [first] = parent.commands;
  const example = [pathOf(parent), NAME, first?.name() ?? ''].join(' ');
  parent
    .command(NAME)
    .description('Explain a command, as its --help does')
    .argument('[command...]', 'the words of the command')
    .addHelpText('after', `\nExample:\n  ${example}`)
    .action((words) => {
      explained(parent, words).outputHelp();
    });
  for (const group of groups) addHelpCommands(group);
}

/** The command that `help` and these words name. @throws CommanderError when there is none */
function explained(parent: CommandUnknownOpts, words: readonly string[]): CommandUnknownOpts {
  const { found, unknown } = follow(parent, words);
  if (unknown === undefined) return found;
  return found.error(`error: ${pathOf(found)} has no command '${unknown}'`, { code: 'commander.unknownCommand' });
}

/** What can come behind these words of a `help`; undefined when it is another command. */
export function commandsToExplain(help: CommandUnknownOpts, words: readonly string[]): readonly string[] | undefined {
  if (help.name() !== NAME || help.parent === null) return undefined;
  const { found, unknown } = follow(help.parent, words);
  return unknown === undefined ? found.commands.map((command) => command.name()) : [];
}

function follow(
  from: CommandUnknownOpts,
  words: readonly string[],
): { readonly found: CommandUnknownOpts; readonly unknown: string | undefined } {
  let found = from;
  for (const word of words) {
    const next = found.commands.find((command) => command.name() === word || command.aliases().includes(word));
    if (next === undefined) return { found, unknown: word };
    found = next;
  }
  return { found, unknown: undefined };
}

/** The words of a command, from the program's name on. */
export function pathOf(command: CommandUnknownOpts): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}
