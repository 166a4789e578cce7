import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { RuntimePackage } from './lockfile.ts';

/**
 * Licences, by their SPDX ids, of which somebody has read that qshim (Apache-2.0) may be given away with packages under
 * them. Whatever is not in it fails the release, also an expression such as "MIT OR GPL-2.0-only": read it first, then
 * add it.
 */
export const ALLOWED_LICENCES: ReadonlySet<string> = new Set([
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  'MIT',
]);

/** Files that hold a licence or what it asks to be passed on. */
const LICENCE_FILE = /^(licen[cs]e|copying|notice|copyrightnotice)([.-].*)?$/i;

const manifestSchema = z.object({ name: z.string(), version: z.string(), license: z.string().optional() });

export interface LicenceText {
  readonly file: string;
  readonly text: string;
}

/** A package as it is installed, with the texts of its licence. */
export interface Licensed {
  readonly package: RuntimePackage;
  readonly licence: string;
  readonly texts: readonly LicenceText[];
}

/**
 * Checks the licence of each package, and collects the texts.
 *
 * @param root the project's directory, after `npm ci`
 * @throws Error naming every package whose licence is not allowed or not known, which is installed in another version
 *   than the lock file's, says another licence than there, or brings no text of its licence
 */
export async function checkLicences(
  root: string,
  packages: readonly RuntimePackage[],
  allowed: ReadonlySet<string> = ALLOWED_LICENCES,
): Promise<readonly Licensed[]> {
  const checked = await Promise.all(packages.map((one) => examine(root, one, allowed, packages)));
  const problems = checked.flatMap(({ problem }) => problem ?? []);
  if (problems.length > 0) throw new Error(`licences:\n  ${problems.join('\n  ')}`);
  return checked.flatMap(({ licensed }) => licensed ?? []);
}

/** The file with all licences: a table first, then the texts. */
export function licenceDocument(name: string, version: string, licensed: readonly Licensed[]): string {
  const label = ({ package: one }: Licensed): string => `${one.name} ${one.version}`;
  const width = Math.max(0, ...licensed.map((one) => label(one).length));
  const rule = '='.repeat(79);
  return [
    `Packages that ${name} ${version} runs with, and their licences. ${name} itself: see LICENSE in the package.`,
    '',
    ...licensed.map((one) => `${label(one).padEnd(width)}  ${one.licence}`),
    ...licensed.flatMap((one) => [
      '',
      rule,
      `${label(one)} (${one.licence})`,
      rule,
      ...one.texts.flatMap(({ file, text }) => ['', `--- ${file}`, '', text.replaceAll('\r\n', '\n').trimEnd()]),
    ]),
    '',
  ].join('\n');
}

async function examine(
  root: string,
  one: RuntimePackage,
  allowed: ReadonlySet<string>,
  all: readonly RuntimePackage[],
): Promise<{ readonly problem?: string; readonly licensed?: Licensed }> {
  const label = `${one.name} ${one.version}`;
  const { licence } = one;
  if (licence === undefined) return { problem: `${label} names no licence` };
  if (!allowed.has(licence)) return { problem: `${label} has the licence ${licence}, which is not on the list` };
  const folder = join(root, one.path);
  const manifest = await readFile(join(folder, 'package.json'), 'utf8').catch(() => undefined);
  if (manifest === undefined) return { problem: `${label} is not installed: run npm ci` };
  const installed = manifestSchema.parse(JSON.parse(manifest));
  if (installed.name !== one.name || installed.version !== one.version) {
    return { problem: `${label} is installed as ${installed.name} ${installed.version}: run npm ci` };
  }
  if (installed.license !== licence) {
    return { problem: `${label} says ${installed.license ?? 'nothing'} itself, and ${licence} in package-lock.json` };
  }
  for (const { path } of [one, ...wholesOf(one, all)]) {
    const texts = await licenceTexts(join(root, path));
    if (texts.length > 0) return { licensed: { package: one, licence, texts } };
  }
  return { problem: `${label} brings no text of its licence` };
}

/** The packages of which this one is the part for one platform: released together, and under one licence. */
function wholesOf(part: RuntimePackage, all: readonly RuntimePackage[]): readonly RuntimePackage[] {
  return all.filter(
    ({ version, licence, needs }) => version === part.version && licence === part.licence && needs.includes(part.path),
  );
}

async function licenceTexts(folder: string): Promise<readonly LicenceText[]> {
  const files = (await readdir(folder)).filter((file) => LICENCE_FILE.test(file)).sort();
  return await Promise.all(files.map(async (file) => ({ file, text: await readFile(join(folder, file), 'utf8') })));
}
