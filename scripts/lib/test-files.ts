import { glob } from 'node:fs/promises';
import { InvalidArgumentError } from '@commander-js/extra-typings';

/** A comma-separated list, as an option takes it. @throws InvalidArgumentError when a member is empty */
export function list(text: string): string[] {
  const members = text.split(',').map((member) => member.trim());
  if (members.includes('')) throw new InvalidArgumentError('A member of the list is empty.');
  return members;
}

/**
 * The test files of each kind, sorted; of those only the ones whose path contains one of `texts`, when given.
 *
 * @throws Error naming the texts that no file of these kinds contains: a slip of the pen must not pass for a run
 */
export async function testFiles(
  kinds: readonly string[],
  texts?: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const unmatched = new Set(texts);
  const found = new Map<string, readonly string[]>();
  for (const kind of kinds) {
    const files: string[] = [];
    for await (const file of glob(`test/${kind}/**/*.test.ts`)) {
      const matching = texts?.filter((text) => file.includes(text));
      for (const text of matching ?? []) unmatched.delete(text);
      if (matching === undefined || matching.length > 0) files.push(file);
    }
    found.set(kind, files.sort());
  }
  if (unmatched.size > 0) {
    const where = kinds.length === 0 ? 'no kind of tests was chosen' : `looked in ${kinds.join(', ')}`;
    throw new Error(`no test file's path contains ${[...unmatched].join(', ')} (${where})`);
  }
  return found;
}
