import fc from 'fast-check';

/** Environment of the model-based tests: replay of one failure, and longer campaigns. */
const SEED = 'QSHIM_SEED';
const PATH = 'QSHIM_PATH';
const RUNS = 'QSHIM_RUNS';
const SHRINK = 'QSHIM_SHRINK';

/** A sequence that once failed, kept so that it is run again each time. */
export interface Regression {
  readonly seed: number;
  readonly path: string;
  /** What it found. */
  readonly found: string;
}

/**
 * The parameters of a model-based run. The seed is drawn unless QSHIM_SEED gives it; QSHIM_PATH goes straight to one
 * counterexample of that seed; QSHIM_RUNS sets how many sequences are tried; QSHIM_SHRINK=1 shrinks what fails.
 * @param shrink whether failures are shrunk without being asked for
 */
export function modelParameters<T>(runsDefault: number, shrink: boolean): fc.Parameters<T> {
  const seed = numberFrom(SEED) ?? Math.trunc(Math.random() * 0x7fffffff);
  const path = process.env[PATH];
  return {
    seed,
    numRuns: numberFrom(RUNS) ?? runsDefault,
    ...(path === undefined ? {} : { path }),
    // Shrinking runs the sequence many times over; where one takes seconds it is asked for by hand.
    endOnFailure: !shrink && process.env[SHRINK] === undefined,
  };
}

/** True when a number of runs, or one counterexample, was asked for by hand: then it is done however long it takes. */
export function isCampaign(): boolean {
  return [PATH, RUNS].some((name) => process.env[name] !== undefined);
}

/** fc.assert that names the seed, the path and how to run the failure again. */
export async function assertModel<T>(property: fc.IAsyncProperty<T>, parameters: fc.Parameters<T>): Promise<void> {
  const result = await fc.check(property, parameters);
  if (!result.failed) return;
  const replay = `${SEED}=${result.seed} ${PATH}=${result.counterexamplePath ?? '0'}`;
  const steps = fc.stringify(result.counterexample);
  const problem = result.errorInstance instanceof Error ? result.errorInstance.stack : String(result.errorInstance);
  throw new Error(
    `a sequence failed (run again with ${replay}), shrunk ${result.numShrinks} times:\n${steps}\n${problem}`,
  );
}

function numberFrom(name: string): number | undefined {
  const text = process.env[name];
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new Error(`${name}=${text} is not a whole number`);
  return value;
}
