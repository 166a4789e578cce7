import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { buildRelease } from './release/build.ts';

const help = `Builds the files of a release from the commit that is checked out, into build/release.

Usage: npm run release -- [--out DIRECTORY]

  qshim-VERSION.tgz           the package, with npm-shrinkwrap.json
  qshim-VERSION.cdx.json      the software bill of materials (CycloneDX 1.6)
  qshim-VERSION.licences.txt  the licences of all packages that it runs with, and their texts
  SHA256SUMS                  for sha256sum -c

It ends with code 1, and leaves nothing, when a package has a licence that scripts/release/licences.ts does not list.
The same commit, npm and Node.js give the same bytes.
`;

const { values } = parseArgs({ options: { out: { type: 'string' }, help: { type: 'boolean', short: 'h' } } });

if (values.help === true) {
  process.stdout.write(help);
} else {
  const root = join(import.meta.dirname, '..');
  const { stdout: changed } = await execa('git', ['status', '--porcelain'], { cwd: root });
  if (changed !== '') console.error('what is not committed is not in the release:\n' + changed);
  const { directory, commit, files } = await buildRelease(root, resolve(values.out ?? join(root, 'build/release')));
  console.log(`commit ${commit}`);
  for (const file of files) console.log(relative(process.cwd(), join(directory, file)));
}
