/**
 * In the place of busctl(1): notes what it is called with, and answers as the test wants it (made-up-systemd.ts).
 * The first argument is the directory for both.
 */
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const [directory = '', ...args] = process.argv.slice(2);
const answersFile = join(directory, 'answers.json');
const [answer = '', ...rest] = JSON.parse(await readFile(answersFile, 'utf8')) as string[];
// What comes last comes again.
if (rest.length > 0) await writeFile(answersFile, JSON.stringify(rest));
await appendFile(join(directory, 'calls'), `${JSON.stringify(args)}\n`);
if (answer === 'hang') await sleep(2 ** 31 - 1);
if (answer !== '') {
  process.stderr.write(answer);
  process.exitCode = 1;
}
