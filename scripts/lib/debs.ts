import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

/**
 * Unpacks package files into one directory in which /bin, /sbin, /lib and /lib64 are links into /usr. No root needed.
 * @param leftOut paths in the packages that are not unpacked, such as `./usr/share/doc`
 */
export async function unpackDebs(
  debPaths: readonly string[],
  stage: string,
  leftOut: readonly string[],
): Promise<void> {
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    await mkdir(join(stage, 'usr', name), { recursive: true });
    await symlink(`usr/${name}`, join(stage, name));
  }
  // `dpkg-deb -x` replaces a link to a directory by a directory; tar can be told not to.
  const tarOptions = [
    ...['-x', '-C', stage, '--keep-directory-symlink', '--no-same-owner'],
    ...leftOut.map((path) => `--exclude=${path}`),
  ];
  for (const path of debPaths) {
    await execa('dpkg-deb', ['--fsys-tarfile', path], { buffer: false, stdin: 'ignore' }).pipe('tar', tarOptions);
  }
}
