/**
 * `npm test`: installs what is missing, then lint, types, unit, component and real-QEMU tests. The last line is
 * `N passed, N failed` (`, N skipped` may follow). `npm test -- --help` lists the options.
 */
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { run } from 'node:test';
import { Command } from '@commander-js/extra-typings';
import { execa } from 'execa';
import { ensureTestTools } from './lib/prepare.ts';
import { endHoldersBelow } from '../test/support/template-holders.ts';
import { shellChecks } from './lib/shell-lint.ts';
import { list, testFiles } from './lib/test-files.ts';

/** So many files are named with their time. */
const LONGEST = 8;

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
  readonly onlyWhenAsked?: boolean;
}

const KINDS: readonly Kind[] = [
  { name: 'unit', needsVm: false, concurrency: 2, timeoutMs: 180_000 },
  { name: 'component', needsVm: false, concurrency: 2, timeoutMs: 300_000 },
  { name: 'qemu', needsVm: true, concurrency: 2, timeoutMs: 600_000 },
  // Encrypted volumes in all their cases: `npm run test:confidential`. A shorter part of it is among the qemu tests.
  { name: 'confidential', needsVm: true, concurrency: 2, timeoutMs: 600_000, onlyWhenAsked: true },
  // Against real containerds from Debian, for some ten minutes: `npm run test:containerd`.
  { name: 'containerd', needsVm: true, concurrency: 1, timeoutMs: 900_000, onlyWhenAsked: true },
  // What attackers have tried, again: `npm run test:security`. What is cheap of it is among the other kinds too.
  { name: 'security', needsVm: true, concurrency: 1, timeoutMs: 900_000, onlyWhenAsked: true },
  // What is done to volumes in use, with what is measured of it: `npm run test:live`. A shorter part is among qemu's.
  { name: 'live', needsVm: true, concurrency: 1, timeoutMs: 900_000, onlyWhenAsked: true },
];

/**
 * The part of the real-QEMU tests that `npm test` runs a second time, with clones: everything that a guest takes part
 * in.
 */
const ALSO_AS_CLONES: readonly string[] = [
  'volumes.test.ts',
  'options.test.ts',
  'adoption.test.ts',
  'sandbox-life.test.ts',
  'batch.test.ts',
];

const command = new Command('npm test --')
  .description('Runs every check of the project.')
  .option(
    '--only <kinds>',
    'comma-separated: lint, types, unit, component, qemu, confidential, containerd, security, live',
    list,
  )
  .option('--files <texts>', 'comma-separated: only test files whose path contains one of these texts', list)
  .option(
    '--template <use>',
    'how sandboxes of the real-QEMU tests start that do not say: off (they boot), required (clones). Default: off, and a part of the tests once more as clones',
  )
  .option('--verbose', 'name every test, not only those that failed')
  .parse();
const options = command.opts();
const { only } = options;
const CHECKS = ['lint', 'types', ...KINDS.map(({ name }) => name)];
const unknown = only?.filter((kind) => !CHECKS.includes(kind)) ?? [];
if (unknown.length > 0) command.error(`--only: there is no ${unknown.join(', ')} among ${CHECKS.join(', ')}`);
const tally: Tally = { passed: 0, failed: 0, skipped: 0 };

function wanted(kind: string): boolean {
  if (only !== undefined) return only.includes(kind);
  const found = KINDS.find(({ name }) => name === kind);
  return found === undefined ? options.files === undefined : found.onlyWhenAsked !== true;
}

// A test's daemon and its helpers are started by the hundred: what Node has compiled once is kept.
process.env['NODE_COMPILE_CACHE'] ??= join(import.meta.dirname, '../build/compile-cache');

const kindsWanted = KINDS.map(({ name }) => name).filter(wanted);
const filesOf = await testFiles(kindsWanted, options.files).catch((error: unknown) =>
  command.error(`--files: ${error instanceof Error ? error.message : String(error)}`),
);

/** A whole run names what it leaves out. */
function sayWhyNot({ name, onlyWhenAsked }: Kind): void {
  if (only !== undefined || options.files !== undefined || onlyWhenAsked !== true) return;
  tally.skipped += 1;
  console.log(`skipped ${name}: takes many minutes; npm run test:${name}`);
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

/** The files that took longest, with their seconds. */
function longest(took: ReadonlyMap<string, number>): string {
  const sorted = [...took].sort(([, one], [, other]) => other - one).slice(0, LONGEST);
  return sorted.map(([file, ms]) => `${basename(file, '.test.ts')} ${Math.round(ms / 1000)} s`).join(', ');
}

/** Runs test files; those of `picked` when given. */
async function runKind(kind: Kind, title: string, picked?: readonly string[]): Promise<void> {
  const files = (filesOf.get(kind.name) ?? []).filter((file) => picked?.includes(basename(file)) ?? true);
  if (files.length === 0) return;
  const started = performance.now();
  const before = { ...tally };
  const stream = run({ files, concurrency: kind.concurrency, timeout: kind.timeoutMs });
  const took = new Map<string, number>();
  const onEnd = (event: { nesting: number; file?: string; details: { duration_ms: number } }): void => {
    if (event.nesting > 0 || event.file === undefined) return;
    took.set(event.file, (took.get(event.file) ?? 0) + event.details.duration_ms);
  };
  stream.on('test:pass', onEnd);
  stream.on('test:fail', onEnd);
  // What a test has measured is part of what it says.
  stream.on('test:stdout', ({ message }) => {
    if (message.startsWith('measured ')) console.log(message.trimEnd());
  });
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
    `${title}: ${tally.passed - before.passed} passed, ${tally.failed - before.failed} failed, ` +
      `${tally.skipped - before.skipped} skipped, ${files.length} files, ${seconds} s`,
  );
  console.log(`  longest: ${longest(took)}`);
}

/** Has the tests' daemons start sandboxes from templates, which they share (test/support/daemon.ts reads this). */
async function inTemplateMode(use: string, work: () => Promise<void>): Promise<void> {
  const directory = await mkdtemp('/dev/shm/qshim-tests-');
  // Some daemons run as another user, with a directory of their own below it.
  await chmod(directory, 0o755);
  process.env['QSHIM_TEST_TEMPLATE'] = use;
  process.env['QSHIM_TEST_TEMPLATES_DIR'] = directory;
  try {
    await work();
  } finally {
    delete process.env['QSHIM_TEST_TEMPLATE'];
    delete process.env['QSHIM_TEST_TEMPLATES_DIR'];
    await endHoldersBelow(directory);
    await rm(directory, { recursive: true });
  }
}

function describe(error: Error): string {
  const cause = error.cause instanceof Error ? error.cause : error;
  return (cause.stack ?? cause.message).replaceAll(/^/gm, '    ');
}

if (wanted('lint')) {
  await check('lint: eslint', 'eslint', ['.']);
  await check('lint: import circles', 'depcruise', ['src']);
  await check('lint: prettier', 'prettier', ['--check', '.']);
  await check('lint: knip', 'knip', []);
  await check('lint: knip, of the product alone', 'knip', ['--production']);
  for (const { command, args, missing } of await shellChecks()) {
    if (missing === undefined) {
      await check(`lint: ${command}`, command, args);
    } else {
      tally.skipped += 1;
      console.log(`skipped lint: ${command}: ${missing}`);
    }
  }
}
if (wanted('types')) await check('types: tsc', 'tsc', []);
for (const kind of KINDS) {
  if (!wanted(kind.name)) {
    sayWhyNot(kind);
    continue;
  }
  if (!kind.needsVm) {
    await runKind(kind, kind.name);
    continue;
  }
  await ensureTestTools();
  const use = options.template ?? 'off';
  if (use !== 'off') await inTemplateMode(use, () => runKind(kind, `${kind.name} (template ${use})`));
  else await runKind(kind, kind.name);
  if (options.template === undefined && options.files === undefined) {
    await inTemplateMode('required', () => runKind(kind, `${kind.name} (as clones)`, ALSO_AS_CLONES));
  }
}
const ran = tally.passed + tally.failed + tally.skipped > 0;
if (!ran) console.log('nothing was chosen to run: see npm test -- --help');
const skipped = tally.skipped > 0 ? `, ${tally.skipped} skipped` : '';
console.log(`${tally.passed} passed, ${tally.failed} failed${skipped}`);
process.exitCode = ran && tally.failed === 0 ? 0 : 1;
