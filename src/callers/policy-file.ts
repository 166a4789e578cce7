import { messageOf, ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { run } from '../base/run.ts';
import { FileWatch } from './file-watch.ts';
import { Policy, policyProblem, type Names } from './policy.ts';
import { readTrustedFile } from './trusted-file.ts';

const LOOK_UP_TIMEOUT_MS = 10_000;

/** Users and groups as this host knows them, from whatever its name services are. */
const hostNames: Names = {
  user: (name) => idOf('passwd', name),
  group: (name) => idOf('group', name),
};

/** Id of a group of this host, by its name or number. @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG */
export async function groupId(name: string): Promise<number> {
  try {
    return await hostNames.group(name);
  } catch (error) {
    throw new ShimError('INVALID_ARGUMENT', `socket_group: ${messageOf(error)}`, {
      reason: 'INVALID_CONFIG',
      cause: error,
    });
  }
}

async function idOf(database: 'passwd' | 'group', name: string): Promise<number> {
  if (/^\d{1,10}$/.test(name)) return Number(name);
  const found = await run('getent', ['--', database, name], {
    reject: false,
    timeout: LOOK_UP_TIMEOUT_MS,
    stdin: 'ignore',
    stderr: 'ignore',
  });
  // NAME:PASSWORD:ID:...
  const id = /^[^:\n]*:[^:\n]*:(\d+):/.exec(found.exitCode === 0 ? found.stdout : '')?.[1];
  if (id === undefined) throw new Error(`this host knows no ${database === 'passwd' ? 'user' : 'group'} "${name}"`);
  return Number(id);
}

/**
 * Reads a policy file.
 * @param roots the daemon's, for volumes and for boot images: a root of the policy can be no wider
 * @throws ShimError INVALID_ARGUMENT / INVALID_POLICY
 */
export async function readPolicy(path: string, roots: readonly string[]): Promise<Policy> {
  try {
    const policy = await Policy.parse(await readTrustedFile(path, 'to writers'), hostNames);
    for (const root of policy.roots()) {
      const below = (one: string): boolean => `${root}/`.startsWith(one.endsWith('/') ? one : `${one}/`);
      if (root.startsWith('/') && !roots.some(below)) {
        throw new Error(`the root ${root} lies below none that the daemon allows: ${roots.join(', ')}`);
      }
    }
    return policy;
  } catch (error) {
    throw new ShimError('INVALID_ARGUMENT', policyProblem(path, error), {
      reason: 'INVALID_POLICY',
      metadata: { path },
      cause: error,
    });
  }
}

/** The policy in force: that of a file, taken up anew whenever the file changes and can be used. */
export class PolicyFile implements AsyncDisposable {
  readonly #watch: FileWatch | undefined;
  readonly #changed: (() => void)[] = [];
  #policy: Policy;

  private constructor(policy: Policy, watch: ((loaded: (policy: Policy) => void) => FileWatch) | undefined) {
    this.#policy = policy;
    this.#watch = watch?.((loaded) => {
      this.#policy = loaded;
      for (const listener of this.#changed) listener();
    });
  }

  /**
   * @param path empty: no policy, whoever may open the socket may do everything
   * @throws ShimError INVALID_ARGUMENT / INVALID_POLICY
   */
  static async open(
    path: string,
    options: { readonly roots: readonly string[]; readonly everyMs: number; readonly log: Logger },
  ): Promise<PolicyFile> {
    if (path === '') return new PolicyFile(Policy.open, undefined);
    const { roots, everyMs, log } = options;
    const policy = await readPolicy(path, roots);
    if (!policy.hasAdmin) log.warn({ path }, 'no rule of the policy gives the role admin without a limit');
    return new PolicyFile(
      policy,
      (loaded) =>
        new FileWatch({
          ...{ paths: [path], everyMs, what: 'policy', log },
          load: async () => loaded(await readPolicy(path, roots)),
        }),
    );
  }

  get current(): Policy {
    return this.#policy;
  }

  /** Why the file as it is now is not in force; undefined: it is. */
  get problem(): string | undefined {
    return this.#watch?.problem;
  }

  /** Calls `listener` whenever another policy is in force. */
  onChange(listener: () => void): void {
    this.#changed.push(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch?.[Symbol.asyncDispose]();
  }
}
