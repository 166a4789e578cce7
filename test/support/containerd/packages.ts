import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';

const root = join(import.meta.dirname, '../../..');
const cache = join(root, 'build/containerd');

/** Debian suite that carries each containerd which is tested; bookworm's own 1.6 knows no gRPC shims. */
const SUITES = { '2.1': 'sid', '1.7': 'trixie' } as const;
export type ContainerdVersion = keyof typeof SUITES;

export interface ContainerdBinaries {
  readonly containerd: string;
  readonly ctr: string;
}

/** containerd cannot be had here: no Debian mirror among apt's sources, or it cannot be reached. */
export class NotAvailable extends Error {}

/**
 * An unmodified containerd from Debian, unpacked below build/ and never installed. Downloaded once; apt checks
 * signatures, with lists of its own, so that the machine's lists and sources stay as they are.
 * @throws NotAvailable with the reason
 */
export async function ensureContainerd(version: ContainerdVersion): Promise<ContainerdBinaries> {
  const directory = join(cache, version);
  const binaries = { containerd: join(directory, 'usr/bin/containerd'), ctr: join(directory, 'usr/bin/ctr') };
  if (existsSync(binaries.containerd) && existsSync(binaries.ctr)) return binaries;
  await mkdir(cache, { recursive: true });
  const work = join(cache, `fetch-${version}-${process.pid}`);
  try {
    const deb = await download(SUITES[version], work);
    const unpacked = join(work, 'tree');
    await execa('dpkg-deb', ['-x', deb, unpacked]);
    await rm(directory, { recursive: true, force: true });
    await rename(unpacked, directory);
  } catch (error) {
    throw new NotAvailable(`containerd ${version} cannot be fetched: ${String(error).split('\n')[0] ?? ''}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return binaries;
}

async function download(suite: string, work: string): Promise<string> {
  for (const name of ['lists/partial', 'cache/archives/partial']) await mkdir(join(work, name), { recursive: true });
  const sources = join(work, 'sources.list');
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  await writeFile(sources, `deb [signed-by=${keyring}] ${await debianMirror()} ${suite} main\n`);
  const options = [
    `Dir::Etc::SourceList=${sources}`,
    'Dir::Etc::SourceParts=/dev/null',
    `Dir::State::Lists=${join(work, 'lists')}`,
    'Dir::State::Status=/dev/null',
    `Dir::Cache=${join(work, 'cache')}`,
    'Acquire::Languages=none',
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option]);
  const env = { LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' };
  await execa('apt-get', ['-q', ...options, 'update'], { env, cwd: work });
  await execa('apt-get', ['-q', ...options, 'download', 'containerd'], { env, cwd: work });
  const deb = (await readdir(work)).find((name) => name.endsWith('.deb'));
  if (deb === undefined) throw new Error(`apt-get downloaded no containerd of ${suite}`);
  return join(work, deb);
}

/** The mirror that this machine has Debian from: the other suites are beside it. */
async function debianMirror(): Promise<string> {
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)';
  const { stdout } = await execa('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
  const targets = stdout.split('\n').map((line) => line.split(' '));
  const found = targets.find(([uri, , component]) => component === 'main' && /\/debian\/?$/.test(uri ?? ''));
  if (found?.[0] === undefined) throw new Error('apt has no Debian mirror among its sources');
  return found[0];
}
