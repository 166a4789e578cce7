import { keyError } from './errors.ts';
import { canonicalReference } from './reference.ts';

/** What a key is asked for. */
export interface KeyUse {
  /** As the API calls it. The key of `guest_luks2` goes into the guest, and is then its root's. */
  readonly kind: 'host_luks' | 'guest_luks2';
  /** Of the sandbox; undefined for an image that no sandbox has. */
  readonly labels: Readonly<Record<string, string>> | undefined;
  /** That what it opens must have; undefined: any. */
  readonly uuid: string | undefined;
  /** Something may be made with it, which has a UUID of its own. */
  readonly creates: boolean;
}

interface Binding {
  /** A reference, or what references begin with and a `*`. */
  readonly reference: string;
  readonly kind: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly uuid: string | undefined;
}

const KINDS: readonly string[] = ['host_luks', 'guest_luks2'] satisfies KeyUse['kind'][];
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * What the operator has bound keys to: a kind of encryption, labels of sandboxes, a LUKS UUID. A key that no binding
 * names may be used for everything; one that several name, for what all of them allow.
 */
export class KeyBindings {
  readonly #bindings: readonly Binding[];

  /**
   * @param lines as the configuration writes them: REFERENCE [kind=KIND] [label=NAME=VALUE]... [uuid=UUID]
   * @throws Error that says which line is wrong
   */
  constructor(lines: readonly string[]) {
    this.#bindings = lines.map(bindingFrom);
  }

  /** @throws ShimError PERMISSION_DENIED / KEY_BOUND */
  check(reference: string, use: KeyUse): void {
    for (const binding of this.#bindings) {
      if (!fits(binding.reference, reference)) continue;
      const problem = problemOf(binding, use);
      if (problem === undefined) continue;
      throw keyError('KEY_BOUND', `${reference}: ${problem}`, { metadata: { source: reference } });
    }
  }
}

function problemOf({ kind, labels, uuid }: Binding, use: KeyUse): string | undefined {
  if (kind !== undefined && kind !== use.kind) return `is bound to ${kind}, and not for ${use.kind}`;
  for (const [name, value] of Object.entries(labels)) {
    if (use.labels !== undefined && Object.hasOwn(use.labels, name) && use.labels[name] === value) continue;
    return `is bound to sandboxes with ${name}=${value}`;
  }
  if (uuid === undefined) return undefined;
  if (use.creates) return `is bound to the LUKS UUID ${uuid}, and nothing else may be made with it`;
  return use.uuid === uuid ? undefined : `is bound to the LUKS UUID ${uuid}: the request must name it`;
}

function fits(pattern: string, reference: string): boolean {
  return pattern.endsWith('*') ? reference.startsWith(pattern.slice(0, -1)) : reference === pattern;
}

function bindingFrom(line: string): Binding {
  const [reference = '', ...words] = line.split(/\s+/).filter((word) => word !== '');
  const wrong = (problem: string): Error => new Error(`the binding "${line}" ${problem}`);
  if (!/^[a-z-]+:/.test(reference)) throw wrong('does not begin with a reference, as file:/etc/keys/a');
  const binding: { kind: string | undefined; labels: Record<string, string>; uuid: string | undefined } = {
    ...{ kind: undefined, labels: {}, uuid: undefined },
  };
  for (const word of words) {
    const [, name = '', value = ''] = /^([a-z]+)=(.+)$/.exec(word) ?? [];
    if (name === 'kind' && KINDS.includes(value)) binding.kind = value;
    else if (name === 'uuid' && UUID.test(value)) binding.uuid = value;
    else if (name === 'label' && /^[^=]+=/.test(value)) {
      const at = value.indexOf('=');
      binding.labels[value.slice(0, at)] = value.slice(at + 1);
    } else throw wrong(`has "${word}", which is none of kind=${KINDS.join('|')}, label=NAME=VALUE, uuid=UUID`);
  }
  if (words.length === 0) throw wrong('binds the key to nothing');
  return { reference: canonicalReference(reference), ...binding };
}
