/**
 * Completion for shells. The scripts only ask `qshim __complete WORD ...` for candidates; those come from commander's
 * own tree of commands, so they cannot fall behind the options that this version has. Ids come from the daemon.
 */
import type { CommandUnknownOpts, Option } from '@commander-js/extra-typings';
import { commandsToExplain } from './help-command.ts';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** No candidates make each script fall back to the names of files. */
const SCRIPTS: Readonly<Record<Shell, string>> = {
  bash: `# bash completion for qshim. To use it: source <(qshim completion bash)
_qshim() {
  local IFS=$'\\n'
  mapfile -t COMPREPLY < <("\${COMP_WORDS[0]}" __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o bashdefault -o default -F _qshim qshim
`,
  zsh: `#compdef qshim
# zsh completion for qshim. To use it: source <(qshim completion zsh)
_qshim() {
  local -a found
  found=("\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "\${found[1]}" ]]; then compadd -- "\${found[@]}"; else _files; fi
}
compdef _qshim qshim
`,
  fish: `# fish completion for qshim. To use it: qshim completion fish | source
function __qshim_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  set -l qshim $words[1]
  set -e words[1]
  set -l found ($qshim __complete $words "$current" 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\\n' $found
  else
    __fish_complete_path "$current"
  end
end
complete -c qshim -f -a '(__qshim_complete)'
`,
};

export function completionScript(shell: Shell): string {
  return SCRIPTS[shell];
}

/** What could stand in the last word. */
export interface Completion {
  readonly candidates: readonly string[];
  /** Ids that only the daemon knows, wanted in addition. */
  readonly ids: { readonly kind: 'sandbox' } | { readonly kind: 'volume'; readonly sandboxId: string } | undefined;
}

/** @param words what follows `qshim` on the line; the last one is being typed and may be empty */
export function complete(program: CommandUnknownOpts, words: readonly string[]): Completion {
  const current = words.at(-1) ?? '';
  const place = locate(program, words.slice(0, -1));
  const matching = (candidates: readonly string[]): Completion => ({
    candidates: candidates.filter((candidate) => candidate.startsWith(current)),
    ids: undefined,
  });
  if (place.awaiting !== undefined) return matching(place.awaiting.argChoices ?? []);
  if (place.optionsEnded) return matching([]);
  if (current.startsWith('-')) return matching(flagsOf(place.command));
  if (place.command.commands.length > 0) return matching(place.command.commands.map((command) => command.name()));
  const explained = commandsToExplain(place.command, place.operands);
  if (explained !== undefined) return matching(explained);
  const argument = place.command.registeredArguments[place.operands.length];
  const [sandboxId] = place.operands;
  if (argument?.name() === 'sandbox') return { ...matching([]), ids: { kind: 'sandbox' } };
  if (argument?.name() === 'volume' && sandboxId !== undefined) {
    return { ...matching([]), ids: { kind: 'volume', sandboxId } };
  }
  return matching(argument?.argChoices ?? []);
}

interface Place {
  readonly command: CommandUnknownOpts;
  readonly operands: readonly string[];
  /** An option that has not got its value yet. */
  readonly awaiting: Option | undefined;
  /** True behind "--". */
  readonly optionsEnded: boolean;
}

/** Follows complete words down the tree of commands. Words that make no sense count as operands. */
export function locate(program: CommandUnknownOpts, words: readonly string[]): Place {
  let command = program;
  let awaiting: Option | undefined;
  const operands: string[] = [];
  for (const [index, word] of words.entries()) {
    if (awaiting !== undefined) {
      awaiting = undefined;
    } else if (word === '--') {
      return { command, operands: [...operands, ...words.slice(index + 1)], awaiting, optionsEnded: true };
    } else if (word.startsWith('-')) {
      const option = optionsOf(command).find(({ long, short }) => long === word || short === word);
      if (option !== undefined && (option.required || option.optional)) awaiting = option;
    } else {
      const next = command.commands.find((child) => child.name() === word || child.aliases().includes(word));
      if (next !== undefined) command = next;
      else operands.push(word);
    }
  }
  return { command, operands, awaiting, optionsEnded: false };
}

/** The options of a command and those of its ancestors, which may stand anywhere. */
function optionsOf(command: CommandUnknownOpts): Option[] {
  const inherited = command.parent === null ? [] : optionsOf(command.parent);
  return [...command.options, ...inherited];
}

function flagsOf(command: CommandUnknownOpts): string[] {
  const flags = optionsOf(command).flatMap(({ long, hidden }) => (typeof long === 'string' && !hidden ? [long] : []));
  return [...flags, '--help'];
}
