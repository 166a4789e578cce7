import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ShimError, messageOf } from '../base/errors.ts';

/**
 * What runs in guests are files: src/guest/programs has shell scripts, which guest-exec runs through
 * `sh -c SCRIPT sh ARGUMENT...`, and programs in C, which the guest's build compiles.
 *
 * The scripts are plain shell, with busybox or the full tools. A guest-exec costs 10 to 40 ms under TCG and so does
 * each program, so one script does a whole operation and leaves to the shell what the shell can do. Arguments are never
 * pasted into the text.
 */

const SCRIPTS = join(import.meta.dirname, 'programs');
/** As the shell has it, seen from the folder of the scripts. */
const INCLUDE = /^\. \.\/(\S+)$/gm;
const PLAYER = join(import.meta.dirname, '../../build/guest/programs/player');

/**
 * The text of a script with the files that it includes, each once, where it is first included. For constants of
 * modules: a daemon whose files are replaced while it runs goes on with those that it started with.
 * @param name of a file in src/guest/programs, without `.sh`
 * @throws the system error when it, or what it includes, cannot be read
 */
export function guestScript(name: string): string {
  return withIncludes(`${name}.sh`, new Set());
}

function withIncludes(path: string, included: Set<string>): string {
  included.add(path);
  return readFileSync(join(SCRIPTS, path), 'utf8').replace(INCLUDE, (_, library: string) =>
    included.has(library) ? '' : withIncludes(library, included),
  );
}

/**
 * The player of identities (player.c) as an ELF executable: what a template's guest is given.
 * @throws ShimError FAILED_PRECONDITION / TEMPLATE_UNAVAILABLE when it has not been built, or cannot be read
 */
export async function playerProgram(path: string = PLAYER): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new ShimError(
      'FAILED_PRECONDITION',
      `the program that gives clones their identity cannot be read (npm run guest builds it): ${messageOf(cause)}`,
      { reason: 'TEMPLATE_UNAVAILABLE', cause },
    );
  }
}
