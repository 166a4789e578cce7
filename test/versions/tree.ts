import { access, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

const root = join(import.meta.dirname, '../..');

/** The code of one version of this project. */
export class Tree implements AsyncDisposable {
  /** For people: a commit, or that it is the tree at hand. */
  readonly name: string;
  readonly directory: string;
  readonly #commit: string;
  readonly #isOurs: boolean;

  private constructor(name: string, directory: string, commit: string, isOurs: boolean) {
    this.name = name;
    this.directory = directory;
    this.#commit = commit;
    this.#isOurs = isOurs;
  }

  /** This version, where it lies. */
  static here(): Tree {
    return new Tree('this tree', root, 'HEAD', false);
  }

  /**
   * Another version, from this repository, in a temporary directory that goes with the tree. It runs with the packages
   * of this one.
   * @param ref a commit, tag or branch
   */
  static async checkOut(ref: string): Promise<Tree> {
    const found = await execa('git', ['-C', root, 'rev-parse', '--short', '--verify', '--quiet', `${ref}^{commit}`], {
      reject: false,
    });
    if (found.exitCode !== 0) throw new Error(`this repository has no commit ${ref}`);
    const directory = await mkdtemp(join(tmpdir(), 'qshim-tree-'));
    await using undo = new AsyncDisposableStack();
    undo.defer(() => rm(directory, { recursive: true }));
    const tar = join(directory, 'tree.tar');
    await execa('git', ['-C', root, 'archive', '--format=tar', `--output=${tar}`, found.stdout]);
    await execa('tar', ['-xf', tar, '-C', directory]);
    await rm(tar);
    await symlink(join(root, 'node_modules'), join(directory, 'node_modules'));
    undo.move();
    return new Tree(found.stdout, directory, found.stdout, true);
  }

  /** Whether it has a commit in its history, or is it. @throws Error when this repository does not know */
  async isSince(commit: string): Promise<boolean> {
    const asked = await execa('git', ['-C', root, 'merge-base', '--is-ancestor', commit, this.#commit], {
      reject: false,
    });
    if (asked.exitCode !== 0 && asked.exitCode !== 1) throw new Error(asked.stderr);
    return asked.exitCode === 0;
  }

  /** Whether it keeps sandboxes apart from its own files, under hashes of their ids. */
  async hasOwnNames(): Promise<boolean> {
    return await access(join(this.directory, 'src/sandbox/directories.ts')).then(
      () => true,
      () => false,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOurs) await rm(this.directory, { recursive: true });
  }
}
