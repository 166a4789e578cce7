/**
 * `npm test`: installs what is missing, then lint, types, unit, component and real-QEMU tests. The last line is
 * `N passed, N failed` (`, N skipped` may follow). `npm test -- --help` lists the options.
 */
import { once } from 'node:events';
import { glob } from 'node:fs/promises';
import { run } from 'node:test';
import { Command } from '@commander-js/extra-typings';
import { execa } from 'execa';
import { ensureTestTools } from './lib/prepare.ts';

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

interface Kind {
  readonly name: string;
  readonly needsVm: boolean;
  /** Test files at once. */
  readonly concurrency: number;
  /** Milliseconds for one file; a hang must not outlive CI. */
  readonly timeoutMs: number;
}

const KINDS: readonly Kind[] = [
  { name: 'unit', needsVm: false, concurrency: 2, timeoutMs: 180_000 },
  { name: 'component', needsVm: false, concurrency: 2, timeoutMs: 300_000 },
  { name: 'qemu', needsVm: true, concurrency: 2, timeoutMs: 600_000 },
  // Encrypted volumes in all their cases: `npm run test:confidential`. A shorter part of it is among the qemu tests.
  { name: 'confidential', needsVm: true, concurrency: 2, timeoutMs: 600_000 },
  // Tests that are still being worked on: run only when asked for by name.
  { name: 'draft', needsVm: true, concurrency: 1, timeoutMs: 600_000 },
];

const command = new Command('npm test --')
  .description('Runs every check of the project.')
  .option('--only <kinds>', 'comma-separated: lint, types, unit, component, qemu, confidential, draft')
  .option('--files <text>', 'only test files whose path contains this text')
  .option('--verbose', 'name every test, not only those that failed')
  .parse();
const options = command.opts();
const only = options.only?.split(',');
const tally: Tally = { passed: 0, failed: 0, skipped: 0 };

function wanted(kind: string): boolean {
  if (kind === 'draft' || kind === 'confidential') return only?.includes(kind) === true;
  return only === undefined
    ? options.files === undefined || KINDS.some(({ name }) => name === kind)
    : only.includes(kind);
}

/** A check that is one command: it passes when the command exits with 0. */
async function check(name: string, file: string, args: readonly string[]): Promise<void> {
  const started = performance.now();
  const result = await execa(file, args, { preferLocal: true, reject: false, all: true });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (result.exitCode === 0) {
    tally.passed += 1;
    console.log(`ok      ${name} (${seconds} s)`);
  } else {
    tally.failed += 1;
    console.log(`FAILED  ${name} (${seconds} s)\n${result.all}`);
  }
}

async function runKind(kind: Kind): Promise<void> {
  const files: string[] = [];
  for await (const file of glob(`test/${kind.name}/**/*.test.ts`)) {
    if (options.files === undefined || file.includes(options.files)) files.push(file);
  }
  if (files.length === 0) return;
  files.sort();
  const started = performance.now();
  const before = { ...tally };
  const stream = run({ files, concurrency: kind.concurrency, timeout: kind.timeoutMs });
  stream.on('test:pass', (event) => {
    if (event.details.type === 'suite') return;
    if (event.skip !== undefined) {
      tally.skipped += 1;
      console.log(`skipped ${event.name}: ${typeof event.skip === 'string' ? event.skip : 'no reason given'}`);
    } else {
      tally.passed += 1;
      if (options.verbose === true) console.log(`ok      ${event.name}`);
    }
  });
  stream.on('test:fail', (event) => {
    const { error } = event.details;
    // A suite, or a test with subtests, fails along with its parts; those are counted.
    if ('failureType' in error && error.failureType === 'subtestsFailed') return;
    tally.failed += 1;
    console.log(`FAILED  ${event.name} (${event.file ?? ''})\n${describe(error)}`);
  });
  // Read to the end; the listeners above count.
  stream.resume();
  await once(stream, 'end');
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(
    `${kind.name}: ${tally.passed - before.passed} passed, ${tally.failed - before.failed} failed, ` +
      `${tally.skipped - before.skipped} skipped, ${files.length} files, ${seconds} s`,
  );
}

function describe(error: Error): string {
  const cause = error.cause instanceof Error ? error.cause : error;
  return (cause.stack ?? cause.message).replaceAll(/^/gm, '    ');
}

if (wanted('lint')) {
  await check('lint: eslint', 'eslint', ['.']);
  await check('lint: prettier', 'prettier', ['--check', '.']);
  await check('lint: knip', 'knip', []);
}
if (wanted('types')) await check('types: tsc', 'tsc', []);
for (const kind of KINDS) {
  if (!wanted(kind.name)) continue;
  if (kind.needsVm) await ensureTestTools();
  await runKind(kind);
}
const skipped = tally.skipped > 0 ? `, ${tally.skipped} skipped` : '';
console.log(`${tally.passed} passed, ${tally.failed} failed${skipped}`);
process.exitCode = tally.failed === 0 ? 0 : 1;
