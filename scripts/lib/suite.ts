import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Where package lists and package files of other suites are kept. */
export const suitesDirectory = join(import.meta.dirname, '..', '..', 'build', 'suites');

/**
 * Packages of another Debian suite than the machine's, with the ordinary apt and without touching the machine: lists,
 * cache and the state of what is installed (nothing) lie in a directory of their own. No root needed.
 */
export class Suite {
  readonly name: string;
  readonly #directory: string;

  private constructor(name: string, directory: string) {
    this.name = name;
    this.#directory = directory;
  }

  /**
   * Fetches the suite's package lists from the mirror that the machine's own apt uses.
   * @throws Error when the machine's apt names no Debian mirror, or the mirror does not have the suite
   */
  static async open(name: string): Promise<Suite> {
    if (!/^[a-z][a-z0-9-]*$/.test(name)) throw new Error(`${JSON.stringify(name)} is no name of a Debian suite`);
    const directory = join(suitesDirectory, name);
    await mkdir(join(directory, 'lists', 'partial'), { recursive: true });
    for (const cache of ['debs', 'none']) await mkdir(join(directory, cache, 'partial'), { recursive: true });
    await writeFile(join(directory, 'status'), '');
    const source = `deb [signed-by=${keyring}] ${await debianMirror()} ${name} main\n`;
    await writeFile(join(directory, 'sources.list'), source);
    const suite = new Suite(name, directory);
    console.error(`package lists of Debian ${name} ...`);
    await suite.#apt('apt-get', ['-q', 'update']);
    return suite;
  }

  /** The version of a package that the suite offers; undefined when it has no such package. */
  async versionOf(packageName: string): Promise<string | undefined> {
    const stdout = await this.#apt('apt-cache', ['policy', packageName]);
    const version = /^ +Candidate: (\S+)$/m.exec(stdout)?.[1];
    return version === '(none)' ? undefined : version;
  }

  /** The names of the packages that this one depends on, directly. */
  async dependenciesOf(packageName: string): Promise<readonly string[]> {
    const stdout = await this.#apt('apt-cache', ['depends', '--important', packageName]);
    return [...stdout.matchAll(/^ [ |](?:Pre)?Depends: ([a-z0-9][^\s:]*)$/gm)].flatMap(([, name]) => name ?? []);
  }

  /** Downloads the packages and all that they depend on; gives the paths of the files. */
  async downloadWithDependencies(packages: readonly string[]): Promise<readonly string[]> {
    const options = ['-q', '--no-install-recommends', '-y'];
    await this.#apt('apt-get', [...options, '--download-only', 'install', ...packages]);
    // apt lists what it would fetch, so it is shown a cache that is empty.
    const empty = ['-o', `Dir::Cache::archives=${join(this.#directory, 'none')}`];
    const listed = await this.#apt('apt-get', [...options, ...empty, '--print-uris', '-qq', 'install', ...packages]);
    const files = [...listed.matchAll(/^'\S+' (\S+\.deb) /gm)].flatMap(([, file]) => file ?? []);
    return files.map((file) => join(this.#directory, 'debs', file));
  }

  /**
   * Downloads packages, and those that they depend on as far as `isWanted` says so.
   * @returns the paths of the files
   * @throws Error when the suite has no such package
   */
  async download(packageName: string, isWanted: (name: string) => boolean): Promise<readonly string[]> {
    if ((await this.versionOf(packageName)) === undefined) {
      throw new Error(`Debian ${this.name} has no package ${packageName}`);
    }
    const names = new Set([packageName]);
    for (const name of names) {
      for (const dependency of await this.dependenciesOf(name)) if (isWanted(dependency)) names.add(dependency);
    }
    const listed = await this.#apt('apt-get', ['download', '--print-uris', ...names]);
    const files = [...listed.matchAll(/^'\S+' (\S+\.deb) /gm)].flatMap(([, file]) => file ?? []);
    const directory = join(this.#directory, 'debs');
    // apt checks what is there already, and fetches it again only if it is damaged.
    await this.#apt('apt-get', ['-q', 'download', ...names], directory);
    return files.map((file) => join(directory, file));
  }

  async #apt(command: 'apt-get' | 'apt-cache', args: readonly string[], cwd = this.#directory): Promise<string> {
    const at = (name: string): string => join(this.#directory, name);
    const settings = {
      'Dir::Etc::sourcelist': at('sources.list'),
      'Dir::Etc::sourceparts': '-',
      'Dir::State::lists': at('lists'),
      'Dir::State::status': at('status'),
      'Dir::State::extended_states': at('extended_states'),
      'Dir::Cache': this.#directory,
      'Dir::Cache::archives': at('debs'),
      'Acquire::Languages': 'none',
      // A mirror that stands still at some day is as good: who signed the lists is checked all the same.
      'Acquire::Check-Valid-Until': 'false',
      'APT::Sandbox::User': '',
      'APT::Keep-Downloaded-Packages': 'true',
    };
    const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
    const { stdout } = await execa(command, [...options, ...args], { cwd, env: { LC_ALL: 'C' }, stdin: 'ignore' });
    return stdout;
  }
}

/** The mirror from which this machine's apt takes Debian's main. */
export async function debianMirror(): Promise<string> {
  const format = '$(ORIGIN) $(COMPONENT) $(REPO_URI)';
  const { stdout } = await execa('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
  const mirror = /^Debian main (\S+)$/m.exec(stdout)?.[1];
  if (mirror === undefined) throw new Error("this machine's apt has no lists of Debian's main: run apt-get update");
  return mirror;
}
