/**
 * Puts now one file and now a symbolic link to another at a path, as fast as it can, until it is killed. Arguments: the
 * path, the file, what the link leads to.
 */
import { linkSync, renameSync, symlinkSync } from 'node:fs';

const [path = '', inside = '', outside = ''] = process.argv.slice(2);
process.stdout.write('swapping\n');
for (;;) {
  linkSync(inside, `${path}.file`);
  renameSync(`${path}.file`, path);
  symlinkSync(outside, `${path}.link`);
  renameSync(`${path}.link`, path);
}
