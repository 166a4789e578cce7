import { parse as parseToml } from 'smol-toml';
import { z } from 'zod';
import { messageOf, shimError, type ShimError } from '../base/errors.ts';
import type { DecidingReason } from '../base/reasons.ts';
import { canonicalReference } from '../keys/reference.ts';
import { describeIdentity, type Identity } from './identity.ts';

/**
 * Who may do what. Pure: the file is read in policy-file.ts, and asked for in gate.ts.
 *
 *     a connection ─▶ Identity ─┐
 *     an RPC ─▶ role, target ───┼─▶ Policy.grant ─▶ Grant (roots, keys), or the rule that was missed
 *     policy.toml ─▶ Policy ────┘
 */

/** `admin` has all of them, and each of them has `read`. */
export const ROLES = ['read', 'volume', 'exec', 'admin'] as const;
export type Role = (typeof ROLES)[number];
export type Labels = Readonly<Record<string, string>>;

const RULES_MAX = 1024;
const name = z.string().min(1).max(256);
const id = z.int().min(0).max(0xffff_fffe);
/** A directory of the host, or the host of an NBD export. */
const root = z.string().regex(/^(?:\/|nbd:.)/, 'must be an absolute path, or nbd:HOST');

const ruleSchema = z.strictObject({
  /** For messages and the audit log; without it the rule's number. */
  name: name.optional(),
  users: z.array(z.union([id, name])).default([]),
  groups: z.array(z.union([id, name])).default([]),
  certificates: z.array(name).default([]),
  roles: z.array(z.enum(ROLES)).min(1),
  /** Only sandboxes that have all of these labels. */
  sandboxes: z.record(name, z.string()).optional(),
  /** Only sources and boot images below these. */
  roots: z.array(root).optional(),
  /** Only keys of these references, as `file:/etc/keys/a`; one that ends in `*` stands for all that begin so. */
  keys: z.array(name).optional(),
});
const policySchema = z.strictObject({ rule: z.array(ruleSchema).max(RULES_MAX) });

/** What rules name users and groups by. @throws Error for a name that is not known */
export interface Names {
  user(name: string): Promise<number>;
  group(name: string): Promise<number>;
}

interface Rule {
  readonly name: string;
  readonly users: ReadonlySet<number>;
  readonly groups: ReadonlySet<number>;
  readonly certificates: ReadonlySet<string>;
  readonly roles: ReadonlySet<Role>;
  readonly sandboxes: Labels | undefined;
  readonly roots: readonly string[] | undefined;
  readonly keys: readonly string[] | undefined;
}

/** What rules give together; undefined: not limited by them. */
export interface Grant {
  /** Names of the rules. */
  readonly rules: readonly string[];
  readonly roots: readonly string[] | undefined;
  readonly keys: readonly string[] | undefined;
}

const ALL: Grant = { rules: [], roots: undefined, keys: undefined };

export class Policy {
  /** Without a policy file: whoever may open the socket may do everything. */
  static readonly open = new Policy(undefined);

  readonly #rules: readonly Rule[] | undefined;

  private constructor(rules: readonly Rule[] | undefined) {
    this.#rules = rules;
  }

  /**
   * Reads the text of a policy file.
   * @throws Error that says what is wrong with it
   */
  static async parse(text: string, names: Names): Promise<Policy> {
    const parsed = policySchema.safeParse(parseToml(text));
    if (!parsed.success) throw new Error(problemsOf(parsed.error));
    const rules: Rule[] = [];
    for (const [index, rule] of parsed.data.rule.entries()) {
      const title = rule.name ?? `number ${index + 1}`;
      if (rule.users.length + rule.groups.length + rule.certificates.length === 0) {
        throw new Error(`rule ${title} names neither users nor groups nor certificates`);
      }
      rules.push({
        name: title,
        users: await idsOf(rule.users, (user) => names.user(user)),
        groups: await idsOf(rule.groups, (group) => names.group(group)),
        certificates: new Set(rule.certificates),
        roles: new Set(rule.roles.flatMap(rolesOf)),
        sandboxes: rule.sandboxes,
        roots: rule.roots,
        keys: rule.keys?.map(canonicalReference),
      });
    }
    return new Policy(rules);
  }

  /** True when some rule gives `admin` without a limit. */
  get hasAdmin(): boolean {
    return this.#rules?.some(({ roles, sandboxes }) => roles.has('admin') && sandboxes === undefined) ?? true;
  }

  /** All roots that rules name. */
  roots(): readonly string[] {
    return this.#rules?.flatMap(({ roots }) => roots ?? []) ?? [];
  }

  /**
   * What a caller may do in a role.
   * @param labels of the sandbox; undefined: of none, or of none that is there
   * @param what for the message: the method
   * @returns the grant, or why not: ShimError PERMISSION_DENIED / CALLER_NOT_NAMED, ROLE_MISSING, SANDBOX_NOT_GRANTED
   */
  grant(identity: Identity, role: Role, labels: Labels | undefined, what: string): Grant | ShimError {
    const naming = this.#naming(identity);
    if (naming === undefined) return ALL;
    const caller = describeIdentity(identity);
    if (naming.length === 0) {
      return denied('CALLER_NOT_NAMED', `${what}: no rule of the policy names ${caller}`, { caller, method: what });
    }
    const giving = naming.filter(({ roles }) => roles.has(role));
    if (giving.length === 0) {
      const rules = naming.map(quoted).join(', ');
      return denied(
        'ROLE_MISSING',
        `${what} needs the role ${role}, which no rule gives to ${caller} (it has ${rules})`,
        { ...{ caller, method: what, role }, rule: rulesText(naming) },
      );
    }
    const fitting = giving.filter(({ sandboxes }) => labels === undefined || hasAll(labels, sandboxes));
    if (fitting.length > 0) return union(fitting);
    const limits = giving.map((rule) => `${quoted(rule)} to those with ${labelsText(rule.sandboxes)}`).join(', ');
    return denied('SANDBOX_NOT_GRANTED', `${what}: ${caller} has the role ${role} for other sandboxes: ${limits}`, {
      ...{ caller, method: what, role },
      rule: rulesText(giving),
    });
  }

  /** The rules that name a caller; undefined: there is no policy. */
  #naming(identity: Identity): readonly Rule[] | undefined {
    // containerd is configured by the operator, and its socket offers nothing but its own services.
    if (this.#rules === undefined || identity.kind === 'containerd') return undefined;
    return this.#rules.filter(({ users, groups, certificates }) =>
      identity.kind === 'user'
        ? users.has(identity.uid) || identity.groups.some((group) => groups.has(group))
        : identity.names.some((one) => certificates.has(one)),
    );
  }
}

/**
 * Whether a grant covers a source, by its path or as `nbd:HOST`.
 * @returns why not: ShimError PERMISSION_DENIED / ROOT_NOT_GRANTED
 */
export function refusedRoot({ roots, rules }: Grant, source: string): ShimError | undefined {
  if (roots?.some((one) => source === one || source.startsWith(one.endsWith('/') ? one : `${one}/`)) !== false) {
    return undefined;
  }
  return denied(
    'ROOT_NOT_GRANTED',
    `${source} lies below none of the roots that the policy gives (rule ${rules.join(', ')}): ${roots.join(', ')}`,
    { source, rule: rules.join(', ') },
  );
}

/** As refusedRoot, for the reference of a key (`file:/etc/keys/a`). Returns PERMISSION_DENIED / KEY_NOT_GRANTED. */
export function refusedKey({ keys, rules }: Grant, reference: string): ShimError | undefined {
  const fits = (one: string): boolean =>
    one.endsWith('*') ? reference.startsWith(one.slice(0, -1)) : reference === one;
  if (keys?.some(fits) !== false) return undefined;
  return denied(
    'KEY_NOT_GRANTED',
    `the key ${reference} is none of those that the policy gives (rule ${rules.join(', ')}): ${keys.join(', ')}`,
    { key: reference, rule: rules.join(', ') },
  );
}

function denied(reason: DecidingReason, message: string, metadata: Readonly<Record<string, string>>): ShimError {
  return shimError(reason, message, { metadata });
}

function rolesOf(role: Role): readonly Role[] {
  return role === 'admin' ? ROLES : ['read', role];
}

/** Every label of `wanted`, with its value. */
export function hasAll(labels: Labels, wanted: Labels | undefined): boolean {
  return Object.entries(wanted ?? {}).every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);
}

/** A rule without a limit makes the whole unlimited. */
function union(rules: readonly Rule[]): Grant {
  const together = (lists: readonly (readonly string[] | undefined)[]): readonly string[] | undefined =>
    lists.includes(undefined) ? undefined : [...new Set(lists.flatMap((list) => list ?? []))];
  return {
    rules: rules.map(({ name: title }) => title),
    roots: together(rules.map(({ roots }) => roots)),
    keys: together(rules.map(({ keys }) => keys)),
  };
}

async function idsOf(
  named: readonly (number | string)[],
  look: (text: string) => Promise<number>,
): Promise<ReadonlySet<number>> {
  const ids = new Set<number>();
  for (const one of named) ids.add(typeof one === 'number' ? one : await look(one));
  return ids;
}

function quoted({ name: title, roles }: Rule): string {
  return `rule "${title}": ${[...roles].join(', ')}`;
}

function rulesText(rules: readonly Rule[]): string {
  return rules.map(({ name: title }) => title).join(', ');
}

function labelsText(labels: Labels | undefined): string {
  return Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(', ');
}

function problemsOf(error: z.ZodError): string {
  return error.issues
    .map((issue) => {
      const [, index, ...rest] = issue.path;
      const member = rest.map((part) => `.${String(part)}`).join('');
      return `${typeof index === 'number' ? `rule ${index + 1}${member}: ` : ''}${issue.message}`;
    })
    .join('; ');
}

/** For messages of what could not be parsed. */
export function policyProblem(path: string, error: unknown): string {
  return `the policy file ${path} cannot be used: ${messageOf(error)}`;
}
